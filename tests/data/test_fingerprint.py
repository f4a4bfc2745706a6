import numpy as np

from longplay.data.fingerprint import duplicates, fingerprint, shared_words

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
    assert shared_words(list(prints.values()))[0, 1] < 0.01 * len(prints["test"])


def test_shared_words_are_counted_per_pair() -> None:
    words = [np.array(each, np.uint32) for each in ([1, 2, 3, 9], [2, 3, 4], [], [3, 9, 11])]
    expected = [[0, 2, 0, 2], [2, 0, 0, 1], [0, 0, 0, 0], [2, 1, 0, 0]]
    np.testing.assert_array_equal(shared_words(words), expected)


def test_too_short_for_a_fingerprint_repeats_nothing() -> None:
    empty = fingerprint(np.zeros(100, np.float32), RATE)
    assert len(empty) == 0
    assert duplicates({"a": empty, "b": empty}) == {}
