"""Files of which only the first part has arrived."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay import Audio
from longplay.audio.whole import cut_off
from longplay.errors import AudioError

RATE, SECONDS = 44_100, 8


def written(path: Path, kind: str, subtype: str, rate: int = RATE) -> Path:
    wav = np.random.default_rng(0).normal(0, 0.1, (SECONDS * rate, 2))
    soundfile.write(path, wav, rate, format=kind, subtype=subtype)
    return path


@pytest.mark.parametrize(
    ("name", "kind", "subtype", "rate"),
    [
        ("x.wav", "WAV", "PCM_24", RATE),
        ("x.aiff", "AIFF", "PCM_16", RATE),
        ("x.flac", "FLAC", "PCM_16", RATE),
        ("x.ogg", "OGG", "VORBIS", RATE),
        ("x.opus", "OGG", "OPUS", 48_000),
        ("x.mp3", "MP3", "MPEG_LAYER_III", RATE),
        ("x.mp3", "MP3", "MPEG_LAYER_III", 22_050),
    ],
)
def test_a_whole_file_is_read_and_one_cut_off_is_refused(
    tmp_path: Path, name: str, kind: str, subtype: str, rate: int
) -> None:
    path = written(tmp_path / name, kind, subtype, rate)
    assert Audio.load(path).seconds == pytest.approx(SECONDS, abs=0.1)
    content = path.read_bytes()
    for share in (0.2, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(AudioError, match=rf"{name}: is broken or not audio \((cut off|flac decoder lost sync)"):
            Audio.load(path)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF024])
def test_a_size_that_was_not_known_when_it_was_written_is_no_length(tmp_path: Path, size: int) -> None:
    path = written(tmp_path / "x.wav", "WAV", "PCM_16")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = size.to_bytes(4, "little")
    path.write_bytes(content)
    assert Audio.load(path).seconds == SECONDS


def test_a_guess_from_the_bitrate_is_no_length(tmp_path: Path) -> None:
    path = written(tmp_path / "x.mp3", "MP3", "MPEG_LAYER_III")
    assert cut_off(path, SECONDS / 2) == f"cut off: {SECONDS / 2} s are there of {SECONDS}.0 s"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"Xing", b"\0\0\0\0").replace(b"Info", b"\0\0\0\0"))
    assert cut_off(path, SECONDS / 2) is None


def test_what_follows_the_last_page_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path / "x.ogg", "OGG", "VORBIS")
    with path.open("ab") as file:
        file.write(b"TAG" + bytes(125))
    assert cut_off(path, SECONDS) is None
