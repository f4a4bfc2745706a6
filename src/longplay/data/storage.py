"""Folders on local disk or in object storage (s3://, gs://, memory://, ...), through fsspec."""

import errno
import posixpath
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from longplay.address import open_address
from longplay.errors import UserError


class Folder(NamedTuple):
    """A folder: `fs` is its file system, `root` its path there without a protocol."""

    fs: Any
    root: str

    def files(self, *suffixes: str) -> list[str]:
        """Names of the files with these suffixes, sorted; none if the folder is not there."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self.root, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        names = [posixpath.basename(entry["name"]) for entry in found if entry["type"] == "file"]
        return sorted(name for name in names if name.endswith(suffixes))

    def open(self, name: str) -> BinaryIO:
        """A file for reading; an absolute path or address is taken as it is.

        Raises:
            UserError: it cannot be opened.
        """
        fs, path = open_address(name) if _is_absolute(name) else (self.fs, posixpath.join(self.root, name))
        try:
            return fs.open(path, "rb")
        except OSError as error:
            raise UserError(f"{name}: cannot be opened ({error}); is it in {self.root}?") from None

    def write(self, name: str, save: Callable[[BinaryIO], None]) -> None:
        """Write a file in one step: `save` fills it under another name, then it is renamed.

        Raises:
            OSError: naming the file.
        """
        path, part = (posixpath.join(self.root, each) for each in (name, name + ".part"))
        try:
            self.fs.makedirs(self.root, exist_ok=True)
            with self.fs.open(part, "wb") as file:
                save(file)
            self.fs.mv(part, path)
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), path) from error


def open_folder(address: Path | str) -> Folder:
    """The folder at a path or an address such as `s3://bucket/tokens`.

    Raises:
        UserError: fsspec, or what it needs for this protocol, is not installed.
    """
    return Folder(*open_address(str(address)))


def split_address(address: Path | str) -> tuple[str, str]:
    """Folder and name of a file's path or address."""
    folder, _, name = str(address).rpartition("/")
    return folder or ("/" if str(address).startswith("/") else "."), name


def _is_absolute(name: str) -> bool:
    return "://" in name or Path(name).is_absolute()
