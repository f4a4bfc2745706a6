"""Debian packages as a source of music: download with `apt-get`, read with `dpkg-deb`."""

import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import IO

from longplay.errors import DownloadError, UserError
from longplay.files import replacing

ARCHIVES = (".zip", ".pk3")


def require_tools(tools: Iterable[str]) -> None:
    """Check that programs are installed.

    Raises:
        UserError: naming all that are missing, and how to get them.
    """
    missing = sorted(tool for tool in tools if shutil.which(tool) is None)
    if missing:
        raise UserError(
            f"missing programs: {', '.join(missing)}; the corpus is built from Debian packages: "
            "on Debian or Ubuntu run `apt-get install dpkg apt mma fluidsynth fluid-soundfont-gm`"
        )


def fetch(package: str, directory: Path) -> Path:
    """The package's .deb in `directory`, downloaded unless it is there.

    Raises:
        DownloadError: apt cannot find or reach the package.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if found := sorted(directory.glob(f"{package}_*.deb")):
        return found[-1]
    result = subprocess.run(["apt-get", "download", package], cwd=directory, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["unknown reason"])[-1]
        raise DownloadError(
            f"package {package}: download failed ({reason}); run `apt-get update` and check the network"
        )
    return sorted(directory.glob(f"{package}_*.deb"))[-1]


def extract(deb: Path, wanted: Collection[str], directory: Path) -> None:
    """Write the `wanted` paths of a package below `directory`, and its copyright file as `copyright`.

    Files that are there already are kept. A wanted path `a/b.zip.d/c` is the member `c` of the archive `a/b.zip`.

    Raises:
        DownloadError: the package is damaged or lacks a wanted path.
    """
    missing = {path for path in wanted if not (directory / path).is_file()}
    if not missing and (directory / "copyright").is_file():
        return
    package = deb.name.partition("_")[0]
    plain = {path for path in missing if _container(path) is None}
    inside: dict[str, set[str]] = {}
    for path in missing - plain:
        inside.setdefault(str(_container(path)), set()).add(path)
    found: set[str] = set()
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as process:
        try:
            with tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for entry in tar:
                    name = entry.name.removeprefix("./")
                    data = tar.extractfile(entry) if entry.isreg() else None
                    if data is None:
                        continue
                    if name == f"usr/share/doc/{package}/copyright":
                        _write(directory / "copyright", data.read())
                    elif name in plain:
                        _write(directory / name, data.read())
                        found.add(name)
                    elif name in inside:
                        found |= _extract_members(data, name, inside[name], directory)
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise DownloadError(f"package {deb}: is damaged ({error}); delete it, it will be fetched again") from None
    if not (directory / "copyright").is_file():
        raise DownloadError(
            f"package {deb}: has no usr/share/doc/{package}/copyright, so its music has no known licence"
        )
    if lost := sorted(missing - found):
        raise DownloadError(f"package {deb}: lacks {lost[0]} and {len(lost) - 1} more; expected the Debian 12 version")


def _extract_members(data: IO[bytes], archive: str, wanted: set[str], directory: Path) -> set[str]:
    with tempfile.TemporaryFile() as copy:  # an archive may be larger than memory, and a zip is read from its end
        shutil.copyfileobj(data, copy)
        with zipfile.ZipFile(copy) as members:
            names = set(members.namelist())
            found = {path for path in wanted if path.removeprefix(f"{archive}.d/") in names}
            for path in found:
                _write(directory / path, members.read(path.removeprefix(f"{archive}.d/")))
    return found


def _container(path: str) -> str | None:
    """The archive that a listed path lies in."""
    for suffix in ARCHIVES:
        head, marker, _ = path.partition(f"{suffix}.d/")
        if marker:
            return head + suffix
    return None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(data)
