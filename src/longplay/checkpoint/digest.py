"""What weight files are: SHA-256 over their bytes, and, beside a model, the note that saves reading them all again.

```
.lm.digest.json         {"sha256": ..., "files": [{"name": ..., "size": ..., "modified": ..., "changed": ..., "ends": ...}]}
```

The note counts as long as each file has the size and the times (of its contents, and of anything about it, in ns) that
it had, and begins and ends with the same bytes, where safetensors and zip files say what is in them. A copied, touched
or rewritten file is read again, whatever is in it.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longplay.files import write_text

_END_BYTES = 1 << 16
_REST_NS = 2_000_000_000
"""Since a file changed: what is written within a tick of a file system's clock would leave the times as they are."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Look:
    """A file as it looks without reading it."""

    name: str
    size: int
    modified: int
    changed: int
    ends: str

    @classmethod
    def at(cls, path: Path) -> "Look":
        """Now.

        Raises:
            OSError: there is no such file.
        """
        found = path.stat()
        with path.open("rb") as file:
            ends = file.read(_END_BYTES)
            file.seek(max(0, found.st_size - _END_BYTES))
            ends += file.read(_END_BYTES)
        return cls(path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, hashlib.sha256(ends).hexdigest())

    @property
    def rests(self) -> bool:
        """Whether the next change will show."""
        return time.time_ns() - max(self.modified, self.changed) > _REST_NS


@dataclass(frozen=True)
class Digest:
    """Of some files.

    Attributes:
        sha256: over their contents in order, hex.
        looks: of each, before it was read.
    """

    sha256: str
    looks: tuple[Look, ...]

    @classmethod
    def of(cls, files: Sequence[Path]) -> "Digest":
        """By reading them, which takes about a second per GB."""
        looks = tuple(map(Look.at, files))
        return cls(digest(files), looks)

    @classmethod
    def noted(cls, files: Sequence[Path], note: Path) -> "Digest | None":
        """By what `keep` wrote; None where that says nothing of the files as they are now."""
        try:
            found = json.loads(note.read_text("utf-8"))
            kept = cls(found["sha256"], tuple(Look(**look) for look in found["files"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return kept if kept.looks == tuple(map(Look.at, files)) else None

    def keep(self, note: Path) -> None:
        """Write it down, where that can be done, unless the files have only just changed."""
        if not all(look.rests for look in self.looks):
            return
        try:
            write_text(note, json.dumps({"sha256": self.sha256, "files": [asdict(look) for look in self.looks]}) + "\n")
        except OSError as error:
            logger.info("%s: cannot be kept (%s)", note, error.strerror)


def digest(files: Sequence[Path]) -> str:
    """SHA-256, hex, over the contents of `files` in order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
