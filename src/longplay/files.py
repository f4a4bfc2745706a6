"""Files that appear complete or not at all, and the folder for what can be fetched or made again."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from longplay.address import Address, Location


@contextmanager
def replacing(path: Location) -> Iterator[Path]:
    """Where to write what is to be at `path`: it gets there when the block ends, and is removed where the block fails.

    Yields:
        a path in the same folder, which must exist, or on this machine for an address; nobody sees the old file and the
        new one mixed.
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


def write_text(path: Location, text: str) -> None:
    """Write a whole text file, and its folder, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def lines(text: str) -> Iterator[str]:
    """The lines of a text, each with its end. Only a line feed ends one: a title may hold U+2028, at which `splitlines` would cut."""
    return iter(io.StringIO(text))


def cache_folder() -> Path:
    """Of the variable LONGPLAY_CACHE, else of the user: kernels, the weights of musicnn and copies of token shards; all may be deleted."""
    return Path(os.environ.get("LONGPLAY_CACHE") or "~/.cache/longplay").expanduser()
