from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile

from longplay.audio.clip import to_mono
from longplay.data.decode import PEAK, prepare, read_mono, sounding, write_wav
from longplay.errors import AudioError

RATE = 48000


def tone(seconds: float, hertz: float = 440.0, level: float = 0.3, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_mono_is_the_mean_unless_it_cancels() -> None:
    a, b = tone(0.5), tone(0.5, 660)
    np.testing.assert_allclose(to_mono(np.stack([a, b])), (a + b) / 2, atol=1e-7)
    np.testing.assert_allclose(to_mono(np.stack([a, np.zeros_like(a)])), a / 2)
    np.testing.assert_array_equal(to_mono(np.stack([0.9 * a, -a])), -a)
    np.testing.assert_array_equal(to_mono(a[None]), a)


def test_what_sounds_is_found() -> None:
    wav = np.concatenate([np.zeros(RATE, np.float32), tone(2), np.zeros(RATE // 2, np.float32)])
    start, end = sounding(wav, RATE)
    assert start == pytest.approx(RATE, abs=0.06 * RATE)
    assert end == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert sounding(np.zeros(RATE, np.float32), RATE) == (0, 0)


def test_prepare_resamples_mixes_and_normalises(tmp_path: Path) -> None:
    for name, hertz in (("guitar", 330.0), ("song", 880.0)):
        soundfile.write(tmp_path / f"{name}.flac", np.stack([tone(12, hertz, 0.05, 44100)] * 2, 1), 44100)
    wav = prepare([tmp_path / "guitar.flac", tmp_path / "song.flac"]).wav
    assert len(wav) == pytest.approx(12 * RATE, abs=0.1 * RATE)
    assert pyloudnorm.Meter(RATE).integrated_loudness(wav) == pytest.approx(-16, abs=0.1)
    spectrum = np.abs(np.fft.rfft(wav[:RATE]))
    assert set(np.argsort(spectrum)[-2:]) == {330, 880}


def test_loudness_never_clips(tmp_path: Path) -> None:
    wav = tone(12, level=0.01)
    wav[::4800] = 0.9  # clicks: the loudness wants a gain that the peak forbids
    soundfile.write(tmp_path / "a.wav", wav, RATE)
    assert np.abs(prepare([tmp_path / "a.wav"]).wav).max() == pytest.approx(PEAK, rel=1e-3)


def test_silence_leaves_nothing_and_short_sound_stays(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(20 * RATE, np.float32), RATE)
    soundfile.write(tmp_path / "short.wav", tone(0.2), RATE)
    assert len(prepare([tmp_path / "silent.wav"]).wav) == 0
    assert len(prepare([tmp_path / "short.wav"]).wav) == pytest.approx(0.2 * RATE)


def test_the_silence_before_is_counted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(3 * RATE, np.float32), tone(2)]), RATE)
    assert prepare([tmp_path / "late.wav"]).lead == pytest.approx(3)


@pytest.mark.parametrize(("samples", "message"), [([], "holds no samples"), ([0.1, np.nan], "NaN")])
def test_unusable_samples_are_named(tmp_path: Path, samples: list[float], message: str) -> None:
    soundfile.write(tmp_path / "x.wav", np.array(samples, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=f"x.wav.*{message}"):
        read_mono(tmp_path / "x.wav")


def test_broken_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.ogg").write_bytes(b"OggS but not really")
    with pytest.raises(AudioError, match="x.ogg: cannot be decoded"):
        read_mono(tmp_path / "x.ogg")
    (tmp_path / "x.mp3").write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(AudioError, match=r"x.mp3: cannot be decoded \(no audio that is known\)"):
        read_mono(tmp_path / "x.mp3")


@pytest.mark.parametrize("name", ["x.wav", "x.m4a"])
def test_a_file_that_is_not_there_is_not_called_broken(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match=f"{name}: does not exist; give the path of an audio file"):
        read_mono(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(AudioError, match=f"{name}: is a folder"):
        read_mono(tmp_path / name)


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_every_codec_of_the_list_decodes(tmp_path: Path, kind: str, subtype: str) -> None:
    path = tmp_path / "a.audio"
    soundfile.write(path, tone(0.5), RATE, format=kind, subtype=subtype)
    wav, rate = read_mono(path)
    assert rate == RATE
    assert np.abs(np.fft.rfft(wav[4000:16000])).argmax() == 110  # 440 Hz in quarter seconds


def test_write_is_16_bit_and_leaves_no_part(tmp_path: Path) -> None:
    write_wav(tmp_path / "audio" / "a.wav", tone(0.1))
    info = soundfile.info(tmp_path / "audio" / "a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
    assert len(list((tmp_path / "audio").iterdir())) == 1
