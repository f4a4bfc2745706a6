"""Files that appear complete or not at all, and the folder for what can be fetched or made again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`: it gets there when the block ends, and is removed where the block fails.

    Yields:
        a path in the same folder, which must exist; nobody sees the old file and the new one mixed.
    """
    part = beside(path)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def beside(path: Path) -> Path:
    """A hidden place in the same folder."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}.part")


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, and its folder, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def cache_folder() -> Path:
    """Of the variable LONGPLAY_CACHE, else of the user: kernels and the weights of musicnn; all may be deleted."""
    return Path(os.environ.get("LONGPLAY_CACHE") or "~/.cache/longplay").expanduser()
