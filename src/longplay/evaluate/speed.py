"""Real-time factor of each stage: seconds of music made per second of computing, one piece at a time."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from longplay.engine.encode import encode
from longplay.engine.flow_windows import flow_plan, flow_window
from longplay.engine.vocode import decode
from longplay.engine.windows import run_windows
from longplay.evaluate.report import Row
from longplay.models.codec import Codec
from longplay.models.tokenizer import Tokenizer
from longplay.pipeline import Pipeline
from longplay.pipeline.steps import Steps
from longplay.pipeline.stream import silent
from longplay.prompt import GenerationOptions, Prompt

PROMPT = "calm piano music"


def speed_rows(pipeline: Pipeline, seconds: float) -> list[Row]:
    """The stages that the model has, and the whole if it has all, on noise or freely generated music of `seconds`.

    Every stage runs once before it is timed.
    """
    system, device = pipeline.system, pipeline.system.device
    work: dict[str, Callable[[], object]] = {}
    for name, model in (("tokenizer", system.tokenizer), ("codec", system.codec)):
        if model is not None:
            wav = 0.1 * torch.randn(1, 1, round(seconds * model.config.sample_rate), device=device)
            work |= _coder(name, model, wav)
    if system.flow is not None:
        flow = system.flow
        frames = round(seconds * flow.config.code_rate)
        codes = torch.randint(flow.config.codebook_size, (1, frames), device=device)
        work["flow"] = lambda: run_windows(flow_window(flow, (0,)), codes, flow_plan(flow.config))
    if system.lm is not None:
        prompt = Prompt(text=PROMPT)
        options = GenerationOptions(seconds=seconds, seed=0)
        steps = Steps(system, pipeline.name, options.settle(prompt), silent)
        work["lm"] = lambda: list(steps.generate(steps.piece(prompt)))
        if system.tokenizer is not None:
            work["all, fast"] = lambda: pipeline.generate(prompt, options.model_copy(update={"fast": True}))
        if system.flow is not None and system.codec is not None:
            work["all"] = lambda: pipeline.generate(prompt, options)
    return [Row(name, {"times_real_time": seconds / _timed(run)}) for name, run in work.items()]


def _coder(name: str, model: Tokenizer | Codec, wav: Tensor) -> dict[str, Callable[[], object]]:
    frames = encode(model, wav)
    if isinstance(model, Codec):
        with torch.inference_mode():
            frames = model.embed(frames)
    return {
        f"{name} encode": lambda: encode(model, wav),
        f"{name} decode": lambda: decode(model, frames),
    }


def _timed(run: Callable[[], object]) -> float:
    run()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
