"""What is noted of a file stands for reading it as long as the file stays as it is, and no longer."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from longplay.checkpoint import digest as module
from longplay.checkpoint.digest import Digest, digest

TICK = 0.02
"""Seconds in which the clocks of file systems go on."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_REST_NS", 0)
    path = tmp_path / "weights"
    path.write_bytes(bytes(300_000))
    return path


def note_of(file: Path) -> Path:
    note = file.with_name("note.json")
    Digest.of([file]).keep(note)
    time.sleep(TICK)
    return note


def test_a_noted_digest_is_that_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, note = digest([file]), note_of(file)
    monkeypatch.setattr(module, "digest", lambda files: pytest.fail("it was read"))
    found = Digest.noted([file], note)
    assert found is not None
    assert found.sha256 == expected


def rewrite(file: Path) -> None:
    """In the middle, with the time of before."""
    before = file.stat()
    with file.open("r+b") as data:
        data.seek(150_000)
        data.write(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    other = shutil.copy2(file, file.with_name("other"))
    rewrite(Path(other))
    Path(other).replace(file)


@pytest.mark.parametrize("change", [Path.touch, rewrite, replace, lambda file: file.write_bytes(bytes(300_001))])
def test_a_file_that_changed_is_read_again(file: Path, change: Callable[[Path], object]) -> None:
    note = note_of(file)
    change(file)
    assert Digest.noted([file], note) is None


def test_other_files_are_not_known_by_the_note(file: Path) -> None:
    note = note_of(file)
    other = Path(shutil.copy2(file, file.with_name("other")))
    assert Digest.noted([other], note) is None
    assert Digest.noted([file, other], note) is None
    assert Digest.noted([file], file.with_name("absent")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": "a", "files": [{}]}', '{"sha256": "a", "files": 1}'])
def test_a_damaged_note_says_nothing(file: Path, text: str) -> None:
    note = note_of(file)
    note.write_text(text)
    assert Digest.noted([file], note) is None


def test_files_that_have_just_changed_are_not_noted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST_NS", 10**12)
    assert not note_of(file).exists()


def test_where_nothing_can_be_written_nothing_is_noted(file: Path) -> None:
    Digest.of([file]).keep(file / "note.json")
