"""A hub on the loopback interface, and a builder of hub caches; both as the real ones lay things out.

The server speaks the two routes that downloads use: `/api/models/<repo>/revision/<rev>` and
`/<repo>/resolve/<commit>/<file>` with ETag, Range, redirects to a second host, gates, and faults on demand.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
LFS_BYTES = 1000


def git_sha1(data: bytes) -> str:
    """The id git gives a blob."""
    return hashlib.sha1(b"blob %d\x00" % len(data) + data, usedforsecurity=False).hexdigest()


def digest_of(data: bytes) -> str:
    """What the hub names a file by: sha256 for large ones, git's id for small ones."""
    return hashlib.sha256(data).hexdigest() if len(data) >= LFS_BYTES else git_sha1(data)


def fill_cache(cache: Path, repo: str, files: dict[str, bytes], *, commit: str = COMMIT, ref: str = "main") -> Path:
    """Write a repository into a hub cache; returns the snapshot's directory."""
    root = cache / ("models--" + repo.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    for name, data in files.items():
        blob = root / "blobs" / digest_of(data)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    return snapshot


def _error(code: str, message: str) -> dict[str, str]:
    return {"X-Error-Code": code, "X-Error-Message": message}


@dataclass
class Repo:
    """A repository the server offers."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    """Files want the token `hf_good`; the description is public, as on the hub."""
    private: bool = False
    claimed_sha256: dict[str, str] = field(default_factory=dict)
    """Digests to claim instead of the true ones."""


@dataclass
class Request:
    """One request the server got."""

    method: str
    path: str
    headers: dict[str, str]


class FakeHub:
    """The server; `url` is its endpoint. Use as a context manager."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.cut_after: Callable[[str], int | None] = lambda path: None
        """Bytes of a body after which the connection is cut, by path; None sends it whole."""
        self.status: Callable[[str], int | None] = lambda path: None
        """A status to answer with instead."""
        self.ignores_range = False
        self.redirect_to: str | None = None
        """Base address that file requests are redirected to."""
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def file_requests(self, name: str) -> list[Request]:
        """GET requests for a file, in order."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith("/" + name)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(handler.path).path)
        with self.lock:
            self.requests.append(Request(handler.command, path, {k.lower(): v for k, v in handler.headers.items()}))
        if (status := self.status(path)) is not None:
            return self._send(handler, status, b"{}", {})
        if path.startswith("/api/models/"):
            return self._describe(handler, path.removeprefix("/api/models/"))
        repo_id, _, rest = path.lstrip("/").partition("/resolve/")
        _, _, name = rest.partition("/")
        repo = self.repos.get(repo_id)
        authorised = handler.headers.get("authorization") == "Bearer hf_good"
        if repo is None or (repo.private and not authorised):
            return self._send(handler, 401, b"", _error("RepoNotFound", "Repository not found"))
        if repo.gated and not authorised and "x-signed" not in handler.path:
            return self._send(handler, 401, b"", _error("GatedRepo", "Access is restricted"))
        if name not in repo.files:
            return self._send(handler, 404, b"", _error("EntryNotFound", "Entry not found"))
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes", "ETag": f'"{digest_of(repo.files[name])}"'}
        if self.redirect_to is not None:
            location = f"{self.redirect_to}{handler.path}?x-signed=1"
            return self._send(handler, 302, b"", {**headers, "Location": location})
        self._send_file(handler, path, repo.files[name], headers)

    def _describe(self, handler: BaseHTTPRequestHandler, rest: str) -> None:
        repo_id, _, revision = rest.partition("/revision/")
        repo = self.repos.get(repo_id)
        authorised = handler.headers.get("authorization") == "Bearer hf_good"
        if repo is None or (repo.private and not authorised):
            return self._send(handler, 401, b"", _error("RepoNotFound", "Repository not found"))
        if revision not in ("", "main", repo.commit):
            return self._send(handler, 404, b"", _error("RevisionNotFound", "Invalid rev id"))
        siblings = []
        for name, data in repo.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if len(data) >= LFS_BYTES:
                sha256 = repo.claimed_sha256.get(name, hashlib.sha256(data).hexdigest())
                entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        body = {"id": repo_id, "modelId": repo_id, "sha": repo.commit, "siblings": siblings, "private": repo.private,
                "gated": "manual" if repo.gated else False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
        self._send(handler, 200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send_file(self, handler: BaseHTTPRequestHandler, path: str, data: bytes, headers: dict[str, str]) -> None:
        wanted = handler.headers.get("range")
        status, start = 200, 0
        if wanted and not self.ignores_range:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                return self._send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self._send(handler, status, data[start:], headers, cut=self.cut_after(path))

    @staticmethod
    def _send(
        handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        try:
            handler.wfile.write(body if cut is None else body[:cut])
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
        if cut is not None and cut < len(body):
            handler.close_connection = True
