"""Seconds that the flow takes per second of music, in windows, beside the machine's arithmetic and whole-piece attention.

The published estimator attends over the whole piece, which costs the square of its length; that is the baseline. The
table's `relative_error` is how far latents are from those in float32, by the same windows and noise (`latent_error`).
Studies of what other settings cost in quality run on trained weights: `bench/flow_studies.py`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from longplay.bench.arithmetic import count_flops
from longplay.bench.limits import CPU, dtypes, machine, measure_limits
from longplay.bench.measure import in_turns, timed
from longplay.bench.models import open_system
from longplay.bench.report import BenchReport, Curve, Row
from longplay.engine.flow_windows import FlowSettings, flow_plan, flow_window
from longplay.engine.memory import PeakMemory
from longplay.engine.windows import run_windows
from longplay.errors import CheckpointError
from longplay.models.flow import Flow
from longplay.nn import processor
from longplay.nn.ode import Method, evaluations

_INT8 = " and int8"


@dataclass(frozen=True)
class FlowBench:
    """What to measure.

    Attributes:
        model: see `open_system`.
        seconds: of music, of each piece.
        batch: pieces at once; costs are per second of the music of all.
        repeats: of every contender.
        num_steps, solver: of the solver; None: the model's own.
        baseline_seconds: the longest piece that the baseline makes; 0 leaves it out.
        device: where.
    """

    model: str
    seconds: float = 10.0
    repeats: int = 3
    num_steps: int | None = None
    solver: Method | None = None
    baseline_seconds: float = 10.0
    device: torch.device = CPU
    batch: int = 1

    def run(self) -> BenchReport:
        """Measure; the contenders take turns.

        Raises:
            CheckpointError: no such model, or one without a flow.
        """
        flow = open_flow(self.model, self.device)
        limits = measure_limits(self.device)
        forms = {f"windows, {name}": form for name, form in flow_forms(flow, self.device).items()}
        with PeakMemory(self.device) as peak:
            timings = in_turns({name: self._windows(form, self.seconds) for name, form in forms.items()}, self.repeats)
        with torch.inference_mode():
            latents = {name: self._windows(form, self.seconds)() for name, form in forms.items()}
        rows, music = [], self.seconds * self.batch
        for name, timing in timings.items():
            counted = name.removesuffix(_INT8).rpartition(" ")[2]
            flops = count_flops(self._windows(forms[f"windows, {counted}"], self.seconds)) / music
            cost = timing.median / music
            rate = limits.gemm[counted]
            lost = latent_error(flow, latents[name], latents["windows, float32"])
            rows.append(Row(name, self._row(cost, timing.spread, flops, rate) | {"relative_error": lost}))
        curves = [Curve(name, *self._curve(partial(self._windows, form), self.seconds)) for name, form in forms.items()]
        if self.baseline_seconds:
            length = min(self.seconds, self.baseline_seconds)
            curve = Curve("whole piece, float32", *self._curve(partial(self._whole, flow), length))
            flops = count_flops(self._whole(flow, length)) / length
            cost = curve.cost[-1] / length
            rows = [row.against(cost) for row in rows]
            rows.append(
                Row(f"whole piece of {length:g} s, float32", self._row(cost, 0.0, flops, limits.gemm["float32"]))
            )
            curves.append(curve)
        solver, num_steps = flow.config.defaults(self.solver, self.num_steps)
        setting = {
            "seconds": self.seconds,
            "batch": self.batch,
            "solver": solver,
            "evaluations": evaluations(solver, num_steps),
            **machine(self.device),
        }
        return BenchReport(
            "flow", self.model, setting, limits.values() | {"peak_memory_gb": peak.bytes / 1e9}, rows, curves
        )

    def _row(self, cost: float, spread: float, flops: float, rate: float) -> dict[str, float]:
        return {
            "s_per_s": cost,
            "spread": spread,
            "times_real_time": 1 / cost,
            "gflop_per_s_of_music": flops / 1e9,
            "of_gemm_rate": flops / rate / cost,
        }

    def _curve(self, work: Callable[[float], Callable[[], object]], seconds: float) -> tuple[list[float], list[float]]:
        lengths = [seconds / 4, seconds / 2, seconds]
        return lengths, [timed(work(length)) for length in lengths]

    def _windows(self, flow: Flow, seconds: float) -> Callable[[], Tensor]:
        run = flow_window(flow, range(self.batch), FlowSettings(self.num_steps, solver=self.solver))
        return partial(run_windows, run, some_codes(flow, seconds, self.batch), flow_plan(flow.config))

    def _whole(self, flow: Flow, seconds: float) -> Callable[[], Tensor]:
        codes = some_codes(flow, seconds)
        return partial(whole_piece, flow, codes, num_steps=self.num_steps, solver=self.solver)


def flow_forms(flow: Flow, device: torch.device) -> dict[str, Flow]:
    """Copies of a flow that compute in each of `dtypes` and, where a CPU can, in the last of them and int8."""
    forms = {name: copy.deepcopy(flow).compute_in(dtype) for name, dtype in dtypes(device).items()}
    if device.type == "cpu" and processor.can_compile():
        name, fastest = list(forms.items())[-1]
        forms[name + _INT8] = copy.deepcopy(fastest)
        forms[name + _INT8].estimator.use_int8()
    return forms


def latent_error(flow: Flow, made: Tensor, reference: Tensor) -> float:
    """Root mean square of the difference of latents, normalised as the flow learnt them, over that of the reference."""
    x, y = flow.normalize(made), flow.normalize(reference)
    return ((x - y).norm() / y.norm()).item()


def open_flow(model: str, device: torch.device) -> Flow:
    """The flow of a model.

    Raises:
        CheckpointError: no such model, or one without a flow.
    """
    system = open_system(model, device)
    if system.flow is None:
        raise CheckpointError(f"model {model!r}: has no flow, only {', '.join(system.config.present)}")
    return system.flow


def some_codes(flow: Flow, seconds: float, batch: int = 1) -> Tensor:
    """Codes [batch, T] drawn evenly: for time, not for quality."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, max(2, round(seconds * flow.config.code_rate)))
    codes = torch.randint(flow.config.codebook_size, shape, generator=generator)
    return codes.to(flow.input_embedding.weight.device)


@torch.inference_mode()
def whole_piece(
    flow: Flow, codes: Tensor, num_steps: int | None = None, solver: Method | None = None, seed: int = 0
) -> Tensor:
    """Latents by one solution over all frames, with the noise that windows of the same seed see."""
    return flow_window(flow, (seed,), FlowSettings(num_steps, solver=solver))(codes, 0)
