"""Files: what is written comes back; whatever cannot be read or written is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay.audio import Audio
from longplay.audio.file import check_output
from longplay.errors import AudioError


def music(seconds: float = 1.5, rate: int = 44_100, channels: int = 2) -> np.ndarray:
    times = np.arange(int(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 220 * (c + 1) * times) for c in range(channels)]).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_each_format_keeps_the_sound_and_the_recipe(tmp_path: Path, suffix: str) -> None:
    recipe = {"prompt": {"text": "piano – ruhig, 日本"}, "options": {"seed": 7}}
    path = tmp_path / f"x{suffix}"
    Audio(music(), 44_100, recipe).save(path)
    back = Audio.load(path)
    assert (back.sample_rate, back.wav.shape[0]) == (44_100, 2)
    assert Audio.load_recipe(path) == recipe
    if suffix in (".wav", ".flac"):
        assert soundfile.info(path).subtype == "PCM_24"
        np.testing.assert_allclose(back.wav, music(), atol=2**-23)
    else:  # the encoder delay of mp3 moves the samples: compare levels
        assert back.wav.std() == pytest.approx(music().std(), rel=0.05)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_integer_samples_survive_reading_and_writing_exactly(tmp_path: Path, suffix: str, subtype: str) -> None:
    shift = 16 if subtype == "PCM_16" else 8
    values = np.random.default_rng(0).integers(-(2 ** (31 - shift)), 2 ** (31 - shift), 5000, dtype=np.int32) << shift
    values[:2] = [-(2**31), 2**31 - (1 << shift)]
    soundfile.write(tmp_path / "a.wav", values, 32_000, subtype=subtype)
    Audio.load(tmp_path / "a.wav").save(tmp_path / f"b{suffix}")
    back, rate = soundfile.read(tmp_path / f"b{suffix}", dtype="int32")
    assert rate == 32_000
    np.testing.assert_array_equal(back, values)


def test_long_vorbis_is_written_in_blocks(tmp_path: Path) -> None:
    Audio(music(60, 48_000), 48_000).save(tmp_path / "x.ogg")
    assert Audio.load(tmp_path / "x.ogg").seconds == pytest.approx(60)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 2), (11_025, 6)])
def test_any_rate_and_number_of_channels_is_read(tmp_path: Path, rate: int, channels: int) -> None:
    soundfile.write(tmp_path / "x.aiff", music(1, rate, channels).T, rate, subtype="PCM_16")
    audio = Audio.load(tmp_path / "x.aiff")
    assert audio.wav.shape == (channels, rate)
    assert audio.seconds == 1


def broken(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "x.wav"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not audio at all")
    elif kind == "zero bytes":
        path.touch()
    elif kind == "no samples":
        soundfile.write(path, np.zeros((0, 1)), 24_000)
    elif kind == "nan":
        soundfile.write(path, np.full((100, 1), np.nan, np.float32), 24_000, subtype="FLOAT")
    elif kind == "header only":
        soundfile.write(path, music().T, 44_100, format="FLAC")
        path.write_bytes(path.read_bytes()[:300])
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist; give the path of an audio file"),
        ("folder", "is a folder; give the path of an audio file"),
        ("text", "is broken or not audio"),
        ("zero bytes", "is broken or not audio"),
        ("no samples", "holds no samples; give a file with sound"),
        ("nan", "holds NaN or infinite samples; export it again"),
        ("header only", "is broken or"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, kind: str, message: str) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(AudioError) as caught:
        Audio.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text


def test_an_enormous_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    with soundfile.SoundFile(path, "w", 1, 1, "PCM_16", format="FLAC") as file:
        for _ in range(8):
            file.write(np.zeros(1000, np.int16))
    with pytest.raises(AudioError, match=r"is too large \(133 minutes, 1 channels, 1 Hz\); cut it to at most 120"):
        Audio.load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.m4a", r"unknown extension '.m4a'; use one of .wav, .flac, .ogg, .mp3"),
        ("x", r"unknown extension ''"),
        ("absent/x.wav", r"the folder .*absent does not exist; create it first"),
        ("folder.wav", r"is a folder; give the name of a file in it"),
    ],
)
def test_an_impossible_output_is_refused_early(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=message):
        check_output(tmp_path / name)


def test_a_place_without_permission_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(AudioError, match=r"x.wav: cannot be written \(Permission denied\); choose another place"):
        check_output(tmp_path / "x.wav")


def test_a_rate_that_the_format_lacks_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be written as MP3, 96000 Hz, 2 channels"):
        Audio(music(1, 96_000), 96_000).save(tmp_path / "x.mp3")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    Audio(music(), 44_100).save(path)
    before = path.read_bytes()
    with pytest.raises(AudioError):
        Audio(music(1, 96_000), 96_000).save(path)
    assert path.read_bytes() == before


def test_a_file_of_others_carries_no_recipe(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", music().T, 44_100)
    (tmp_path / "x.txt").write_text("words")
    for name in ("x.wav", "x.txt"):
        with pytest.raises(AudioError, match="carries no Longplay recipe"):
            Audio.load_recipe(tmp_path / name)
    with pytest.raises(AudioError, match="cannot be read"):
        Audio.load_recipe(tmp_path / "absent.wav")


def test_saving_scales_down_instead_of_clipping(tmp_path: Path) -> None:
    Audio(3 * music(), 44_100).save(tmp_path / "x.wav")
    back = Audio.load(tmp_path / "x.wav").wav
    np.testing.assert_allclose(back, music() / np.abs(music()).max(), atol=2**-22)
