"""One file over HTTP: resumed where it stopped, bounded by its known size, and believed only by its digest.

The hub's own library throws a partial file away when it is interrupted; of weights one keeps what one has.
Credentials go to the hub's own origin only, whatever it redirects to. Knows addresses and bytes, not models.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llamakit.core.errors import DownloadError, Offline
from llamakit.core.faults import fault
from llamakit.core.files import sync_directory
from llamakit.hub import ids

if TYPE_CHECKING:
    import httpx2

CHUNK_BYTES = 1 << 20
MAX_HOPS = 5
MAX_TRIES = 6
"""Attempts in a row that bring no new byte."""
MAX_WAIT_S = 20.0
_sleep = time.sleep
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Refused(DownloadError):
    """The server answered with a status that trying again does not change; `status` and `code` say which."""

    def __init__(self, message: str, *, status: int, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Interrupted(Exception):
    """The connection broke or the server asked to come back; `after_s` if it said when."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file as the hub describes it."""

    name: str
    """Path in the repository."""
    size: int
    digest: str
    """sha256 of large files, git's sha1 of small ones."""

    def hasher(self) -> hashlib._Hash:
        """A fresh hash whose digest of the right bytes is `digest`."""
        if len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\x00" % self.size, usedforsecurity=False)


@dataclass(kw_only=True)
class Fetcher:
    """Fetches files of one hub; `headers` are its credentials."""

    client: httpx2.Client
    endpoint: str
    headers: dict[str, str] = field(default_factory=dict)

    def fetch(self, url: str, file: RemoteFile, target: Path, moved: Callable[[int], None]) -> int:
        """Have `file` at `target`, verified; returns the bytes that came over the network.

        `moved` gets the change of bytes at hand, below zero when a wrong part is thrown away. The part so far stays
        beside the target as `<target>.incomplete` when this raises `DownloadError`, `Offline` or is interrupted.
        """
        part = target.with_name(target.name + ".incomplete")
        target.parent.mkdir(parents=True, exist_ok=True)
        received = tries = 0
        reason = "no answer"
        while tries < MAX_TRIES:
            if tries:
                _sleep(min(2.0 ** (tries - 1), MAX_WAIT_S))
            before = part.stat().st_size if part.exists() else 0
            try:
                received += self._attempt(url, file, part, moved)
                break
            except _Interrupted as interruption:
                reason = str(interruption)
                if interruption.after_s:
                    _sleep(min(interruption.after_s, MAX_WAIT_S))
                gained = (part.stat().st_size if part.exists() else 0) - before
                received += max(0, gained)
                tries = 1 if gained > 0 else tries + 1
        else:
            raise DownloadError(
                f"{file.name}: gave up after {MAX_TRIES} tries without progress ({reason}). "
                "What has arrived is kept; run the same command again to go on"
            )
        self._verify(file, part, moved)
        fault("hub.before_rename")
        os.replace(part, target)
        sync_directory(target.parent)
        return received

    def _attempt(self, url: str, file: RemoteFile, part: Path, moved: Callable[[int], None]) -> int:
        """Bring `part` to full size; returns the bytes received."""
        import httpx2

        start = part.stat().st_size if part.exists() else 0
        if start > file.size:
            part.unlink()
            moved(-start)
            start = 0
        if start == file.size and part.exists():
            return 0
        received = 0
        try:
            response = self._open(url, start)
            try:
                start = self._accept(response, file, part, start, moved)
                # Pieces are written as they come, so that a cut loses nothing that has arrived.
                with open(part, "ab") as out:
                    for chunk in response.iter_raw():
                        received += len(chunk)
                        if start + received > file.size:
                            raise DownloadError(
                                f"{file.name}: the server sends more than the {file.size} bytes it promised"
                            )
                        out.write(chunk)
                        moved(len(chunk))
                        fault("hub.chunk")
                    out.flush()
                    os.fsync(out.fileno())
            finally:
                response.close()
        except httpx2.ConnectError as error:
            if not part.exists() and not received:
                raise Offline(f"cannot reach {_origin(url)}: {error}") from error
            raise _Interrupted(f"cannot reach {_origin(url)}") from error
        except httpx2.TransportError as error:
            raise _Interrupted(f"the connection broke: {type(error).__name__}") from error
        if start + received < file.size:
            raise _Interrupted(f"the server ended after {start + received} of {file.size} bytes")
        return received

    def _open(self, url: str, start: int) -> httpx2.Response:
        """The answer to GET from byte `start`, redirects followed by hand so that credentials stay home."""
        home = _origin(self.endpoint)
        for _ in range(MAX_HOPS):
            headers = {"Accept-Encoding": "identity"} | (self.headers if _origin(url) == home else {})
            if start:
                headers["Range"] = f"bytes={start}-"
            request = self.client.build_request("GET", url, headers=headers)
            response = self.client.send(request, stream=True, follow_redirects=False)
            location = response.headers.get("location")
            if not (300 <= response.status_code < 400 and location):
                return response
            response.close()
            url = str(response.url.join(location))
            if not url.startswith("https://") and not (url.startswith("http://") and home.startswith("http://")):
                raise DownloadError(f"{home} redirects to {_origin(url)}, which is not encrypted; refused")
        raise DownloadError(f"{home} redirects more than {MAX_HOPS} times")

    def _accept(
        self, response: httpx2.Response, file: RemoteFile, part: Path, start: int, moved: Callable[[int], None]
    ) -> int:
        """Check the answer's head; returns the offset its body begins at."""
        status = response.status_code
        if status in _AGAIN:
            after = response.headers.get("retry-after", "")
            raise _Interrupted(f"the server answered {status}", float(after) if after.isdigit() else None)
        encoding = response.headers.get("content-encoding", "identity")
        if status == 206 and encoding == "identity":
            if response.headers.get("content-range") == f"bytes {start}-{file.size - 1}/{file.size}":
                return start
            part.unlink(missing_ok=True)
            moved(-start)
            raise _Interrupted(f"the server sent another part than asked: {response.headers.get('content-range')}")
        if status == 416:
            part.unlink(missing_ok=True)
            moved(-start)
            raise _Interrupted("the server has no such part; starting over")
        if status == 200 and encoding == "identity":
            if start:
                # The server does not know ranges; what we have is thrown away and the whole is taken.
                part.unlink()
                moved(-start)
            return 0
        code = response.headers.get("x-error-code", "")
        raise Refused(
            f"{file.name}: {_origin(str(response.url))} answered {status} {code}".rstrip(), status=status, code=code
        )

    @staticmethod
    def _verify(file: RemoteFile, part: Path, moved: Callable[[int], None]) -> None:
        found = hash_file(file, part)
        if found != file.digest:
            part.unlink()
            moved(-file.size)
            raise DownloadError(
                f"{file.name} does not verify: its {'sha256' if len(file.digest) == 64 else 'git id'} should be "
                f"{file.digest} and is {found}. It was deleted; try again, and mistrust the source if this repeats"
            )


def hash_file(file: RemoteFile, path: Path) -> str:
    """The digest of a file's bytes, of the kind `file.digest` is."""
    hasher = file.hasher()
    with open(path, "rb") as data:
        while chunk := data.read(CHUNK_BYTES):
            hasher.update(chunk)
    return hasher.hexdigest()


def describe(name: str, size: int | None, sha256: str | None, sha1: str | None) -> RemoteFile:
    """A `RemoteFile` from a hub's answer, every part of it checked; raises `DownloadError`."""
    ids.check_file(name)
    if size is None or not 0 <= size < 1 << 50:
        raise DownloadError(f"the hub gives {name!r} the size {size!r}")
    return RemoteFile(name=name, size=size, digest=ids.check_digest(sha256 or sha1))


def _origin(url: str) -> str:
    """Scheme, host and port of an address."""
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"
