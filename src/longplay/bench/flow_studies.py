"""What cheaper settings of the flow cost in quality, on trained weights and codes of the model's own lm.

Each study is a table of settings: how far their latents, and the sound that the codec makes of them, are from those of a
better setting with the same noise, and how much of its time they take. Differences of latents are relative (root mean
square of the difference over that of the reference), those of sound are log-spectral distances in dB: the mean over
frames of the root mean square over frequencies, 2,048-sample windows, floor 60 dB below the loudest.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from longplay.bench.flow import flow_forms, latent_error, whole_piece
from longplay.bench.limits import CPU, dtypes, machine
from longplay.bench.lm import RANDOM
from longplay.bench.measure import in_turns, timed
from longplay.bench.report import BenchReport, Row
from longplay.checkpoint.system import System, load_system
from longplay.engine.flow_windows import flow_plan, flow_window
from longplay.engine.windows import run_windows
from longplay.errors import CheckpointError, UserError
from longplay.models.codec import Codec
from longplay.models.flow import Flow
from longplay.nn.istft import stft
from longplay.nn.ode import Method, evaluations
from longplay.pipeline.steps import Steps
from longplay.pipeline.stream import silent
from longplay.prompt import GenerationOptions, Prompt

Study = Literal["solver", "windows", "precision"]
PROMPT = "calm piano music"
REFERENCE_STEPS = 100
METHODS: tuple[Method, ...] = ("euler", "midpoint", "heun", "ab2")
EVALUATIONS = (1, 2, 4, 6, 10, 20)
WINDOWS = tuple((step, context) for step in (1.0, 2.5, 5.0, 10.0) for context in (0.0, 0.125, 0.25, 0.5, 1.0, 2.0))
FADE_SECONDS = 0.25
_FFT, _HOP, _FLOOR_DB = 2048, 512, 60.0


@dataclass(frozen=True)
class FlowStudy:
    """What to compare.

    Attributes:
        model: name or directory, with all four models.
        study: which table.
        seconds: of music.
        seed: of the piece; the study of windows also tells how far another noise is.
    """

    model: str
    study: Study
    seconds: float = 30.0
    seed: int = 0

    def run(self) -> BenchReport:
        """Make codes and compare.

        Raises:
            CheckpointError: no such model, or one that cannot make 48 kHz music.
            UserError: a random model, of which quality says nothing.
        """
        if self.model.startswith(RANDOM):
            raise UserError(f"model {self.model!r}: the quality of random weights says nothing; use a trained model")
        system = load_system(self.model)
        if system.flow is None or system.codec is None or system.lm is None:
            raise CheckpointError(f"model {self.model!r}: a study needs lm, flow and codec")
        codes = _codes(system, self.model, self.seconds, self.seed)
        rows = list(getattr(self, f"_{self.study}")(system.flow, system.codec, codes))
        setting = {"seconds": self.seconds, **machine(system.device)}
        return BenchReport(f"flow ({self.study})", self.model, setting, {}, rows)

    def _solver(self, flow: Flow, codec: Codec, codes: Tensor) -> Iterator[Row]:
        exact = whole_piece(flow, codes, REFERENCE_STEPS, "euler", self.seed)
        for count in EVALUATIONS:
            for method in METHODS:
                steps = count // evaluations(method, 1)
                if not steps:
                    continue
                made = whole_piece(flow, codes, steps, method, self.seed)
                yield Row(f"{count} evaluations, {method}", _differences(flow, codec, made, exact))

    def _windows(self, flow: Flow, codec: Codec, codes: Tensor) -> Iterator[Row]:
        whole = whole_piece(flow, codes, seed=self.seed)
        cost = timed(lambda: whole_piece(flow, codes, seed=self.seed))
        yield Row(
            "whole piece, another noise", _differences(flow, codec, whole_piece(flow, codes, seed=self.seed + 1), whole)
        )
        for step, context in WINDOWS:
            plan = flow_plan(flow.config, step, context, min(FADE_SECONDS, step / 2))
            run = flow_window(flow, (self.seed,))
            made = run_windows(run, codes, plan)
            took = timed(lambda: run_windows(run, codes, plan)) / cost  # noqa: B023  called at once
            values = _differences(flow, codec, made, whole) | {"time_of_whole": took}
            yield Row(f"step {step:g} s, context {context:g} s", values)

    def _precision(self, flow: Flow, codec: Codec, codes: Tensor) -> Iterator[Row]:
        forms = flow_forms(flow, CPU)
        decoders = {name: copy.deepcopy(codec).decode_in(dtype) for name, dtype in dtypes(CPU).items()}
        flows = in_turns({name: lambda form=form: whole_piece(form, codes) for name, form in forms.items()})  # type: ignore[misc]
        exact = whole_piece(forms["float32"], codes)
        for name, form in forms.items():
            values = _differences(flow, codec, whole_piece(form, codes), exact)
            yield Row(f"flow in {name}", values | {"seconds": flows[name].median})
        sound = _decode(codec, exact)
        taken = in_turns({name: lambda form=form: _decode(form, exact) for name, form in decoders.items()})  # type: ignore[misc]
        for name, decoder in decoders.items():
            values = {"sound_db": log_spectral_distance(_decode(decoder, exact), sound)}
            yield Row(f"codec in {name}", values | {"seconds": taken[name].median})


def log_spectral_distance(made: Tensor, reference: Tensor) -> float:
    """In dB, of two waves [1, 1, S]; see the module's docstring."""
    window = torch.hann_window(_FFT)
    spectra = [stft(wav[:, 0].float(), window, _HOP).abs().clamp_min(1e-8).log10() * 20 for wav in (made, reference)]
    floor = spectra[1].max() - _FLOOR_DB
    difference = spectra[0].clamp_min(floor) - spectra[1].clamp_min(floor)
    return difference.square().mean(dim=1).sqrt().mean().item()


def _differences(flow: Flow, codec: Codec, made: Tensor, reference: Tensor) -> dict[str, float]:
    return {
        "latents": latent_error(flow, made, reference),
        "sound_db": log_spectral_distance(_decode(codec, made), _decode(codec, reference)),
    }


@torch.inference_mode()
def _decode(codec: Codec, latents: Tensor) -> Tensor:
    return codec.decode(latents)


def _codes(system: System, name: str, seconds: float, seed: int) -> Tensor:
    prompt = Prompt(text=PROMPT)
    options = GenerationOptions(seconds=seconds, seed=seed).settle(prompt)
    steps = Steps(system, name, options, silent)
    return torch.cat(list(steps.generate(steps.piece(prompt))), dim=1)
