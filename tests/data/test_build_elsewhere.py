"""A build in a bucket, by processes and on Ray: what it makes is what a build on disk makes, whoever dies."""

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
import torch
from mutagen.flac import FLAC

from dying import half_prepare
from longplay.address import Address, Location, location
from longplay.data import hearing
from longplay.data.build import Built, build
from longplay.data.cluster import run_on_ray
from longplay.data.intake import find_recordings
from longplay.data.manifest import read_manifest
from longplay.data.musicnn import Listener, Musicnn
from longplay.data.report import write_report
from longplay.data.workers import Outcome, RunJobs, run_jobs
from longplay.errors import UserError

RATE = 24000


def run_here(function: Any, jobs: Iterable[Any], workers: int) -> Iterator[Outcome[Any, Any]]:
    """A `RunJobs` for a store that only this process sees."""
    for job in jobs:
        try:
            yield Outcome(job, function(job), None)
        except UserError as error:
            yield Outcome(job, None, error)


def song(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 4) / RATE
    chords = [np.sin(2 * np.pi * np.outer(rng.uniform(300, 2000, 6), time)).sum(0) for _ in range(44)]
    return (0.05 * np.concatenate(chords)).astype(np.float32)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs, one of them in a folder with sidecar and tags, a copy, and what is no song."""
    source = tmp_path_factory.mktemp("songs") / "music"
    (source / "album").mkdir(parents=True)
    for name, seed in {"one.wav": 0, "two.wav": 1, "album/three.flac": 2, "again.ogg": 0}.items():
        soundfile.write(source / name, song(seed), RATE)
    tags = FLAC(source / "album" / "three.flac")
    tags.update({"title": "The Third", "artist": "Ada", "album": "Seas"})
    tags.save()
    (source / "album" / "three.txt").write_text("a third song\n")
    (source / "broken.mp3").write_bytes(b"not a song at all")
    (source / "album" / ".three.wav").write_bytes(b"hidden")
    return source


def made(out: Location, music: Location, run: RunJobs = run_jobs) -> Built:
    built = build(music, out, tags=False, workers=2, run=run)
    write_report(out, built, plots=False)
    return built


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the records of preparing, whose stamps are of another store."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "quality")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def expected(music: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("plain") / "corpus"
    made(out, music)
    found = contents(out)
    dropped = found.pop("dropped.jsonl").decode()
    assert "duplicate: repeats" in dropped
    assert "unreadable" in dropped
    return found


def assert_same(found: dict[str, bytes], expected: dict[str, bytes], source: str) -> None:
    """All files alike; of what is dropped the reason names where the file lies."""
    lines = [json.loads(line) for line in found.pop("dropped.jsonl").splitlines()]
    reasons = {line["id"].rpartition("-")[0]: line["reason"] for line in lines}
    assert reasons["broken"].startswith(f"unreadable: {source}/broken.mp3: cannot be decoded")
    assert reasons["again"].startswith("duplicate: repeats one.wav")
    for name in ("report.json", "report.md"):
        assert name in found
    assert {name: text for name, text in found.items() if not name.startswith("report")} == {
        name: text for name, text in expected.items() if not name.startswith("report")
    }


def test_in_a_bucket_it_is_the_same_as_on_disk(
    music: Path, bucket: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(music, bucket / "music")
    source, out = location("dir://music"), location("dir://corpus")
    first = made(out, source)
    assert_same(contents(bucket / "corpus"), expected, "dir://music")
    assert read_manifest(out / "manifest.jsonl") == first.corpus.tracks
    assert next(track for track in first.corpus.tracks if track.title == "The Third").author == "Ada"

    times = {path: path.stat().st_mtime_ns for path in bucket.glob("corpus/*/*")}
    assert made(out, source) == first
    soundfile.write(bucket / "music" / "two.wav", song(7), RATE)
    made(out, source)
    changed = {path.name.split("-")[0] for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"two"}


def test_in_memory_and_by_a_manifest_of_addresses(music: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{music}/", "/music/", recursive=True)
    lines = [{"path": "memory://music/one.wav"}, {"path": str(music / "two.wav"), "caption": "the second"}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        built = made(location("memory://corpus"), tmp_path / "list.jsonl", run_here)
        there = sorted(memory.find("/corpus"))
        by_reference = build(location("memory://music"), tmp_path / "out", reference=True, tags=False, run=run_here)
    finally:
        memory.store.clear()
    assert sorted(track.source for track in built.corpus.tracks) == sorted(line["path"] for line in lines)
    assert sum(name.endswith(".wav") for name in there) == 2
    assert "/corpus/report.json" in there
    assert {track.path.rpartition("/")[0] for track in by_reference.corpus.tracks} == {
        "memory://music",
        "memory://music/album",
    }


def test_what_is_heard_is_kept_there_too(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    listener = Listener(Musicnn(), Musicnn())
    monkeypatch.setattr(hearing, "_listener", lambda: listener)
    memory, out = fsspec.filesystem("memory"), location("memory://corpus")
    try:
        first = build(music, out, run=run_here)
        listened = [name for name in memory.find("/corpus/facts") if name.endswith(".passages.json")]
        monkeypatch.setattr(hearing, "_listener", lambda: pytest.fail("it is listened to again"))
        again = build(music, out, run=run_here)
    finally:
        memory.store.clear()
    assert len(listened) == 4  # the copy as well, before it is known for one
    assert all(track.passages for track in first.corpus.tracks if track.title != "The Third")
    assert again == first


def test_what_was_made_of_music_there_is_not_taken_for_music(music: Path, bucket: Path) -> None:
    shutil.copytree(music, bucket / "music")
    source = location("dir://music")
    first = made(location("dir://music/one"), source)
    assert made(location("dir://music/two"), source).corpus == first.corpus
    with pytest.raises(UserError, match="dir://music: is the folder of the music itself"):
        find_recordings(source, source)


def test_nothing_at_an_address_is_said(bucket: Path) -> None:
    with pytest.raises(UserError, match="dir://nowhere: is not there"):
        find_recordings(location("dir://nowhere"))
    with pytest.raises(UserError, match="cannot be reached"):
        find_recordings(location("nowhere://bucket"))


def test_what_cannot_be_fetched_is_tried_again(music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{music}/", "/music/", recursive=True)
    source, fetch = location("memory://music"), Address.fetch

    def fail(address: Address, to: Path) -> None:
        if address.name == "one.wav":
            raise UserError(f"{address}: cannot be reached (timeout)")
        fetch(address, to)

    try:
        monkeypatch.setattr(Address, "fetch", fail)
        dropped = build(source, tmp_path / "out", tags=False, run=run_here).corpus.dropped
        assert "failed: memory://music/one.wav: cannot be reached (timeout)" in dropped.values()
        monkeypatch.setattr(Address, "fetch", fetch)
        assert "one" in {
            track.title for track in build(source, tmp_path / "out", tags=False, run=run_here).corpus.tracks
        }
    finally:
        memory.store.clear()


def test_a_store_that_takes_nothing_drops_nothing(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fs: Any, path: str, *_: Any, **__: Any) -> None:
        raise PermissionError("access denied")

    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "put_file", refuse)
    with pytest.raises(OSError, match=r"cannot be written \(access denied\): 'memory://corpus/"):
        build(music, location("memory://corpus"), tags=False, run=run_here)
    assert not memory.find("/corpus")


def test_a_file_that_is_gone_there_is_dropped(music: Path, bucket: Path, tmp_path: Path) -> None:
    shutil.copytree(music, bucket / "music")
    (tmp_path / "list.csv").write_text("path\ndir://music/one.wav\ndir://music/gone.wav\n")
    corpus = build(tmp_path / "list.csv", tmp_path / "out", tags=False, workers=1).corpus
    assert [track.title for track in corpus.tracks] == ["one"]
    assert next(iter(corpus.dropped.values())).startswith("unreadable")


def killing(folder: Path, run: RunJobs) -> RunJobs:
    """`run`, whose one worker dies in the middle of a recording."""
    return lambda function, jobs, workers: run(partial(half_prepare, folder, function), jobs, 1)  # type: ignore[return-value]


def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    music: Path, bucket: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(music, bucket / "music")
    made(location("dir://corpus"), location("dir://music"), killing(tmp_path, run_jobs))
    assert (tmp_path / "died").exists()
    assert_same(contents(bucket / "corpus"), expected, "dir://music")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_on_ray_as_well(ray: Any, music: Path, bucket: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(music, bucket / "music")
    made(location("dir://corpus"), location("dir://music"), killing(tmp_path, run_on_ray))
    assert (tmp_path / "died").exists()
    assert_same(contents(bucket / "corpus"), expected, "dir://music")
