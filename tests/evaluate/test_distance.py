import math

import numpy as np
import pytest

from longplay.evaluate.controls import add_noise
from longplay.evaluate.distance import Ruler, si_sdr

RATE = 24000


@pytest.fixture
def tone() -> np.ndarray:
    t = np.arange(RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 3000 * t)).astype(np.float32)


def test_identity_is_at_no_distance(tone: np.ndarray) -> None:
    distance = Ruler(RATE).distance(tone, tone)

    assert (distance.mel, distance.convergence, distance.log_magnitude) == (0, 0, 0)
    assert distance.si_sdr == math.inf


def test_every_distance_grows_with_noise(tone: np.ndarray) -> None:
    ruler = Ruler(RATE)
    distances = [ruler.distance(tone, add_noise(tone, snr, np.random.default_rng(0))) for snr in (40, 20, 0)]

    for name in ("mel", "convergence", "log_magnitude"):
        values = [getattr(distance, name) for distance in distances]
        assert values == sorted(values)
        assert values[0] > 0
    assert [d.si_sdr for d in distances] == pytest.approx([40, 20, 0], abs=0.2)


def test_a_gain_of_ten_is_one_decade_of_mel_where_there_is_sound() -> None:
    noise = (0.05 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    distance = Ruler(RATE).distance(noise, 10 * noise)

    assert distance.mel == pytest.approx(1, abs=0.01)
    assert distance.log_magnitude == pytest.approx(1, abs=0.01)
    assert distance.convergence == pytest.approx(9, abs=0.01)
    assert distance.si_sdr > 100


def test_silence_is_at_full_convergence_distance(tone: np.ndarray) -> None:
    distance = Ruler(RATE).distance(tone, np.zeros_like(tone))

    assert distance.convergence == pytest.approx(1)
    assert distance.si_sdr == -math.inf


def test_si_sdr_ignores_gain(tone: np.ndarray) -> None:
    noisy = add_noise(tone, 10, np.random.default_rng(0))

    assert si_sdr(tone, noisy) == pytest.approx(si_sdr(tone, 0.5 * noisy), abs=1e-3)


def test_clips_of_different_length_are_refused(tone: np.ndarray) -> None:
    with pytest.raises(ValueError, match="same length"):
        Ruler(RATE).distance(tone, tone[:-1])
