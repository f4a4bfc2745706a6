import numpy as np

from longplay.data.fingerprint import duplicates, fingerprint, overlap

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
    assert overlap(prints["test"], prints["other"]) < 0.01


def test_too_short_for_a_fingerprint_repeats_nothing() -> None:
    empty = fingerprint(np.zeros(100, np.float32), RATE)
    assert len(empty) == 0
    assert duplicates({"a": empty, "b": empty}) == {}
