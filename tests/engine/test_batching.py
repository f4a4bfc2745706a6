import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longplay.engine.batching import Runner, Scheduler
from longplay.engine.decode import generate
from longplay.engine.piece import Piece
from longplay.prompt import GenerationOptions
from tiny_lm import tiny_lm


class Schedules(RuleBasedStateMachine):
    """Any sequence of arrivals, rounds, ends and cancellations."""

    SLOTS = 3

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(self.SLOTS)
        self.waiting: list[tuple[str, str]] = []
        self.running: dict[str, int] = {}
        self.count = 0

    @rule(owner=st.sampled_from("abc"))
    def arrive(self, owner: str) -> None:
        self.count += 1
        self.scheduler.submit(str(self.count), owner)
        self.waiting.append((str(self.count), owner))

    @rule()
    def admit(self) -> None:
        admitted = self.scheduler.admit()
        owners = dict(self.waiting)
        for admission in admitted:
            mine = [key for key, owner in self.waiting if owner == owners[admission.key]]
            assert admission.key == mine[0], "an owner's pieces run in the order they came"
            assert admission.slot not in self.running.values()
            self.running[admission.key] = admission.slot
            self.waiting = [item for item in self.waiting if item[0] != admission.key]
        assert not self.waiting or len(self.running) == self.SLOTS, "no slot idles while a piece waits"

    @rule()
    def close_gap(self) -> None:
        change = self.scheduler.close_gap()
        taken = set(self.running.values())
        if taken and max(taken) >= len(taken):
            old, new = change or (-1, -1)
            assert old == max(taken)
            assert new == min(set(range(self.SLOTS)) - taken)
            self.running = {key: new if slot == old else slot for key, slot in self.running.items()}
        else:
            assert change is None

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.running:
            key = data.draw(st.sampled_from(sorted(self.running)))
            assert self.scheduler.remove(key) == self.running.pop(key)

    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        if self.waiting:
            item = data.draw(st.sampled_from(self.waiting))
            assert self.scheduler.remove(item[0]) is None
            self.waiting.remove(item)

    @invariant()
    def agrees(self) -> None:
        assert self.scheduler.running == self.running
        assert self.scheduler.waiting == len(self.waiting)
        assert len(set(self.running.values())) == len(self.running) <= self.SLOTS
        assert set(self.running.values()) <= set(range(self.SLOTS))


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(max_examples=50, deadline=None)
@given(slots=st.integers(1, 4), crowd=st.integers(0, 30), others=st.integers(1, 4))
def test_a_crowd_of_one_owner_does_not_hold_up_the_others(slots: int, crowd: int, others: int) -> None:
    scheduler = Scheduler(slots)
    for number in range(crowd):
        scheduler.submit(f"crowd-{number}", "crowd")
    order = [admission.key for admission in scheduler.admit()]
    for number in range(others):
        scheduler.submit(f"other-{number}", f"owner-{number}")
    order += [admission.key for admission in scheduler.admit()]
    running = list(scheduler.running)
    while running:
        scheduler.remove(running.pop(0))
        admitted = [admission.key for admission in scheduler.admit()]
        order += admitted
        running += admitted
    after = order[min(slots, crowd) :]
    # each of the others starts once those before it in turn have had theirs, however many the crowd has
    for number in range(others):
        assert after.index(f"other-{number}") <= others
    assert len(order) == crowd + others


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="slots 0"):
        Scheduler(0)
    scheduler = Scheduler(1)
    scheduler.submit("a")
    with pytest.raises(ValueError, match="'a' is here already"):
        scheduler.submit("a")
    assert scheduler.remove("b") is None


PIECES = {
    "a": Piece((1, 2, 3), frames=23, seed=5, prompt=torch.tensor([4, 5])),
    "b": Piece((7,), frames=9, seed=6),
    "c": Piece((), frames=31, seed=5, prompt=torch.arange(11)),
    "d": Piece((9, 9), frames=2, seed=8),
    "e": Piece((3,), frames=17, seed=1, min_frames=17),
}


