"""What is on this machine: the Hugging Face cache, read in its own layout, without its library.

    <cache>/models--owner--repo/refs/main             the commit a branch stood at
    <cache>/models--owner--repo/snapshots/<commit>/   links named as in the repository
    <cache>/models--owner--repo/blobs/<digest>        the bytes, named by their content

The cache is shared with every other program that uses the hub. Knows files, not what is inside them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import ids
from llamakit.hub.parts import models_among

GGUF_SUFFIX = ".gguf"
MAX_JSON_BYTES = 8 << 20
_QUANT_IN_NAME = re.compile(r"[-._]((?:I?Q\d|BF16|F16|F32)\w*)$", re.IGNORECASE)
_PART_OF = re.compile(r"-\d{5}-of-\d{5}$")


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """The hub's cache directory, by the variables its own library obeys."""
    environ = os.environ if environ is None else environ
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(variable):
            return Path(os.path.expandvars(environ[variable])).expanduser()
    if environ.get("HF_HOME"):
        return Path(os.path.expandvars(environ["HF_HOME"])).expanduser() / "hub"
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """One commit of one repository as far as it is here."""

    repo: str
    commit: str
    path: Path
    files: tuple[str, ...]
    """Names in the repository whose bytes are here."""

    @property
    def ggufs(self) -> tuple[str, ...]:
        """GGUF files among them."""
        return tuple(file for file in self.files if file.endswith(GGUF_SUFFIX))

    @property
    def gguf_models(self) -> tuple[str, ...]:
        """Those of them to open: whole files, and the first part of each complete set."""
        return tuple(models_among(self.files))

    @property
    def has_safetensors(self) -> bool:
        """Whether a whole Hugging Face checkpoint is here."""
        return "config.json" in self.files and _has_all_shards(self)

    @property
    def original(self) -> Path | None:
        """Directory of Meta's own layout, if it is here."""
        for prefix in ("original/", ""):
            if f"{prefix}params.json" in self.files and f"{prefix}consolidated.00.pth" in self.files:
                return self.path / prefix
        return None

    @property
    def is_runnable(self) -> bool:
        """Whether there are weights to open."""
        return bool(self.gguf_models) or self.has_safetensors or self.original is not None

    def size_bytes(self) -> int:
        """Bytes of all files, shared ones counted here too."""
        return sum((self.path / file).stat().st_size for file in self.files)

    def modified(self) -> datetime:
        """When the newest file arrived."""
        return datetime.fromtimestamp(max((self.path / file).stat().st_mtime for file in self.files), UTC)


def repo_directory(cache: Path, repo: str) -> Path:
    """Where the cache keeps a repository; raises `InvalidRequest` for an id that is none."""
    return ids.inside(cache, "models--" + ids.check_repo(repo).replace("/", "--"))


def snapshots(cache: Path) -> list[Snapshot]:
    """Every snapshot in the cache that holds a file, by repository."""
    found: list[Snapshot] = []
    if not cache.is_dir():
        return found
    for directory in sorted(cache.glob("models--*--*")):
        repo = directory.name.removeprefix("models--").replace("--", "/", 1)
        if ids.is_repo(repo):
            found += _snapshots_of(cache, repo)
    return found


def find_snapshot(cache: Path, repo: str, revision: str | None = None) -> Snapshot | None:
    """The snapshot at `revision` (a branch, a tag or the start of a commit); by default `main`, else the newest."""
    here = _snapshots_of(cache, repo)
    if revision is not None:
        ids.check_revision(revision)
    commit = _ref(repo_directory(cache, repo), revision or "main")
    for snapshot in here:
        if snapshot.commit == commit or (revision and len(revision) >= 7 and snapshot.commit.startswith(revision)):
            return snapshot
    if revision is None and here:
        return max(here, key=Snapshot.modified)
    return None


def pick_gguf(files: tuple[str, ...], quant: str) -> list[str]:
    """The GGUF files of one quantisation; several when it is split."""
    return sorted(file for file in files if file.endswith(GGUF_SUFFIX) and quant_of(file) == quant.upper())


def quant_of(file: str) -> str | None:
    """The quantisation a GGUF file's name tells: `Q4_K_M` of `x-Q4_K_M.gguf`."""
    stem = _PART_OF.sub("", file.rsplit("/", 1)[-1].removesuffix(GGUF_SUFFIX))
    match = _QUANT_IN_NAME.search(stem)
    return match[1].upper() if match else None


def remove_repo(cache: Path, repo: str) -> int:
    """Delete a repository from the cache; returns the bytes freed. Raises `UnknownModel`."""
    directory = repo_directory(cache, repo)
    if not directory.is_dir() or directory.is_symlink():
        raise UnknownModel(f"{repo} is not in {cache}", name=repo)
    freed = sum(file.lstat().st_size for file in directory.rglob("*") if file.is_file() and not file.is_symlink())
    shutil.rmtree(directory)
    locks = cache / ".locks" / directory.name
    if locks.is_dir() and not locks.is_symlink():
        shutil.rmtree(locks)
    return freed


def remove_files(cache: Path, snapshot: Snapshot, files: list[str]) -> int:
    """Delete single files of a snapshot, and their bytes where no other name leads to them; returns bytes freed."""
    directory = repo_directory(cache, snapshot.repo)
    freed = 0
    for file in files:
        if file not in snapshot.files:
            raise InvalidRequest(f"{snapshot.repo} has no file {file!r} in {cache}")
        link = snapshot.path / file
        blob = link.resolve()
        link.unlink()
        others = (entry for entry in (directory / "snapshots").rglob("*") if entry.is_file())
        if (
            blob.exists()
            and blob.is_relative_to(directory.resolve())
            and all(entry.resolve() != blob for entry in others)
        ):
            freed += blob.stat().st_size
            blob.unlink()
    if not _snapshots_of(cache, snapshot.repo):
        freed += remove_repo(cache, snapshot.repo)
    return freed


def _snapshots_of(cache: Path, repo: str) -> list[Snapshot]:
    root = repo_directory(cache, repo) / "snapshots"
    found: list[Snapshot] = []
    for directory in sorted(root.iterdir()) if root.is_dir() else ():
        files = tuple(
            sorted(entry.relative_to(directory).as_posix() for entry in directory.rglob("*") if entry.is_file())
        )
        if files:
            found.append(Snapshot(repo=repo, commit=directory.name, path=directory, files=files))
    return found


def _ref(directory: Path, revision: str) -> str | None:
    try:
        return ids.inside(directory / "refs", *revision.split("/")).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _has_all_shards(snapshot: Snapshot) -> bool:
    if "model.safetensors" in snapshot.files:
        return True
    if "model.safetensors.index.json" not in snapshot.files:
        return False
    shards = index_shards(snapshot.path / "model.safetensors.index.json")
    return bool(shards) and shards.issubset(snapshot.files)


def index_shards(path: Path) -> set[str]:
    """File names in the weight map of a safetensors index; empty when it cannot be read."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return set()
        weight_map = json.loads(path.read_bytes())["weight_map"]
        return {str(file) for file in weight_map.values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return set()
