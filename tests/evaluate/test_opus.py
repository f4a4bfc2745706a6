import numpy as np
import pytest
import soundfile

from longplay.errors import LongplayError
from longplay.evaluate.distance import Ruler
from longplay.evaluate.opus import opus


@pytest.fixture
def music() -> np.ndarray:
    t = np.arange(2 * 24000) / 24000
    chord = sum(np.sin(2 * np.pi * pitch * t) for pitch in (220, 277, 330, 660))
    hiss = np.random.default_rng(0).standard_normal(len(t))
    return ((0.08 * chord + 0.01 * hiss) * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def test_more_bits_are_nearer_and_in_step(music: np.ndarray) -> None:
    ruler = Ruler(24000)
    decoded = [opus(music, 24000, kbps) for kbps in (6, 12, 24, 64)]
    mel = [ruler.distance(music, wav).mel for wav in decoded]

    assert all(len(wav) == len(music) for wav in decoded)
    assert mel == sorted(mel, reverse=True)
    assert ruler.distance(music, decoded[-1]).si_sdr > 15  # a delay of a few samples would bring it below 0


@pytest.mark.parametrize(("rate", "kbps"), [(44100, 12), (24000, 3), (24000, 500)])
def test_rates_that_opus_lacks_are_refused(music: np.ndarray, rate: int, kbps: float) -> None:
    with pytest.raises(ValueError, match="Opus at"):
        opus(music, rate, kbps)


def test_a_library_without_opus_is_named(music: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "available_subtypes", lambda _: {"VORBIS": "Vorbis"})

    with pytest.raises(LongplayError, match="built without Opus"):
        opus(music, 24000, 12)
