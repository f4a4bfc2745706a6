"""A whole build of a folder, with everything that can be wrong with a file."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from longplay.data.build import build
from longplay.data.manifest import read_manifest
from longplay.data.report import summary, write_report
from longplay.data.tags import vocabulary
from longplay.errors import UserError

RATE = 24000


def song(seed: int, seconds: float = 12.0) -> np.ndarray:
    """Random chords, a new one each quarter second."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    chords = [np.sin(2 * np.pi * np.outer(rng.uniform(300, 2000, 6), time)).sum(0) for _ in range(int(4 * seconds))]
    return (0.05 * np.concatenate(chords)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three songs (one late, with sidecars), a copy, a short one, silence, a broken file, a clipped one."""
    source = tmp_path / "music"
    source.mkdir()
    late = np.concatenate([np.zeros(2 * RATE, np.float32), song(1)])
    files = {"one.wav": song(0), "late.flac": late, "again.ogg": 0.5 * song(0), "short.wav": song(2, 3)}
    files |= {"silent.wav": np.zeros(12 * RATE, np.float32), "loud.wav": np.clip(20 * song(3), -1, 1)}
    for name, wav in files.items():
        soundfile.write(source / name, np.stack([wav, wav], 1), RATE)
    (source / "broken.mp3").write_bytes(b"not a song at all")
    (source / "late.txt").write_text("late dub\n")
    (source / "late.json").write_text(json.dumps({"sections": "intro:0-6,verse:6-14", "split": "valid", "bpm": 90}))
    return source


def test_nothing_is_dropped_without_a_reason(folder: Path, tmp_path: Path) -> None:
    built = build(folder, tmp_path / "out", tags=False, workers=1)
    tracks = {track.title: track for track in built.corpus.tracks}
    assert set(tracks) == {"one", "late", "loud"}
    reasons = {name.rsplit("-", 1)[0]: reason.split(":")[0] for name, reason in built.corpus.dropped.items()}
    assert reasons == {"again": "duplicate", "short": "too short", "silent": "silent", "broken": "unreadable"}
    lines = [json.loads(line) for line in (tmp_path / "out" / "dropped.jsonl").read_text().splitlines()]
    assert {line["id"]: line["reason"] for line in lines} == built.corpus.dropped
    assert {line["source"] for line in lines} == {"again.ogg", "short.wav", "silent.wav", "broken.mp3"}
    assert "duplicate: repeats one.wav" in built.corpus.dropped.values()

    late = tracks["late"]
    assert (late.split, late.bpm) == ("valid", 90)
    assert late.captions[0] == "late dub"
    assert late.captions[1].startswith("late dub, 90 bpm")
    assert [section.label for section in late.sections] == ["intro", "verse"]
    times = [time for section in late.sections for time in (section.start, section.end)]
    assert times == pytest.approx([0, 4, 4, 12], abs=0.06)  # two seconds of silence were cut off
    info = soundfile.info(tmp_path / "out" / late.path)
    assert (info.samplerate, info.channels) == (48000, 1)
    assert late.seconds == pytest.approx(info.duration)
    assert not late.codec_ok  # 24 kHz
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == built.corpus.tracks


def test_the_report_says_how_good_the_files_are(folder: Path, tmp_path: Path) -> None:
    built = build(folder, tmp_path / "out", tags=False, workers=1)
    write_report(tmp_path / "out", built)
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert figures == json.loads(json.dumps(summary(built)))
    assert figures["tracks"] == 3
    assert figures["dropped for"] == {"duplicate": 1, "too short": 1, "silent": 1, "unreadable": 1}
    (loud,) = [name for name, flags in figures["flagged"].items() if "clipping" in flags]
    assert loud.startswith("loud-")
    assert figures["flags"]["mono as stereo"] >= 5
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| train | 2 |" in text or "| train | 1 |" in text
    assert f"| loud.wav | {loud} | clipping (0." in text
    assert "| again.ogg | again-" in text
    assert (tmp_path / "out" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_flags_drop_when_asked_and_unknown_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    built = build(folder, tmp_path / "out", drop=["clipping"], tags=False, workers=1)
    assert {reason for name, reason in built.corpus.dropped.items() if name.startswith("loud-")} == {
        "flagged: clipping"
    }
    with pytest.raises(UserError, match="flag 'hiss': unknown"):
        build(folder, tmp_path / "out", drop=["hiss"])
    with pytest.raises(UserError, match="must stay below 1"):
        build(folder, tmp_path / "out", valid=0.6, test=0.5)


def low_passed(wav: np.ndarray, hertz: float, rate: int) -> np.ndarray:
    """With nothing above `hertz`, and a little of everything below."""
    spectrum = np.fft.rfft(wav + np.random.default_rng(0).normal(0, 0.002, len(wav)))
    spectrum[np.fft.rfftfreq(len(wav), 1 / rate) > hertz] = 0
    return np.fft.irfft(spectrum, len(wav))


@pytest.mark.parametrize(
    ("lossless", "lossy", "kept"),
    [(13_900, 13_900, "a.flac"), (14_900, 15_100, "a.flac"), (14_900, 20_000, "b.ogg")],
    ids=["as much treble", "a little less", "much less"],
)
def test_of_two_copies_the_lossless_one_stays_unless_it_lacks_treble(
    tmp_path: Path, lossless: int, lossy: int, kept: str
) -> None:
    wav, rate = np.repeat(song(0), 2), 2 * RATE
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.flac", low_passed(wav, lossless, rate), rate)
    soundfile.write(tmp_path / "music" / "b.ogg", 0.7 * low_passed(wav, lossy, rate), rate)
    built = build(tmp_path / "music", tmp_path / "out", valid=0, test=0, tags=False, workers=1)
    assert [track.source for track in built.corpus.tracks] == [kept]
    bands = {name.partition("-")[0]: found.bandwidth for name, found in built.quality.items()}
    assert bands["b"] > bands["a"], "which says that it is not the treble alone"


def test_a_second_build_makes_only_what_is_new_or_changed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = build(folder, out, tags=False, workers=1)
    made = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert build(folder, out, tags=False, workers=1) == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*")} == made
    soundfile.write(folder / "short.wav", song(2), RATE)
    second = build(folder, out, tags=False, workers=1)
    assert "short" in {track.title for track in second.corpus.tracks}
    changed = {path.name.split("-")[0] for path in out.glob("*/*") if path.stat().st_mtime_ns != made.get(path)}
    assert changed == {"short"}


def test_by_reference_the_audio_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    built = build(folder, tmp_path / "out", reference=True, tags=False, workers=1)
    late = next(track for track in built.corpus.tracks if track.title == "late")
    assert Path(late.path) == folder / "late.flac"
    assert late.seconds == pytest.approx(14)
    assert late.sections[0].end == 6
    assert not (tmp_path / "out" / "audio").exists()


def test_nothing_usable_is_an_error_with_the_reasons(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.name not in ("short.wav", "broken.mp3"):
            path.unlink()
    with pytest.raises(UserError, match=r"none of 2 recordings can be used \(too short, unreadable\)"):
        build(folder, tmp_path / "out", tags=False, workers=1)


def test_a_file_that_is_named_twice_is_a_copy_of_itself(folder: Path, tmp_path: Path) -> None:
    lines = [{"path": "music/one.wav", "id": name} for name in ("x", "y")]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = build(tmp_path / "list.jsonl", tmp_path / "out", tags=False, workers=1).corpus
    assert [track.id for track in corpus.tracks] == ["x"]
    assert corpus.dropped["y"].startswith("duplicate")


def test_only_what_can_be_used_is_split(tmp_path: Path) -> None:
    for album in ("original", "copy"):
        (tmp_path / "music" / album).mkdir(parents=True)
        for seed in range(4):
            soundfile.write(tmp_path / "music" / album / f"{seed}.wav", song(seed), RATE)
    names = [f"music/{album}/{seed}.wav" for album in ("original", "copy", "missing") for seed in range(4)]
    (tmp_path / "list.csv").write_text("path\n" + "".join(f"{name}\n" for name in names))
    tracks = build(tmp_path / "list.csv", tmp_path / "out", tags=False, workers=1).corpus.tracks
    assert Counter(track.split for track in tracks) == {"train": 2, "valid": 1, "test": 1}


COMMAND = "import sys; from longplay.cli import main; main(sys.argv[1:])"


def test_a_disk_that_is_full_ends_the_build_and_drops_nothing(folder: Path, tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); "
    arguments = ["data", "build", str(folder), str(tmp_path / "out"), "--workers", "1", "--no-tags", "--no-plots"]
    done = subprocess.run(
        [sys.executable, "-c", limit + COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"error: {tmp_path}/out/audio/" in done.stderr.splitlines()[-1]
    assert "File too large; mend that, or choose another place, and give the same command again" in done.stderr
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    assert not (tmp_path / "out" / "dropped.jsonl").exists()
    assert not list(tmp_path.glob("out/audio/*"))
    assert len(build(folder, tmp_path / "out", tags=False, workers=1).corpus.tracks) == 3


def test_a_killed_build_goes_on_to_the_same_result(folder: Path, tmp_path: Path) -> None:
    whole = build(folder, tmp_path / "whole", tags=False, workers=1)
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "data",
        "build",
        str(folder),
        str(tmp_path / "out"),
        "--workers",
        "1",
        "--no-tags",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(tmp_path.glob("out/facts/*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dropped: 4" in done.stdout
    assert read_manifest(tmp_path / "out" / "manifest.jsonl") == whole.corpus.tracks


def test_what_musicnn_heard_reaches_the_captions(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    track = next(t for t in build(folder, out, tags=False, workers=1).corpus.tracks if t.title == "loud")
    usual = {name: 1 / (1 + math.exp(-entry.usual)) for name, entry in vocabulary().items()}
    stands_out = next(name for name, entry in vocabulary().items() if entry.kind == "instruments")
    (out / "facts" / f"{track.id}.tags.json").write_text(json.dumps(usual | {stands_out: 0.99}))
    again = next(t for t in build(folder, out, tags=False, workers=1).corpus.tracks if t.title == "loud")
    assert again.instruments == (vocabulary()[stands_out].word,)
    assert any(again.instruments[0] in caption for caption in again.captions)
    (out / "facts" / f"{track.id}.passages.json").write_text(
        json.dumps([(0, 10, usual), (10, 20, usual | {stands_out: 0.99})])
    )
    quiet, heard = next(
        t for t in build(folder, out, tags=False, workers=1).corpus.tracks if t.title == "loud"
    ).passages
    assert again.instruments[0] not in " ".join(quiet.captions)
    assert again.instruments[0] in heard.captions[0]
    (out / "facts" / f"{track.id}.textures.json").write_text("[[900, 3], [2900, 7]]")
    dark, bright = next(
        t for t in build(folder, out, tags=False, workers=1).corpus.tracks if t.title == "loud"
    ).passages
    assert "dark" in dark.captions[0]
    assert "bright, busy" in bright.captions[0]
    (out / "facts" / f"{track.id}.textures.json").write_text("[[900, 3]]")
    with pytest.raises(UserError, match=r"textures\.json: is not of the 2 passages; delete it"):
        build(folder, out, tags=False, workers=1)
    (out / "facts" / f"{track.id}.passages.json").write_text("[[0, 10")
    with pytest.raises(UserError, match=r"passages\.json: is damaged; delete it"):
        build(folder, out, tags=False, workers=1)
