"""A small local server that speaks what the Hugging Face and ModelScope clients need, with failures on request."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


@dataclass
class FakeHub:
    """Repositories by name, and what goes wrong.

    `cut` maps a path to how many bytes of it are sent before the connection is closed, once. `lie` maps a path to
    bytes that a GET sends in its place. `requests` logs method, path and Range header.
    """

    repositories: dict[str, dict[str, bytes]]
    cut: dict[str, int] = field(default_factory=dict)
    lie: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""

    def downloads(self, path: str) -> list[str | None]:
        """The Range headers of each GET of a file."""
        return [ranged for method, asked, ranged in self.requests if method == "GET" and asked.endswith(path)]


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Run `hub` on a free local port; its `url` is set."""

    class Handler(_Handler):
        def __init__(self, *args: object) -> None:
            self.hub = hub
            super().__init__(*args)  # type: ignore[arg-type]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, query = unquote(url.path), parse_qs(url.query)
        asked = query["FilePath"][0] if "FilePath" in query else path
        self.hub.requests.append((self.command, asked, self.headers.get("Range")))
        if path.startswith("/api/v1/models/"):
            self._modelscope(path.removeprefix("/api/v1/models/"), query)
        elif path.startswith("/api/models/"):
            self._huggingface_api(path.removeprefix("/api/models/"))
        else:
            repository, _, rest = path.lstrip("/").partition("/resolve/")
            revision, _, file = rest.partition("/")
            self._file(repository, revision, file)

    def _huggingface_api(self, path: str) -> None:
        repository, _, rest = path.partition("/revision/" if "/revision/" in path else "/tree/")
        if repository not in self.hub.repositories:
            return self._error(404, "RepoNotFound")
        if rest not in (COMMIT, "main", "v1"):
            return self._error(404, "RevisionNotFound")
        if "/revision/" in path:
            return self._json({"id": repository, "sha": COMMIT, "siblings": []})
        files = self.hub.repositories[repository]
        return self._json(
            [{"type": "file", "path": name, "size": len(data), "oid": _digest(data)} for name, data in files.items()]
        )

    def _modelscope(self, path: str, query: dict[str, list[str]]) -> None:
        repository, _, rest = path.partition("/repo")
        files = self.hub.repositories.get(repository)
        if files is None or query["Revision"][0] not in (COMMIT, "master", "v1"):
            return self._error(404, "NotFound")
        if rest != "/files":
            return self._file(repository, query["Revision"][0], query["FilePath"][0])
        listed = [
            {"Path": name, "Name": name, "Size": len(data), "Sha256": _digest(data), "Type": "blob", "Revision": COMMIT}
            for name, data in files.items()
        ]
        listed.append({"Path": "music_tokenizer", "Name": "music_tokenizer", "Size": 0, "Type": "tree"})
        return self._json({"Code": 200, "Success": True, "Data": {"Files": listed}})

    def _file(self, repository: str, revision: str, file: str) -> None:
        data = self.hub.repositories.get(repository, {}).get(file)
        if data is None:
            return self._error(404, "EntryNotFound")
        etag, full = _digest(data), len(data)
        if self.command == "GET":
            data = self.hub.lie.get(file, data)
        ranged = self.headers.get("Range")
        start = int(ranged.removeprefix("bytes=").split("-")[0]) if ranged else 0
        self.send_response(206 if ranged else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{full}")
        self.end_headers()
        if self.command == "GET":
            end = self.hub.cut.pop(file, len(data))
            self.wfile.write(data[start:end])
            self.close_connection = True
        return None

    def _json(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, code: int, name: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", name)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
