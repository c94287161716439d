"""The one place where names from outside become parts of paths and addresses; strict, or refused.

A name that passes here holds no separator, no parent directory, no control character and no device name,
so that joining it to a directory stays inside that directory. Length limits are the hub's and the filesystem's.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from llamakit.core.errors import DownloadError, InvalidRequest

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_REPO = re.compile(rf"({_PART})/({_PART})")
_CREATED = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_QUANT = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,15}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_FILE_PART = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|]{1,255}")
# Names that some filesystems take for devices, with any ending.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def is_repo(text: str) -> bool:
    """Whether `text` is an `owner/name` of the hub."""
    return _REPO.fullmatch(text) is not None and "--" not in text and ".." not in text


def check_repo(text: str) -> str:
    """`text` itself when it is an `owner/name`; raises `InvalidRequest`."""
    if not is_repo(text):
        raise InvalidRequest(f"a hub repository is owner/name of letters, digits, '.', '_' and '-', got {text!r}")
    return text


def check_revision(text: str) -> str:
    """`text` itself when it can be a branch, tag or commit; raises `InvalidRequest`."""
    if _REVISION.fullmatch(text) is None or ".." in text or "//" in text:
        raise InvalidRequest(f"a revision is a branch, a tag or a commit, got {text!r}")
    return text


def is_quant(text: str) -> bool:
    """Whether `text` can name a GGUF quantisation such as Q4_K_M."""
    return _QUANT.fullmatch(text) is not None


def check_created(text: str) -> tuple[str, str]:
    """Name and tag of a created model (`mario` is `mario:latest`); raises `InvalidRequest`."""
    name, colon, tag = text.partition(":")
    tag = tag if colon else "latest"
    for part in (name, tag):
        if _CREATED.fullmatch(part) is None or ".." in part or part.split(".")[0] in _DEVICES:
            raise InvalidRequest(
                f"the name of a created model is name or name:tag of lower-case letters, digits, '.', '_' and '-', "
                f"at most 64 each, got {text!r}"
            )
    return name, tag


def is_created(text: str) -> bool:
    """Whether `text` can be the name of a created model."""
    try:
        check_created(text)
    except InvalidRequest:
        return False
    return True


def check_commit(text: str | None) -> str:
    """A full commit id from the hub; raises `DownloadError`."""
    if text is None or _SHA1.fullmatch(text) is None:
        raise DownloadError(f"the hub's commit id must be 40 hexadecimal digits, got {text!r}")
    return text


def check_digest(text: str | None) -> str:
    """A content digest from the hub, sha256 or git's sha1, in lower case; raises `DownloadError`."""
    if text is None or (_SHA256.fullmatch(text) is None and _SHA1.fullmatch(text) is None):
        raise DownloadError(f"a content digest must be 64 or 40 lower-case hexadecimal digits, got {text!r}")
    return text


def check_file(text: str) -> PurePosixPath:
    """A file's relative path inside a repository; raises `DownloadError` for anything that could leave it."""
    parts = text.split("/")
    bad = len(text) > 1024 or not all(
        _FILE_PART.fullmatch(part)
        and part not in (".", "..")
        and not part.endswith((" ", "."))
        and part.split(".")[0].lower() not in _DEVICES
        for part in parts
    )
    if bad:
        raise DownloadError(f"the repository lists a file whose name is not a plain relative path: {text!r}")
    return PurePosixPath(text)


def inside(root: Path, *parts: str) -> Path:
    """`root` joined with checked parts; raises `InvalidRequest` should the result lie outside (it cannot)."""
    path = root.joinpath(*parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise InvalidRequest(f"{path} lies outside {root}")
    return path