@pytest.mark.parametrize(("slots", "prefill_positions"), [(2, 512), (3, 4), (5, 1)])
@pytest.mark.parametrize("context_frames", [None, 8])
def test_a_piece_in_a_running_batch_is_the_piece_alone(
    context_frames: int | None, slots: int, prefill_positions: int
) -> None:
    lm = tiny_lm(context_frames=context_frames)
    options = {key: GenerationOptions(top_k=10, guidance=3.0 if key != "b" else 1.5) for key in PIECES}
    runner = Runner(lm, slots, positions=60, chunk_frames=4, prefill_positions=prefill_positions)
    codes: dict[str, list[int]] = {key: [] for key in PIECES}
    ended = []
    for key in "abc":
        runner.submit(key, PIECES[key], options[key])
    for number in range(100):
        if number == 2:  # others come while it runs
            for key in "de":
                runner.submit(key, PIECES[key], options[key])
        for made in runner.round():
            codes[made.key] += made.codes.tolist()
            ended += [made.key] * made.finished
        if runner.idle and number > 2:
            break
    assert sorted(ended) == sorted(PIECES)
    for key, piece in PIECES.items():
        alone = torch.cat(list(generate(lm, [piece], options[key])), dim=1)[0].tolist()
        assert codes[key] == alone, key


def test_a_long_prompt_is_read_beside_pieces_that_go_on() -> None:
    lm, options = tiny_lm(), GenerationOptions(top_k=10)
    runner = Runner(lm, slots=2, positions=90, chunk_frames=2, prefill_positions=10)
    runner.submit("going", Piece((1,), 30, seed=1, min_frames=30), options)
    runner.round()
    runner.submit("long", Piece((2,), 4, seed=2, prompt=torch.arange(64) % 20), options)
    rounds = [{made.key for made in runner.round()} for _ in range(8)]
    assert rounds == [{"going"}] * 6 + [{"going", "long"}] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_rows_are_closed_up_when_pieces_leave(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    lm, options = tiny_lm(dim=64, num_heads=4, num_kv_heads=2), GenerationOptions(top_k=10)

    def made(gaps: bool) -> tuple[list[int], list[int]]:
        with monkeypatch.context() as patched:
            if gaps:
                patched.setattr(Runner, "_close_gaps", lambda self: None)
            runner = Runner(lm, slots=3, positions=310, chunk_frames=4, cache_dtype=dtype)
            for number, frames in enumerate((4, 8, 40)):
                prompt = torch.arange(260) % 20
                runner.submit(str(number), Piece((1,), frames, number, min_frames=frames, prompt=prompt), options)
            codes, rows = [], []
            while not runner.idle:
                codes += [code for made in runner.round() if made.key == "2" for code in made.codes.tolist()]
                rows.append(len(runner._batch._rows.lengths))
        return codes, rows

    closed, left = made(gaps=False), made(gaps=True)
    assert closed[0] == left[0]
    assert closed[1][:4] == [6, 2, 2, 2]
    assert left[1][:4] == [6, 6, 6, 6]


def test_cancelled_pieces_free_their_slot_and_disturb_nobody() -> None:
    lm = tiny_lm()
    options = GenerationOptions(top_k=10)
    runner = Runner(lm, slots=1, positions=60, chunk_frames=4)
    for key in "acb":
        runner.submit(key, PIECES[key], options)
    assert [made.key for made in runner.round()] == ["a"]
    runner.cancel("a")
    runner.cancel("c")
    runner.cancel("never there")
    made = list(runner.run())
    assert {item.key for item in made} == {"b"}
    alone = torch.cat(list(generate(lm, [PIECES["b"]], options)), dim=1)[0]
    assert torch.equal(torch.cat([item.codes for item in made]), alone)


def test_what_does_not_fit_is_refused() -> None:
    runner = Runner(tiny_lm(), slots=1, positions=20, guided=False)
    with pytest.raises(ValueError, match="is too long for rows of 20 positions"):
        runner.submit("a", Piece((1,), 32, 0), GenerationOptions(guidance=1.0))
    with pytest.raises(ValueError, match="guidance 3 needs a guided batch"):
        runner.submit("a", Piece((1,), 3, 0), GenerationOptions())
    assert runner.idle
