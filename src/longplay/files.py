"""Files that appear complete or not at all, and the folder for what can be fetched or made again."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from longplay.address import Address, Location
from longplay.errors import UserError


@contextmanager
def replacing(path: Location) -> Iterator[Path]:
    """Where to write what is to be at `path`: it gets there when the block ends, and is removed where the block fails.

    Yields:
        a path in the same folder, which must exist, or on this machine for an address; nobody sees the old file and the
        new one mixed.

    Raises:
        OSError: disk or store does not take it; names `path`, not the place beside it.
    """
    if isinstance(path, Address):
        with TemporaryDirectory(prefix="longplay-") as folder:
            made = Path(folder, path.name)
            yield made
            path.put(made)
        return
    part = beside(path)
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if error.filename not in (None, str(part)):
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def fetched(path: Location) -> Iterator[Path]:
    """The file at `path` on this machine: itself, or a copy of what lies at an address while the block runs."""
    if isinstance(path, Path):
        yield path
        return
    with TemporaryDirectory(prefix="longplay-") as folder:
        copy = Path(folder, path.name)
        path.fetch(copy)
        yield copy


def version(path: Location) -> str:
    """Size and time (of an address, checksum or time) of a file, to tell whether it is another one now."""
    if isinstance(path, Address):
        return path.version()
    about = path.stat() if path.is_file() else None
    return "missing" if about is None else f"{about.st_size}:{about.st_mtime_ns}"


def beside(path: Path) -> Path:
    """A hidden place in the same folder."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}.part")


def make_folder(folder: Location) -> None:
    """Make a folder, and see that files can be written there; call it before hours of work.

    Raises:
        UserError: a file lies there.
        OSError: it cannot be made or written to.
    """
    if folder.is_file():
        raise UserError(f"{folder}: is a file, not a folder; give another place")
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(folder, Path):
        TemporaryFile(dir=folder).close()


def write_bytes(path: Location, data: bytes | memoryview) -> None:
    """Write a whole file, and its folder, in one step.

    Raises:
        OSError: naming `path`; the reason is the system's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(data)


def write_text(path: Location, text: str) -> None:
    """`write_bytes` of a text, as UTF-8."""
    write_bytes(path, text.encode())


def lines(text: str) -> Iterator[str]:
    """The lines of a text, each with its end. Only a line feed ends one: a title may hold U+2028, at which `splitlines` would cut."""
    return iter(io.StringIO(text))


def cache_folder() -> Path:
    """Of the variable LONGPLAY_CACHE, else of the user: kernels, the weights of musicnn and copies of token shards; all may be deleted."""
    return Path(os.environ.get("LONGPLAY_CACHE") or "~/.cache/longplay").expanduser()
