"""Paths and addresses, used alike."""

import errno
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from longplay.address import Address, at_once, below, location, named
from longplay.errors import UserError
from longplay.files import fetched, make_folder, replacing, version, write_text


@pytest.fixture
def folder() -> Iterator[Address]:
    found = location("memory://bucket/music")
    assert isinstance(found, Address)
    yield found
    fsspec.filesystem("memory").store.clear()


def test_an_address_is_taken_apart_and_put_together(tmp_path: Path) -> None:
    song = location("s3://bucket/a/song.flac")
    assert str(song) == "s3://bucket/a/song.flac"
    assert (song.name, song.suffix, str(song.parent)) == ("song.flac", ".flac", "s3://bucket/a")
    assert str(song.with_suffix(".txt")) == "s3://bucket/a/song.txt"
    assert str(song.parent / "../b/x.wav") == "s3://bucket/a/../b/x.wav"
    assert str((song.parent / "../b/x.wav").resolve()) == "s3://bucket/b/x.wav"
    assert str(location("hdfs:///user/a")) == "hdfs:///user/a"
    assert location("music/x") == Path("music/x")
    assert location(f"file://{tmp_path}") == tmp_path


def test_what_a_name_in_a_manifest_means() -> None:
    assert str(named("a/b.wav", location("s3://bucket/x"))) == "s3://bucket/x/a/b.wav"
    assert named("a/b.wav", Path("x")) == Path("x/a/b.wav")
    assert str(named("gs://other/b.wav", Path("x"))) == "gs://other/b.wav"
    assert named("/far/b.wav", location("s3://bucket/x")) == Path("/far/b.wav")


def test_what_lies_below() -> None:
    assert below(location("s3://b/x/y.wav"), location("s3://b/x")) == "y.wav"
    assert below(location("gs://b/x/y.wav"), location("s3://b/x")) is None
    assert below(Path("b/x/y.wav"), Path("b")) == "x/y.wav"
    assert below(Path("/b/y.wav"), location("s3://b")) is None


def test_files_are_written_read_and_deleted(folder: Address, tmp_path: Path) -> None:
    text = folder / "a" / "b.txt"
    assert (text.is_file(), folder.is_dir(), version(text)) == (False, False, "missing")
    write_text(text, "one")
    assert (text.is_file(), folder.is_dir(), text.read_text()) == (True, True, "one")
    assert folder.files() == [text]
    before = version(text)
    write_text(text, "another")
    assert version(text) != before
    with fetched(text) as copy:
        assert (copy.name, copy.read_text()) == ("b.txt", "another")
    assert not copy.exists()
    text.unlink()
    text.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError, match="memory://bucket/music/a/b.txt"):
        text.read_text()


def test_a_file_that_fails_is_not_put(folder: Address) -> None:
    def write_half() -> None:
        with replacing(folder / "x") as part:
            part.write_text("half of")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_half()
    assert not (folder / "x").is_file()


def test_what_a_disk_refuses_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "old")
    for error in (OSError(errno.ENOSPC, "No space left on device"), OSError("10 requested and 3 written")):
        with pytest.raises(OSError, match=f"{error.strerror or error}: '{tmp_path}/x'"), replacing(tmp_path / "x"):
            raise error
    with pytest.raises(FileNotFoundError, match="'another'"), replacing(tmp_path / "x"):
        Path("another").read_text()
    assert (tmp_path / "x").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_made_where_it_can_be(tmp_path: Path, folder: Address) -> None:
    for each in (tmp_path / "a" / "b", folder / "a"):
        make_folder(each)
        make_folder(each)
    assert (tmp_path / "a" / "b").is_dir()
    write_text(tmp_path / "file", "")
    with pytest.raises(UserError, match="file: is a file, not a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(OSError, match="file/a"):
        make_folder(tmp_path / "file" / "a")


def test_what_is_done_at_once_comes_in_order() -> None:
    both = threading.Barrier(2, timeout=30)  # which nobody passes alone

    def name(number: int) -> str:
        if number < 2:
            both.wait()
        return str(number)

    assert at_once(name, range(100)) == [str(number) for number in range(100)]


def test_a_store_that_cannot_be_reached_is_named() -> None:
    with pytest.raises(UserError, match="nowhere://b/x: cannot be reached"):
        location("nowhere://b/x").is_file()
