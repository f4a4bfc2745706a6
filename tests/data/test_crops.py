from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from longplay.data.crops import Crops, excerpt
from longplay.errors import TrainingError


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    path = tmp_path / "ramp.wav"
    sf.write(path, np.stack((np.arange(1000), np.arange(1000) + 2), axis=1) / 2000, 8000, subtype="FLOAT")
    return path


@pytest.mark.parametrize("start", [-30, 0, 400, 980, 1200, -200])
def test_an_excerpt_is_the_samples_there_and_silence_around_the_file(ramp: Path, start: int) -> None:
    whole = np.pad((np.arange(1000) + 1) / 2000, (300, 1000)).astype(np.float32)
    np.testing.assert_allclose(excerpt(ramp, start, 100, 8000), whole[300 + start : 400 + start], atol=1e-6)


@pytest.mark.parametrize("start", [-100, 0, 12_345, 47_900])
def test_at_another_rate_an_excerpt_stays_in_time(tmp_path: Path, start: int) -> None:
    path = tmp_path / "tone.wav"
    sf.write(path, np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100), 44_100, subtype="FLOAT")
    found = excerpt(path, start, 4000, 48_000)
    assert found.shape == (4000,)
    time = (start + np.arange(4000)) / 48_000
    inside = (time > 0.02) & (time < 0.98) & (np.arange(4000) > 400) & (np.arange(4000) < 3600)
    expected = np.sin(2 * np.pi * 440 * time)
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.06)  # a sample of 44.1 kHz off would be 0.06
    assert not found[time < -0.01].any()


def test_an_excerpt_of_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"gone.wav: cannot be read .* build the corpus again"):
        excerpt(tmp_path / "gone.wav", 0, 10, 8000)
    with pytest.raises(TrainingError, match=r"gone.wav: cannot be read .* build the corpus again"):
        Crops([(tmp_path / "gone.wav", 2.0)], 8000, 0.1).batch(0, 0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_named_by_their_file(tmp_path: Path, value: float) -> None:
    files = []
    for name in ("good", "bad"):
        wav = np.zeros(8000, np.float32)
        if name == "bad":
            wav[4000:] = value
        sf.write(tmp_path / f"{name}.wav", wav, 8000, subtype="FLOAT")
        files.append((tmp_path / f"{name}.wav", 1.0))
    assert Crops(files[:1], 8000, 0.1).batch(0, 0, 16).isfinite().all()
    message = r"bad.wav: holds samples that are not finite; mend it or take it out of the manifest"
    with pytest.raises(TrainingError, match=message):
        Crops(files, 8000, 0.1).batch(0, 0, 16)
    with pytest.raises(TrainingError, match=message):
        excerpt(tmp_path / "bad.wav", 30_000, 100, 48_000)
    assert not excerpt(tmp_path / "bad.wav", 0, 100, 8000).any(), "where it is sound it is heard"
