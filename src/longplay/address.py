"""Where files lie: a path on this machine, or an address that fsspec knows (s3://, gs://, memory://, ...)."""

import errno
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from longplay.errors import LongplayError, UserError

LOCAL = ("file", "local")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
THREADS = 32  # requests to a store at a time
_VERSION = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated", "created")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Address:
    """A file or folder in a store such as a bucket, used as a `Path` is.

    Attributes:
        protocol: e.g. `s3`.
        path: what follows it, e.g. bucket and key.

    Every method that asks the store raises FileNotFoundError where nothing is there, and UserError where the store cannot
    be reached; those that change something raise OSError instead, as with files, and so does all that fills this disk.
    """

    protocol: str
    path: PurePosixPath

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, name: str) -> "Address":
        return Address(self.protocol, self.path / name)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    @property
    def suffix(self) -> str:
        """Of the name."""
        return self.path.suffix

    @property
    def parent(self) -> "Address":
        """The folder that it lies in."""
        return Address(self.protocol, self.path.parent)

    def with_suffix(self, suffix: str) -> "Address":
        """With another suffix."""
        return Address(self.protocol, self.path.with_suffix(suffix))

    def resolve(self) -> "Address":
        """Without `..`."""
        return Address(self.protocol, PurePosixPath(posixpath.normpath(self.path)))

    def is_file(self) -> bool:
        """Whether there is such a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Whether there is such a folder."""
        return self._kind() == "directory"

    def version(self) -> str:
        """Size, and checksum or time, of the file; `missing` where there is none."""
        try:
            with self._reached() as (fs, path):
                about = fs.info(path)
        except FileNotFoundError:
            return "missing"
        return f"{about['size']}:{next((about[key] for key in _VERSION if about.get(key)), '')}"

    def files(self) -> list["Address"]:
        """All files below this folder, sorted."""
        with self._reached() as (fs, path):
            found = fs.find(path)
        return sorted((self / posixpath.relpath(each, path) for each in found), key=str)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The text of the file."""
        with self._reached() as (fs, path):
            return bytes(fs.cat_file(path)).decode(encoding)

    def opened(self) -> BinaryIO:
        """The file for reading, of which no more than what is read is fetched."""
        with self._reached() as (fs, path):
            return fs.open(path, "rb")

    def fetch(self, to: Path) -> None:
        """Copy the file here."""
        with self._reached() as (fs, path):
            fs.get_file(path, str(to))

    def put(self, made: Path) -> None:
        """Copy `made` to there; an object store shows it once it is complete."""
        with self._changed() as (fs, path):
            fs.put_file(str(made), path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the file."""
        try:
            with self._changed() as (fs, path):
                fs.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Make the folder, and those above it, where the store has folders."""
        with self._changed() as (fs, path):
            fs.makedirs(path, exist_ok=exist_ok)

    def _kind(self) -> str:
        try:
            with self._reached() as (fs, path):
                return str(fs.info(path)["type"])
        except FileNotFoundError:
            return "nothing"

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path there."""
        # what other processes have written is to be seen
        fs, path = open_address(str(self), use_listings_cache=False)
        try:
            yield fs, path
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self)) from None
        except LongplayError:
            raise
        except Exception as error:  # each client of a store has its own
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            raise UserError(f"{self}: cannot be reached ({error})") from error

    @contextmanager
    def _changed(self) -> Iterator[tuple[Any, str]]:
        """As `_reached`, for a change."""
        try:
            with self._reached() as reached:
                yield reached
        except UserError as error:
            raise OSError(errno.EIO, f"cannot be written ({error.__cause__ or error})", str(self)) from error


Location = Path | Address


def location(text: str | Path) -> Location:
    """The file or folder at a path or an address."""
    protocol, mark, path = str(text).rpartition("://")
    if not mark:
        return Path(text)
    return Path(path) if protocol in LOCAL else Address(protocol, PurePosixPath(path))


def named(name: str, folder: Location) -> Location:
    """What a file in `folder` means by `name`: a path from there, an absolute one, or an address."""
    return location(name) if "://" in name or Path(name).is_absolute() else folder / name


def below(path: Location, folder: Location) -> str | None:
    """How `path` is called in `folder`, with slashes; None where it does not lie below it."""
    if isinstance(path, Path) and isinstance(folder, Path):
        inner, outer = PurePosixPath(path.as_posix()), PurePosixPath(folder.as_posix())
    elif isinstance(path, Address) and isinstance(folder, Address) and path.protocol == folder.protocol:
        inner, outer = path.path, folder.path
    else:
        return None
    return str(inner.relative_to(outer)) if inner.is_relative_to(outer) else None


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of each item, in order; many at a time, for what waits for a disk or a store."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def open_address(address: str, **options: Any) -> tuple[Any, str]:
    """The file system of a path or address, and the path there.

    Raises:
        UserError: fsspec, or what it needs for this protocol, is not installed.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UserError(f"{address}: needs fsspec; install it with: pip install 'longplay[train]'") from None
    try:
        fs, path = url_to_fs(address, **options)
    except (ImportError, ValueError) as error:
        raise UserError(f"{address}: cannot be reached ({error})") from None
    return fs, str(path)
