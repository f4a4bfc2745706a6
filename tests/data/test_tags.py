from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest

from longplay.data.musicnn import Heard, Listener, Musicnn
from longplay.data.tags import (
    EXCERPTS,
    MIN_PROBABILITY,
    likeness,
    passage_probabilities,
    probabilities,
    vocabulary,
    words,
)


def usual() -> dict[str, float]:
    return {name: float(1 / (1 + np.exp(-entry.usual))) for name, entry in vocabulary().items()}


def test_what_is_usual_is_not_said() -> None:
    assert not any(words(usual()))


def test_what_stands_out_is_said_once_and_the_most_telling_comes_first() -> None:
    heard = words(usual() | {"MTT/metal": 0.5, "MSD/metal": 0.6, "MSD/rock": 0.5, "MTT/piano": 0.9})
    assert heard.styles == ("metal", "rock")
    assert heard.instruments == ("piano",)
    assert heard.moods == ()


def test_an_improbable_tag_is_not_said_however_unusual() -> None:
    assert vocabulary()["MTT/opera"].usual < -5
    assert not words(usual() | {"MTT/opera": MIN_PROBABILITY * 0.9}).styles
    assert words(usual() | {"MTT/opera": MIN_PROBABILITY * 1.1}).styles == ("opera",)


def test_words_stand_out_over_other_words_not_where_all_do() -> None:
    def louder(names: Iterable[str]) -> dict[str, float]:
        return usual() | {name: float(1 / (1 + np.exp(-vocabulary()[name].usual - 1))) for name in names}

    assert likeness(usual(), ["piano"]) == pytest.approx(0)
    assert likeness(louder(vocabulary()), ["piano"]) == pytest.approx(0, abs=0.05)
    assert likeness(louder(["MTT/piano"]), ["piano"]) > 0.9
    assert likeness(louder(["MTT/harp"]), ["piano"]) < 0


@pytest.mark.parametrize("seconds", [3.5, 60.0])
def test_excerpts_lie_inside_short_and_long_tracks(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener(Musicnn(), Musicnn())
    taken: list[np.ndarray] = []
    hear = listener.hear

    def spy(clips, rate):  # type: ignore[no-untyped-def]
        taken.extend(clips)
        return hear(taken[:1], rate)

    monkeypatch.setattr(listener, "hear", spy)
    found = probabilities(
        listener, np.random.default_rng(0).normal(0, 0.1, int(seconds * 16000)).astype(np.float32), 16000
    )
    assert len(found) == 100
    assert set(vocabulary()) <= set(found)
    assert len(taken) == min(EXCERPTS, 1 if seconds < 6 else EXCERPTS)
    assert len({len(clip) for clip in taken}) == 1


@pytest.mark.parametrize(
    ("seconds", "bounds"),
    [(60.0, range(0, 70, 10)), (27.5, [0, 10, 27.5]), (8.0, [0, 8]), (4.0, [])],
    ids=["whole passages", "a rest", "short", "too short"],
)
def test_passages_are_heard_in_their_middle(seconds: float, bounds: list[float]) -> None:
    rate = 16000
    wav = np.arange(round(seconds * rate), dtype=np.float32) / rate  # each sample says when it is

    class Spy:
        def hear(self, clips: list[np.ndarray], rate: int) -> Heard:
            tags = [np.full(100, (clip[0] + clip[-1]) / 2 / 100) for clip in clips]
            assert {round(len(clip) / rate) for clip in clips} == {6}
            return Heard(np.zeros((0, 200)), np.stack(tags))

    found = passage_probabilities(Spy(), wav, rate)  # type: ignore[arg-type]
    assert [(each.start, each.end) for each in found] == list(pairwise(bounds))
    for each in found:
        assert set(vocabulary()) <= set(each.tags)
        assert each.tags["MTT/guitar"] * 100 == pytest.approx((each.start + each.end) / 2, abs=0.1)
