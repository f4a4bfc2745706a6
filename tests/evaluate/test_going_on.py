"""What is kept of a recording by its continuation, on clicks whose tempo is known."""

import numpy as np
import pytest

from longplay.evaluate.going_on import kept_rows

RATE = 24_000


def clicks(bpm: float | None, pitch: float = 220.0, seconds: float = 8.0) -> np.ndarray:
    """A minor chord, steady, and clicks on top of it."""
    time = np.arange(round(seconds * RATE)) / RATE
    wav = sum(0.04 * np.sin(2 * np.pi * pitch * ratio * time) for ratio in (1, 1.189, 1.498))
    burst = np.random.default_rng(0).normal(0, 0.3, 500)
    for start in np.arange(0, seconds - 0.1, 60 / bpm) if bpm else ():
        wav[round(start * RATE) : round(start * RATE) + 500] += burst
    return np.asarray(wav, np.float32)


def test_tempo_and_key_are_kept_or_not() -> None:
    heard = [clicks(90), clicks(120), clicks(150), clicks(None)]
    made = [clicks(90), clicks(121), clicks(110, 262.0), clicks(100)]
    rows = {row.system: row.values for row in kept_rows(heard, heard, made, RATE)}
    assert rows["continued"]["pulse"] == 1
    assert rows["continued"]["tempo"] == pytest.approx(2 / 3)
    assert rows["continued"]["key"] == pytest.approx(3 / 4)
    assert rows["chance"]["tempo"] == 0
    assert rows["real"] == {"pulse": 0.75, "tempo": 1.0, "key": 1.0}
