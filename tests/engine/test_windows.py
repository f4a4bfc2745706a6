"""Windows against one run over the whole, streamed against offline."""

from collections.abc import Callable
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from longplay.control import CHORD_WIDTH
from longplay.engine.flow_windows import FlowRow, FlowSettings, flow_plan, flow_window, run_flow
from longplay.engine.noise import FrameNoise
from longplay.engine.windows import (
    WindowPlan,
    WindowStream,
    run_windows,
    stateless,
    stream_windows,
)
from longplay.models.flow import Flow
from longplay.models.flow_config import FlowConfig
from longplay.nn.conformer import ConformerConfig
from longplay.nn.unet import UNetConfig
from tiny_flow import PRECONDITION

RATIO = 3
RECEPTIVE_FIELD = 4


class ToyDecoder(nn.Module):
    """Convolutions over 4 frames on each side, then 3 samples per frame."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv1d(2, 8, 5, padding=2),
            nn.Tanh(),
            nn.Conv1d(8, 8, 5, padding=2),
            nn.Tanh(),
            nn.ConvTranspose1d(8, 1, 3, 3),
        )

    def forward(self, frames: Tensor) -> Tensor:
        wav: Tensor = self.layers(frames)
        return wav


def whole(decode: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    with torch.inference_mode():
        return decode(frames)


@pytest.mark.parametrize("length", [1, 3, 10, 11, 14, 15, 40, 41])
@pytest.mark.parametrize("fade", [0, 2])
def test_windows_over_the_exact_receptive_field_equal_the_whole(length: int, fade: int) -> None:
    decode, frames = ToyDecoder(), torch.randn(2, 2, length)
    plan = WindowPlan(step=10, context=RECEPTIVE_FIELD, fade=fade, ratio=RATIO)
    windowed = run_windows(stateless(decode), frames, plan)
    torch.testing.assert_close(windowed, whole(decode, frames), rtol=0, atol=1e-6)


def test_one_frame_less_of_context_is_seen_at_the_joints() -> None:
    decode, frames = ToyDecoder(), torch.randn(1, 2, 40)
    plan = WindowPlan(step=10, context=RECEPTIVE_FIELD - 1, fade=0, ratio=RATIO)
    wrong = (run_windows(stateless(decode), frames, plan) - whole(decode, frames)).abs()[0, 0] > 1e-4
    places = wrong.nonzero().flatten() // RATIO
    assert set(places.tolist()) <= {9, 10, 19, 20, 29, 30}
    assert len(places) > 0


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=8),
    step=st.integers(3, 12),
    context=st.integers(0, 6),
    fade=st.integers(0, 3),
    first_step=st.none() | st.integers(3, 12),
    lag=st.integers(0, 3),
)
def test_streamed_equals_offline_exactly_however_the_frames_arrive(
    length: int, cuts: list[int], step: int, context: int, fade: int, first_step: int | None, lag: int
) -> None:
    lag = min(lag, min(step, first_step or step) - max(fade, 1))
    frames = torch.randn(1, 2, length, generator=torch.Generator().manual_seed(length))
    plan = WindowPlan(step, context, fade, 2, first_step, lag=lag)

    def of_the_whole_window(window: Tensor, start: int) -> Tensor:
        return (window + window.mean() + start).repeat_interleave(2, dim=-1)

    bounds = [0, *sorted(min(cut, length) for cut in cuts), length]
    pieces = [frames[..., a:b] for a, b in pairwise(bounds)]
    streamed = torch.cat(list(stream_windows(of_the_whole_window, pieces, plan)), dim=-1)
    assert streamed.shape[-1] == 2 * length
    assert torch.equal(streamed, run_windows(of_the_whole_window, frames, plan))


def test_a_window_comes_as_soon_as_its_frames_are_there() -> None:
    stream = WindowStream(WindowPlan(step=10, context=2, fade=1, ratio=1, first_step=4))
    arrived = [pushed(stream, 1) for _ in range(30)]
    assert [index + 1 for index, count in enumerate(arrived) if count] == [4 + 3, 10 + 3, 19 + 3]
    assert not stream.finished
    stream.end()
    assert sum(arrived) + pushed(stream, 0) == 30
    assert stream.finished
    assert not stream.ready


def pushed(stream: WindowStream, count: int) -> int:
    """How many frames are made, by a run that changes nothing, after so many more."""
    stream.push(torch.zeros(1, count))
    made = 0
    while stream.ready:
        assert stream.size == stream.window().frames.shape[-1]
        made += stream.take(stream.window().frames).shape[-1]
    return made


def test_steps_grow_by_half_on_the_grid_until_they_are_full() -> None:
    plan = WindowPlan(step=30, context=0, fade=0, ratio=1, first_step=6, grid=2)
    assert list(islice(plan.steps(), 7)) == [6, 8, 12, 18, 26, 30, 30]
    assert list(islice(WindowPlan(30, 0, 0, 1).steps(), 2)) == [30, 30]


def test_a_lagging_plan_keeps_up_with_the_steps_of_the_one_before() -> None:
    first = WindowPlan(step=50, context=5, fade=2, ratio=1, first_step=10)
    second = WindowPlan(step=50, context=4, fade=0, ratio=1, first_step=10, lag=4)
    stream = WindowStream(second)
    received = made = 0
    for step in islice(first.steps(), 8):
        received += step
        made += pushed(stream, step)
        assert made == received - 4


def test_windows_stay_as_small_and_as_many_as_planned() -> None:
    plan = WindowPlan(step=10, context=3, fade=2, ratio=1)
    for length in (200, 2000):
        sizes: list[int] = []

        def run(frames: Tensor, start: int, sizes: list[int] = sizes) -> Tensor:
            sizes.append(frames.shape[-1])
            return frames

        run_windows(run, torch.zeros(1, length), plan)
        assert len(sizes) == length // plan.step
        assert max(sizes) == plan.step + 2 * plan.context + plan.fade


def test_a_cross_fade_goes_from_one_window_to_the_next_and_weighs_one() -> None:
    plan = WindowPlan(step=8, context=1, fade=4, ratio=2)
    number = iter(range(10))
    out = run_windows(
        lambda frames, _: torch.full((1, 2 * frames.shape[-1]), float(next(number))), torch.zeros(1, 24), plan
    )
    assert torch.equal(out[0, :16], torch.zeros(16))
    assert torch.equal(out[0, 16:24], (torch.arange(8) + 0.5) / 8)
    assert torch.equal(out[0, 24:32], torch.ones(8))


def test_wrong_plans_and_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        WindowPlan(step=0, context=1, fade=0, ratio=1)
    with pytest.raises(ValueError, match="fade must not be longer"):
        WindowPlan(step=4, context=1, fade=5, ratio=1)
    with pytest.raises(ValueError, match="multiples of grid"):
        WindowPlan(step=5, context=0, fade=0, ratio=1, grid=2)
    with pytest.raises(ValueError, match="no frames"):
        run_windows(lambda frames, _: frames, torch.zeros(1, 0), WindowPlan(4, 0, 0, 1))
    with pytest.raises(ValueError, match="a window of 3 frames gave 3"):
        run_windows(lambda frames, _: frames, torch.zeros(1, 3), WindowPlan(4, 0, 0, 2))


@pytest.fixture(scope="module")
def flow() -> Flow:
    torch.manual_seed(0)
    config = FlowConfig(
        codebook_size=16,
        code_rate=10,
        frame_rate=20,
        input_dim=8,
        latent_dim=4,
        encoder=ConformerConfig(dim=16, num_layers=1, num_heads=2, hidden_dim=16),
        regulator_layers=1,
        estimator=UNetConfig(channels=(8, 8), num_blocks=(0, 1), num_mid_blocks=1, num_heads=2, head_dim=8),
        num_steps=2,
    )
    return Flow(config).eval()


def test_a_flow_that_fits_one_window_is_sampled_whole(flow: Flow) -> None:
    codes = torch.randint(16, (2, 30))
    windowed = run_windows(flow_window(flow, (7, 8)), codes, flow_plan(flow.config))
    with torch.inference_mode():
        assert torch.equal(windowed, flow.sample(codes, FrameNoise((7, 8), 4)(0, 60)))


def test_windows_see_the_same_lasting_noise(flow: Flow) -> None:
    flow = Flow(flow.config.model_copy(update=PRECONDITION | {"noise_reach": 9})).eval()
    flow.noise_taps.copy_(torch.rand(4, 19))
    flow.noise_mix.copy_(torch.rand(4, 4))
    flow.estimator.say_nothing()
    codes = torch.randint(16, (1, 47))
    plan = flow_plan(flow.config, seconds=1.0, context_seconds=0.4, fade_seconds=0.2)
    with torch.inference_mode():
        flow.condition = lambda codes, **_: torch.zeros(1, 4, 2 * codes.shape[1])  # type: ignore[method-assign]
        whole = flow.sample(codes, FrameNoise((7,), 4)(-9, 94 + 9))
    torch.testing.assert_close(run_windows(flow_window(flow, (7,)), codes, plan), whole, rtol=0, atol=1e-5)


def test_a_streamed_flow_and_decoder_equal_the_offline_ones(flow: Flow) -> None:
    codes = torch.randint(16, (1, 47))
    decoder = nn.ConvTranspose1d(4, 1, 8, stride=8)
    plan = flow_plan(flow.config, seconds=1.0, context_seconds=0.4, fade_seconds=0.2, first_seconds=0.4)
    decode = WindowPlan(step=10, context=0, fade=0, ratio=8)
    latents = run_windows(flow_window(flow, (7,)), codes, plan)
    offline = run_windows(stateless(decoder), latents, decode)
    streamed = stream_windows(flow_window(flow, (7,)), codes.split(5, dim=-1), plan)
    wav = torch.cat(list(stream_windows(stateless(decoder), streamed, decode)), dim=-1)
    assert wav.shape == (1, 1, 47 * 2 * 8)
    assert torch.equal(wav, offline)


def test_each_window_of_a_flow_is_told_the_chords_of_its_own_codes(flow: Flow) -> None:
    torch.manual_seed(1)
    flow = Flow(flow.config.model_copy(update={"chords": True})).eval()
    assert flow.chord_projection is not None
    torch.nn.init.normal_(flow.chord_projection.weight)
    codes, chords = torch.randint(16, (2, 47)), torch.randint(2, (80, CHORD_WIDTH)).float()
    plan = flow_plan(flow.config, seconds=1.0, context_seconds=0.4, fade_seconds=0.2)
    asked = list[tuple[int, int]]()

    def told(first: int, count: int) -> torch.Tensor:
        asked.append((first, count))
        return chords[first : first + count]

    windowed = run_windows(flow_window(flow, (7, 8), chords=told), codes, plan)
    assert len(asked) > 1
    assert asked[-1][0] + asked[-1][1] == 47
    assert not torch.equal(windowed, run_windows(flow_window(flow, (7, 8)), codes, plan))
    first, count = asked[1]
    with torch.inference_mode():
        noise = FrameNoise((7, 8), 4)(first * 2, (first + count) * 2)
        part = flow.sample(
            codes[:, first : first + count], noise, chords=chords[first : first + count].expand(2, -1, -1)
        )
    own = plan.context + plan.fade
    start = (first + own) * 2
    torch.testing.assert_close(windowed[..., start : start + 4], part[..., own * 2 : own * 2 + 4])


def test_rows_of_one_batch_are_windows_of_pieces_of_their_own(flow: Flow) -> None:
    codes, settings = torch.randint(16, (2, 12)), FlowSettings(num_steps=2)
    rows = [FlowRow(7), FlowRow(9)]
    both = run_flow(flow, rows, codes, (30, 4), settings)
    for number, (row, start) in enumerate(zip(rows, (30, 4), strict=True)):
        alone = run_flow(flow, [row], codes[number : number + 1], [start], settings)
        torch.testing.assert_close(both[number : number + 1], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(both[:1], run_flow(flow, rows[:1], codes[:1], [4], settings), atol=1e-2)


def test_flow_windows_halve_their_rate_at_the_same_frames(flow: Flow) -> None:
    plan = flow_plan(flow.config, seconds=0.5, context_seconds=0.3, fade_seconds=0.1)
    assert (plan.step, plan.context, plan.fade, plan.ratio) == (6, 4, 2, 2)
