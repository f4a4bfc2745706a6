"""A whole build from a package made here, with the real dpkg-deb."""

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay.data import debian
from longplay.data.corpus import build_corpus
from longplay.data.manifest import read_manifest
from longplay.data.sources import SourceFile
from longplay.data.tags import vocabulary
from longplay.errors import DownloadError, UserError

needs_dpkg = pytest.mark.skipif(
    shutil.which("dpkg-deb") is None or shutil.which("apt-get") is None, reason="needs dpkg-deb and apt-get (Debian)"
)
RATE = 44100
COPYRIGHT = "Files: music/*\nCopyright: 2020 Ada\nLicense: CC-BY-3.0\n"


def song(seed: int, seconds: float = 12.0) -> bytes:
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    chords = [np.sin(2 * np.pi * np.outer(rng.uniform(300, 2000, 6), time)).sum(0) for _ in range(int(4 * seconds))]
    file = io.BytesIO()
    soundfile.write(file, (0.05 * np.concatenate(chords)).astype(np.float32), RATE, format="WAV")
    return file.getvalue()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus directory whose `debs` holds a package with two songs, a copy, silence, and a zip with a song."""
    root = tmp_path / "package"
    for folder in ("DEBIAN", "usr/share/tiny/music", "usr/share/doc/tiny-music"):
        (root / folder).mkdir(parents=True)
    control = "Package: tiny-music\nVersion: 1\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: x\n"
    (root / "DEBIAN/control").write_text(control)
    (root / "usr/share/doc/tiny-music/copyright").write_text(COPYRIGHT)
    music = root / "usr/share/tiny/music"
    for name, data in {"one": song(1), "two": song(2), "again": song(1), "silent": song(3, 1.0)}.items():
        (music / f"{name}.wav").write_bytes(data)
    with zipfile.ZipFile(root / "usr/share/tiny/pack.zip", "w") as archive:
        archive.writestr("music/inner.wav", song(4))
        archive.writestr("music/unlisted.wav", b"")
    debs = tmp_path / "corpus" / "debs"
    debs.mkdir(parents=True)
    command = ["dpkg-deb", "-Znone", "-b", str(root), str(debs / "tiny-music_1_all.deb")]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "corpus"


def listed() -> list[SourceFile]:
    paths = [f"usr/share/tiny/music/{name}.wav" for name in ("again", "one", "silent", "two")]
    paths.append("usr/share/tiny/pack.zip.d/music/inner.wav")
    values = {"package": "tiny-music", "seconds": 12.0, "sample_rate": RATE, "kbps": 700, "licence": "PERM"}
    return [SourceFile.parse(values | {"path": path}) for path in paths]


@needs_dpkg
def test_build_drops_copies_and_silence_and_a_second_run_changes_nothing(corpus: Path) -> None:
    built = build_corpus(corpus, workers=1, listed=listed(), tags=False)
    assert sorted(track.title for track in built.tracks) == ["again", "inner", "two"]
    assert sorted(built.dropped.values()) == [
        f"duplicate: repeats {built.tracks[0].source}",
        "too short: 1.0 s of sound, at least 10 s are asked for",
    ]
    for track in built.tracks:
        info = soundfile.info(corpus / track.path)
        assert (info.samplerate, info.channels) == (48000, 1)
        assert track.seconds == pytest.approx(info.duration)
        assert (track.author, track.licence, track.codec_ok) == ("Ada", "CC-BY-3.0", True)
    assert read_manifest(corpus / "manifest.jsonl") == built.tracks
    assert len((corpus / "dropped.jsonl").read_text().splitlines()) == 2

    made = {path: path.stat().st_mtime_ns for path in corpus.rglob("*") if path.is_file() and path.parent != corpus}
    shutil.rmtree(corpus / "debs")  # a second run needs no package
    again = build_corpus(corpus, workers=1, listed=listed(), tags=False)
    assert again == built
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if path.exists())


@needs_dpkg
def test_what_an_older_version_measured_is_measured_again(corpus: Path) -> None:
    built = build_corpus(corpus, workers=1, listed=listed(), tags=False)
    path = corpus / "facts" / f"{built.tracks[0].id}.json"
    older = json.loads(path.read_text())
    del older["bars"], older["loudness"]
    path.write_text(json.dumps(older))
    audio = corpus / built.tracks[0].path
    before = audio.stat().st_mtime_ns
    again = build_corpus(corpus, workers=1, listed=listed(), tags=False)
    assert [track.id for track in again.tracks] == [track.id for track in built.tracks]
    assert again.tracks[0].bars == pytest.approx(built.tracks[0].bars, abs=0.02)
    assert {"bars", "loudness"} <= json.loads(path.read_text()).keys()
    assert audio.stat().st_mtime_ns == before


@needs_dpkg
def test_an_interrupted_build_goes_on(corpus: Path) -> None:
    built = build_corpus(corpus, workers=1, listed=listed(), tags=False)
    lost = built.tracks[0]
    (corpus / "facts" / f"{lost.id}.json").unlink()
    (corpus / "audio" / f"{lost.id}.wav").unlink()
    assert build_corpus(corpus, workers=1, listed=listed(), tags=False) == built
    facts = json.loads((corpus / "facts" / f"{lost.id}.json").read_text())
    assert facts["seconds"] == lost.seconds


@needs_dpkg
def test_what_was_heard_comes_into_the_captions(corpus: Path) -> None:
    track = build_corpus(corpus, workers=1, listed=listed(), tags=False).tracks[0]
    assert not any("harpsichord" in caption for caption in track.captions)
    heard = dict.fromkeys(vocabulary(), 1e-4) | {"MTT/harpsichord": 0.9}
    (corpus / "facts" / f"{track.id}.tags.json").write_text(json.dumps(heard))
    track = build_corpus(corpus, workers=1, listed=listed(), tags=False).tracks[0]
    assert track.instruments == ("harpsichord",)
    assert "with harpsichord" in " ".join(track.captions)
    assert track.passages == ()
    parts = [(0.0, 10.0, heard), (10.0, track.seconds, dict.fromkeys(heard, 1e-4) | {"MTT/flute": 0.9})]
    (corpus / "facts" / f"{track.id}.passages.json").write_text(json.dumps(parts))
    again = build_corpus(corpus, workers=1, listed=listed(), tags=False).tracks[0]
    assert again.captions == track.captions
    assert [(each.start, each.end) for each in again.passages] == [(0, 10), (10, track.seconds)]
    for part, instrument, other in zip(again.passages, ("harpsichord", "flute"), ("flute", "harpsichord"), strict=True):
        assert instrument in part.captions[0]
        assert other not in " ".join(part.captions)


@needs_dpkg
def test_an_unknown_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'tiny-musik' is not in the list"):
        build_corpus(tmp_path, packages=["tiny-musik"], listed=listed(), tags=False)


@needs_dpkg
def test_a_package_without_a_listed_file_is_refused(corpus: Path) -> None:
    (deb,) = (corpus / "debs").iterdir()
    with pytest.raises(DownloadError, match="lacks usr/share/other"):
        debian.extract(deb, ["usr/share/other.ogg"], corpus / "extracted")


@needs_dpkg
def test_a_damaged_package_is_refused(corpus: Path) -> None:
    (deb,) = (corpus / "debs").iterdir()
    deb.write_bytes(deb.read_bytes()[:2000])
    with pytest.raises(DownloadError, match="tiny-music_1_all"):
        debian.extract(deb, ["usr/share/tiny/music/one.wav"], corpus / "extracted")


def test_missing_tools_are_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"no-such-a, no-such-b.*apt-get install"):
        debian.require_tools(["no-such-b", "no-such-a"])
