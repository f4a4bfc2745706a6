import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longplay.data import duplicates as module
from longplay.data.duplicates import SAME, Index, duplicates
from longplay.data.fingerprint import Words, fingerprint

RATE = 24000


def music(seed: int, seconds: int = 12) -> np.ndarray:
    """Random chords, a new one each quarter second."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    chords = [
        np.sin(2 * np.pi * np.outer(rng.uniform(300, 2000, 6), time) + rng.uniform(0, 6, (6, 1))).sum(0)
        for _ in range(4 * seconds)
    ]
    return (0.05 * np.concatenate(chords)).astype(np.float32)


def all_with_all(prints: dict[str, Words]) -> dict[str, str]:
    """What `duplicates` is to find."""
    result: dict[str, str] = {}
    for name, words in prints.items():
        for earlier, others in prints.items():
            if earlier == name:
                break
            shorter = min(len(words), len(others))
            if earlier not in result and len(set(words.tolist()) & set(others.tolist())) > SAME * shorter:
                result[name] = earlier
                break
    return result


def words(*found: int) -> Words:
    return np.unique(np.array(found, np.uint32))


def test_copies_are_found_at_another_level_cut_and_noise() -> None:
    original = music(0)
    noise = np.random.default_rng(9).normal(0, 1e-3, len(original)).astype(np.float32)
    copy = (0.4 * (original + noise))[RATE * 3 // 2 + 777 :]
    prints = {
        "test": fingerprint(original, RATE),
        "other": fingerprint(music(1), RATE),
        "copy": fingerprint(copy, RATE),
    }
    assert duplicates(prints) == {"copy": "test"}
    shared = Index(list(prints.values()), common=64).shared_at_most(0)
    assert shared[1] < 0.01 * len(prints["test"]) < shared[2]


def test_shared_words_are_counted_per_pair() -> None:
    held = [words(1, 2, 3, 9), words(2, 3, 4), words(), words(3, 9, 2**32 - 1)]
    for at_a_time in (1, 3, 1000):
        index = Index(held, common=64, at_a_time=at_a_time)
        counted = [index.shared_at_most(number).tolist() for number in range(4)]
        assert counted == [[3, 2, 0, 2], [2, 2, 0, 1], [0, 0, 0, 0], [2, 1, 0, 2]]


def test_common_words_are_taken_as_shared() -> None:
    index = Index([words(1, 2, 3), words(1, 3, 4), words(1, 5), words(6)], common=2)
    assert index.common.tolist() == [1, 1, 1, 0]
    assert index.shared_at_most(0).tolist() == [2, 2, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 64]), st.sampled_from([50, 400, 3000]))
def test_the_result_is_that_of_comparing_all_with_all(seed: int, least: int, different: int) -> None:
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 2**32, different, dtype=np.uint32)
    prints = {str(number): np.unique(rng.choice(pool, rng.integers(0, 120))) for number in range(rng.integers(0, 14))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_LEAST", least)
        assert duplicates(prints) == all_with_all(prints)


def test_copies_of_one_recording_among_many_that_share_a_little() -> None:
    rng = np.random.default_rng(0)
    prints: dict[str, Words] = {}
    for number in range(200):
        own = rng.integers(0, 2**32, 1000, dtype=np.uint32)
        everybody, many = np.arange(9, dtype=np.uint32), rng.integers(100, 2000, 12).astype(np.uint32)
        of_another = prints[str(number // 3)][: rng.integers(5, 40)] if number % 4 == 1 else own[:0]
        prints[str(number)] = np.unique(np.concatenate([own, everybody, many, of_another]))
    found = duplicates(prints)
    assert found == all_with_all(prints)
    assert 5 < len(found) < 50


def test_too_short_for_a_fingerprint_repeats_nothing() -> None:
    empty = fingerprint(np.zeros(100, np.float32), RATE)
    assert len(empty) == 0
    assert duplicates({"a": empty, "b": empty}) == {}
    assert duplicates({}) == {}
