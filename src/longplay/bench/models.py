"""The models that a bench measures: bundled, from a directory or a hub, or of the published sizes with random weights."""

from dataclasses import replace
from pathlib import Path

import torch

from longplay.bench.lm import RANDOM, in_precision, open_lm, parse_precisions
from longplay.checkpoint.hub import locate
from longplay.checkpoint.store import SystemConfig
from longplay.checkpoint.system import System, load_system, load_text_tokenizer
from longplay.errors import CheckpointError
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn import processor
from longplay.nn.conv import fold_weight_norm
from longplay.pipeline import Pipeline
from longplay.pipeline.precision import AUTO
from longplay.pipeline.synthesis import speed_up

SIZES = (f"{RANDOM}base", f"{RANDOM}1.5b")
SAMPLE_RATE = 48_000


def open_pipeline(model: str, precision: str, device: torch.device) -> Pipeline:
    """A pipeline; of a random model, the lm is one of `FORMS`, and `auto` is int8, whatever its quality (elsewhere than on a CPU, bfloat16).

    Raises:
        CheckpointError: no such model.
        UserError: an unknown precision.
    """
    if not model.startswith(RANDOM):
        return Pipeline.load(model, str(device), precision)
    fastest = "bfloat16" if device.type != "cpu" else "int8-compiled" if processor.can_compile() else "int8"
    (form,) = parse_precisions(fastest if precision == AUTO else precision, device)
    system = open_system(model, device)
    speed_up(system)
    wide, quantized = open_lm(model, [form])
    lm = in_precision(wide, form, quantized, device)
    config = system.config.model_copy(update={"lm": lm.config})
    text_tokenizer = load_text_tokenizer(locate("nano"))
    return Pipeline(replace(system, config=config, lm=lm, text_tokenizer=text_tokenizer), model, form)


def open_system(model: str, device: torch.device) -> System:
    """A system by name; `random:base` and `random:1.5b` have the published sizes, 48 kHz, random weights, and no lm.

    Raises:
        CheckpointError: no such model.
    """
    if not model.startswith(RANDOM):
        return load_system(model, device)
    if model not in SIZES:
        raise CheckpointError(f"model {model!r}: unknown size; use {' or '.join(SIZES)}")
    torch.manual_seed(0)
    tokenizer, codec = Tokenizer(TokenizerConfig.published()), Codec(CodecConfig.published(SAMPLE_RATE))
    flow = Flow(FlowConfig.published(round(codec.config.frame_rate)))
    for part in (tokenizer, codec, flow):
        fold_weight_norm(part.eval().requires_grad_(False).to(device))
    return System(
        config=SystemConfig(
            name=model,
            licence="none: random numbers",
            provenance="longplay bench",
            tokenizer=tokenizer.config,
            flow=flow.config,
            codec=codec.config,
        ),
        directory=Path(),
        weight_files=(),
        device=device,
        tokenizer=tokenizer,
        flow=flow,
        codec=codec,
    )
