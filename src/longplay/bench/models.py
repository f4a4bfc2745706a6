"""The models that a bench measures: bundled, from a directory or a hub, or of the published sizes with random weights."""

from pathlib import Path

import torch

from longplay.bench.lm import RANDOM, open_lm
from longplay.checkpoint.hub import locate
from longplay.checkpoint.store import SystemConfig
from longplay.checkpoint.system import System, load_system, load_text_tokenizer
from longplay.errors import CheckpointError
from longplay.models.codec import Codec, CodecConfig
from longplay.models.flow import Flow, FlowConfig
from longplay.models.tokenizer import Tokenizer, TokenizerConfig
from longplay.nn.conv import fold_weight_norm

SIZES = (f"{RANDOM}base", f"{RANDOM}1.5b")
SAMPLE_RATE = 48_000


def open_system(model: str, lm: bool = False) -> System:
    """A whole system by name; `random:base` and `random:1.5b` have the published sizes, 48 kHz and random weights.

    Args:
        model: name.
        lm: also draw a random lm and give it the bundled text tokenizer, which takes seconds and gigabytes.

    Raises:
        CheckpointError: no such model.
    """
    if not model.startswith(RANDOM):
        return load_system(model)
    if model not in SIZES:
        raise CheckpointError(f"model {model!r}: unknown size; use {' or '.join(SIZES)}")
    language = open_lm(model) if lm else None
    torch.manual_seed(0)
    tokenizer, codec = Tokenizer(TokenizerConfig.published()), Codec(CodecConfig.published(SAMPLE_RATE))
    flow = Flow(FlowConfig.published(round(codec.config.frame_rate)))
    for part in (tokenizer, codec, flow, language):
        if part is not None:
            fold_weight_norm(part.eval().requires_grad_(False))
    return System(
        config=SystemConfig(
            name=model,
            licence="none: random numbers",
            provenance="longplay bench",
            tokenizer=tokenizer.config,
            lm=language.config if language else None,
            flow=flow.config,
            codec=codec.config,
        ),
        directory=Path(),
        weight_files=(),
        device=torch.device("cpu"),
        tokenizer=tokenizer,
        lm=language,
        flow=flow,
        codec=codec,
        text_tokenizer=load_text_tokenizer(locate("nano")) if lm else None,
    )
