"""Files that libsndfile does not read: by FFmpeg, where it is installed."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from longplay.audio import Audio
from longplay.audio.decode import BY_FFMPEG, BY_SOUNDFILE, seconds_of
from longplay.data.build import build
from longplay.errors import AudioError
from recordings import chord


def encode(path: Path, audio: Audio, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=audio.sample_rate, layout="mono" if len(audio.wav) == 1 else "stereo")
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio.wav), format="fltp", layout=stream.layout.name)
        whole.sample_rate, whole.pts, whole.time_base = audio.sample_rate, 0, Fraction(1, audio.sample_rate)
        resampler = av.AudioResampler(
            stream.format, stream.layout, stream.rate, stream.codec_context.frame_size or 4096
        )
        for frame in [*resampler.resample(whole), *resampler.resample(None), None]:
            container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize(("name", "codec", "error"), [("x.m4a", "aac", 0.01), ("x.M4A", "alac", 1e-4)])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_formats_are_read(tmp_path: Path, name: str, codec: str, error: float, channels: int) -> None:
    audio = chord(2.0, 44_100, channels)
    read = Audio.load(encode(tmp_path / name, audio, codec))
    assert (read.sample_rate, len(read.wav)) == (44_100, channels)
    assert read.seconds == pytest.approx(2.0, abs=0.05)
    assert seconds_of(tmp_path / name) == pytest.approx(2.0, abs=0.05)
    inner = slice(65_000, 80_000)  # when the encoder has settled; in time to the sample
    assert np.abs(read.wav[:, inner] - audio.wav[:, inner]).mean() < error * np.abs(audio.wav).max()


def test_a_folder_of_them_becomes_a_corpus(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / "music" / f"{number}.m4a"
        path.parent.mkdir(exist_ok=True)
        encode(path, chord(4.0 + number, 44_100, 2), "aac")
    built = build(tmp_path / "music", tmp_path / "out", valid=0.3, test=0.0, tags=False, min_seconds=1.0)
    assert [track.source for track in built.corpus.tracks] or built.corpus.dropped
    assert len(built.corpus.tracks) + len(built.corpus.dropped) == 3
    assert not any("decoded" in reason for reason in built.corpus.dropped.values())


def test_without_ffmpeg_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "x.m4a", chord(1.0, 44_100, 1), "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"x\.m4a: \.m4a files need FFmpeg: pip install 'longplay\[m4a\]' brings it"):
        Audio.load(path)


def test_what_cannot_be_decoded_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.m4a"
    path.write_bytes(b"no audio at all")
    with pytest.raises(AudioError, match=r"x\.m4a: is broken or not audio \(Invalid data"):
        Audio.load(path)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match="there is no sound in it"):
        Audio.load(path)


def test_two_hours_are_the_limit_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "x.m4a", chord(2.0, 44_100, 1), "aac")
    monkeypatch.setattr("longplay.audio.file.MAX_SECONDS", 1.0)
    with pytest.raises(AudioError, match="is too large"):
        Audio.load(path)


def test_each_format_has_one_reader() -> None:
    assert not set(BY_SOUNDFILE) & set(BY_FFMPEG)
