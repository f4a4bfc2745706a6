import math

import numpy as np
import pytest

from longplay.analysis.measure import same_tempo
from longplay.evaluate.adherence import hit_rate, retrieval_rate, same_key, same_tonic
from longplay.keys import Key, named_key
from longplay.tempo import named_bpm


def synthetic_tags(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.6, (count, 40))


def groups(count: int) -> list[str]:
    return [f"track {i}" for i in range(count)]


def test_clips_like_what_was_asked_are_always_found() -> None:
    wanted = synthetic_tags(16)

    assert retrieval_rate(wanted, wanted, groups(16)) == 1


def test_a_set_that_is_weaker_throughout_is_still_matched() -> None:
    wanted = synthetic_tags(16)

    assert retrieval_rate(wanted, 0.3 * wanted, groups(16)) > 0.95


def test_unrelated_clips_are_found_by_chance() -> None:
    rates = [retrieval_rate(synthetic_tags(40, seed), synthetic_tags(40, 100 + seed), groups(40)) for seed in range(20)]

    assert np.mean(rates) == pytest.approx(1 / 8, abs=0.03)


def test_clips_of_the_same_track_are_no_rivals() -> None:
    wanted = np.repeat(synthetic_tags(10), 2, axis=0)
    names = [name for name in groups(10) for _ in range(2)]

    assert retrieval_rate(wanted, wanted, names) == 1


def test_too_few_clips_to_choose_from_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 8"):
        retrieval_rate(synthetic_tags(7), synthetic_tags(7), groups(7))


@pytest.mark.parametrize(
    ("text", "bpm", "key"),
    [
        ("rock, fast, 128 bpm, E minor", 128.0, "E minor"),
        ("A calm piece, 92 bpm in F# major.", 92.0, "F# major"),
        ("Ambient in Bb minor at 70.5BPM", 70.5, "Bb minor"),
        ("A minor miracle of 3 bpmx", None, "A minor"),
        ("music", None, None),
    ],
)
def test_what_a_prompt_asks_for(text: str, bpm: float | None, key: str | None) -> None:
    assert (named_bpm(text), named_key(text)) == (bpm, key)


def test_tempo_within_four_percent() -> None:
    assert same_tempo(100, 104)
    assert same_tempo(100, 96)
    assert not same_tempo(100, 105)
    assert not same_tempo(100, 200)
    assert not same_tempo(100, None)


def test_keys_by_pitch_and_mode() -> None:
    assert same_key("C# minor", "Db minor")
    assert same_key("Cb major", "B major")
    assert not same_key("C major", "C minor")
    assert not same_key("C major", "G major")
    assert not same_key("C major", None)


def test_hit_rate_counts_only_prompts_that_ask_and_gives_chance() -> None:
    hits, chance = hit_rate([100.0, 120.0, None, 120.0], [100.0, 90.0, 120.0, 120.0], same_tempo)

    assert hits == pytest.approx(2 / 3)
    assert chance == pytest.approx(1 / 6)  # of the answers to other prompts that ask, only the last fits the second
    assert all(math.isnan(rate) for rate in hit_rate([None], [100.0], same_tempo))


def test_tonics_whatever_the_mode() -> None:
    assert same_tonic("C# minor", Key(1, "major"))
    assert not same_tonic("C major", Key(9, "minor"))
    assert not same_tonic("C major", None)
