"""Downloads from ModelScope: through its client where that is installed, else through its HTTP file API.

The API: `GET /api/v1/models/OWNER/NAME/repo/files` lists the files with sizes and SHA-256, `GET .../repo?FilePath=`
serves one, with ranges. `MODELSCOPE_ENDPOINT` and `MODELSCOPE_CACHE` mean the same as for the client.
"""

import fnmatch
import hashlib
import http.client
import importlib.util
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from longplay.errors import DownloadError
from longplay.files import write_text

logger = logging.getLogger(__name__)
ATTEMPTS = 5
_LISTING = ".longplay-files.json"
_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30.0


class RemoteFile(NamedTuple):
    """One file of a repository; `sha256` is empty where the hub does not tell it."""

    path: str
    size: int
    sha256: str


def download(repository: str, revision: str, ignore: Sequence[str] = (), offline: bool = False) -> Path:
    """Fetch all files of a repository, or find them in the cache.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit.
        ignore: file name patterns that are not fetched.
        offline: use the cache only.

    Raises:
        DownloadError: no such model or revision, the hub cannot be reached, or a file arrived damaged.
    """
    if client_installed():
        return _download_with_client(repository, revision, ignore, offline)
    directory = _cache() / "longplay" / repository / revision.replace("/", "--")
    if offline:
        return _from_cache(directory, repository)
    listed = [item for item in _list(repository, revision) if not _ignored(item.path, ignore)]
    known = {item.path: item for item in _read_listing(directory)}
    for item in listed:
        target = directory / item.path
        if known.get(item.path) != item or not target.is_file() or target.stat().st_size != item.size:
            _fetch(_file_url(repository, revision, item.path), item, target)
    _write_listing(directory, listed)
    return directory


def client_installed() -> bool:
    """Whether the extra `longplay[modelscope]` is there."""
    return importlib.util.find_spec("modelscope") is not None


def _download_with_client(repository: str, revision: str, ignore: Sequence[str], offline: bool) -> Path:
    from modelscope import snapshot_download

    try:
        directory = snapshot_download(
            repository, revision=revision, ignore_file_pattern=list(ignore), local_files_only=offline
        )
    except Exception as error:  # the client raises its own and its HTTP library's kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DownloadError(f"model modelscope:{repository}: the download failed ({reason}); run again") from error
    return Path(directory)


def _list(repository: str, revision: str) -> list[RemoteFile]:
    query = urlencode({"Revision": revision, "Recursive": "True"})
    url = f"{_endpoint()}/api/v1/models/{quote(repository)}/repo/files?{query}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
        entries = answer["Data"]["Files"]
        found = [
            RemoteFile(entry["Path"], int(entry["Size"]), str(entry.get("Sha256") or "").lower())
            for entry in entries
            if entry.get("Type") != "tree"
        ]
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.NOT_FOUND:
            raise DownloadError(
                f"model modelscope:{repository}@{revision}: ModelScope has no such model or revision; "
                "see `longplay models list`"
            ) from None
        raise DownloadError(f"model modelscope:{repository}: ModelScope answered {error.code}; try later") from None
    except OSError as error:
        raise DownloadError(f"model modelscope:{repository}: cannot reach ModelScope ({error}); try later") from None
    except (ValueError, KeyError, TypeError):
        raise DownloadError(f"model modelscope:{repository}: ModelScope sent no list of files; try later") from None
    for item in found:
        if PurePosixPath(item.path).is_absolute() or ".." in PurePosixPath(item.path).parts or "\\" in item.path:
            raise DownloadError(f"model modelscope:{repository}: lists the unsafe path {item.path!r}; do not use it")
    return found


def _fetch(url: str, item: RemoteFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, item, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS:
                raise DownloadError(f"{item.path}: the download was cut ({error}); run again to resume") from error
            logger.warning("%s: %s; resuming (attempt %d of %d)", item.path, error, attempt + 1, ATTEMPTS)
            time.sleep(0.2 * attempt)
    if item.sha256 and _sha256(part) != item.sha256:
        part.unlink()
        raise DownloadError(f"{item.path}: arrived damaged (its SHA-256 is not the hub's); run again")
    part.replace(target)


def _receive(url: str, item: RemoteFile, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if have > item.size:
        part.unlink()
        have = 0
    if have == item.size and part.is_file():
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as file, _progress() as progress:
            task = progress.add_task(item.path, total=item.size, completed=have if resumed else 0)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if (size := part.stat().st_size) != item.size:
        raise ConnectionError(f"received {size} of {item.size} bytes")


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _from_cache(directory: Path, repository: str) -> Path:
    listed = _read_listing(directory)
    whole = all(
        (directory / item.path).is_file() and (directory / item.path).stat().st_size == item.size for item in listed
    )
    if not listed or not whole:
        raise DownloadError(
            f"model modelscope:{repository}: offline, and not (wholly) in the cache; connect and try again"
        )
    return directory


def _read_listing(directory: Path) -> list[RemoteFile]:
    path = directory / _LISTING
    return [RemoteFile(*item) for item in json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def _write_listing(directory: Path, listed: list[RemoteFile]) -> None:
    write_text(directory / _LISTING, json.dumps(listed))


def _file_url(repository: str, revision: str, path: str) -> str:
    query = urlencode({"Revision": revision, "FilePath": path})
    return f"{_endpoint()}/api/v1/models/{quote(repository)}/repo?{query}"


def _endpoint() -> str:
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or "https://modelscope.cn"
    return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")


def _cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _ignored(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
