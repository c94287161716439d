"""`pull`: a model of the hub onto this machine, into the cache every hub program shares.

Description, token and locks are the hub library's; the bytes are `fetch`'s. A model becomes visible only when all
its files are here and verified: blobs first, then the snapshot's links in one move, then the branch's commit.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from llamakit.core.config import Loaded, Secret, Settings, config_path, data_home
from llamakit.core.config import load as load_settings
from llamakit.core.errors import DownloadError, GatedModel, InvalidRequest, LlamakitError, Offline, UnsupportedFormat
from llamakit.core.faults import fault
from llamakit.core.files import sync_directory, write_durably
from llamakit.hub import cache, ids, names, store
from llamakit.hub.fetch import Fetcher, Refused, RemoteFile, describe, hash_file
from llamakit.hub.locate import locate, present
from llamakit.hub.names import ModelRef
from llamakit.hub.remote import TIMEOUT_S, Remote, gate
from llamakit.hub.selection import choose_files

SPARE_BYTES = 64 << 20
"""Disk space that a download leaves free."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a pull is."""

    file: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulled:
    """A finished pull."""

    ref: ModelRef
    repo: str
    commit: str
    path: Path
    """What to open: the snapshot's directory or the GGUF file."""
    files: tuple[str, ...]
    total_bytes: int
    fetched_bytes: int
    """Bytes that came over the network; 0 when everything was here."""
    differs: tuple[str, ...] = ()
    """Files whose digest the hub vouches for but which differ from the one known to the catalog."""


def pull(
    what: ModelRef | str,
    *,
    token: Secret | None = None,
    revision: str | None = None,
    offline: bool | None = None,
    endpoint: str | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    quant: str | None = None,
    original: bool = False,
    mirror: bool = False,
    home: Path | None = None,
    hub: Path | None = None,
) -> Pulled:
    """Have a model's files here, verified; resumes what an earlier pull left.

    `quant` picks a GGUF file, `original` Meta's `.pth` files, `mirror` the copy that asks for no licence form.
    Raises `GatedModel`, `Offline`, `UnknownModel`, `UnsupportedFormat`, or `DownloadError` for everything else.
    """
    home = data_home() if home is None else home
    hub = cache.hub_cache() if hub is None else hub
    loaded = load_settings(Settings, file=config_path(), flags={"endpoint": endpoint, "offline": offline})
    ref = _what(what, home=home, quant=quant, mirror=mirror, original=original)
    if revision is not None:
        ref = replace(ref, revision=ids.check_revision(revision))
    job = _Pull(
        ref=ref,
        repo=_repo_of(ref, original=original),
        original=original,
        hub=hub,
        remote=Remote(endpoint=hub_endpoint(loaded), token=token),
        progress=progress,
    )
    if loaded.value.offline or (offline is None and _env_says_offline()):
        return job.from_cache("the network is switched off (--offline)", home)
    try:
        return job.run()
    except Offline as error:
        return job.from_cache(str(error), home, cause=error)


@dataclass(frozen=True, kw_only=True)
class _Pull:
    ref: ModelRef
    repo: str
    original: bool
    hub: Path
    remote: Remote
    progress: Callable[[Progress], None]

    def run(self) -> Pulled:
        """Describe, choose, fetch, show."""
        described = self.remote.describe(self.ref, self.repo)
        commit = described.commit
        chosen = choose_files(self.repo, list(described.files), quant=self.ref.quant, original=self.original)
        files = [described.files[name] for name in chosen]
        fetched = self._fetch_all(commit, files)
        fault("hub.before_publish")
        snapshot = self._publish(commit, files)
        model = self.ref.model
        known = {file.name: model.sha256(file.name) if model else None for file in files}
        return Pulled(
            ref=self.ref,
            repo=self.repo,
            commit=commit,
            path=_entry(snapshot, chosen),
            files=tuple(chosen),
            total_bytes=sum(file.size for file in files),
            fetched_bytes=fetched,
            differs=tuple(f.name for f in files if len(f.digest) == 64 and known[f.name] not in (None, f.digest)),
        )

    def from_cache(self, why: str, home: Path, cause: Exception | None = None) -> Pulled:
        """What is here already; raises `Offline` naming what else is."""
        try:
            located = locate(self.ref, home=home, hub=self.hub)
        except LlamakitError as missing:
            here = ", ".join(line.name for line in present(home=home, hub=self.hub)) or "no model"
            raise Offline(
                f"{self.ref.name} is not on this machine and {why}. Here now: {here}. "
                f"With a network, run `llama pull {self.ref.name}`"
            ) from (cause or missing)
        assert located.repo is not None, located
        snapshot = cache.find_snapshot(self.hub, located.repo, self.ref.revision)
        assert snapshot is not None, located
        return Pulled(
            ref=self.ref,
            repo=located.repo,
            commit=snapshot.commit,
            path=located.path,
            files=snapshot.files,
            total_bytes=snapshot.size_bytes(),
            fetched_bytes=0,
        )

    def _fetch_all(self, commit: str, files: Sequence[RemoteFile]) -> int:
        """Have every blob in the cache; returns the bytes fetched."""
        import httpx2

        blobs = cache.repo_directory(self.hub, self.repo) / "blobs"
        missing = [file for file in files if not _is_here(blobs / file.digest, file)]
        self._check_space(blobs, missing)
        total = sum(file.size for file in files)
        done = total - sum(file.size - _part_bytes(blobs, file) for file in missing)
        fetched = 0
        with httpx2.Client(timeout=TIMEOUT_S) as client:
            fetcher = Fetcher(client=client, endpoint=self.remote.endpoint, headers=self.remote.headers())
            for file in sorted(missing, key=lambda file: file.size):

                def moved(change: int, name: str = file.name) -> None:
                    nonlocal done
                    done += change
                    self.progress(Progress(file=name, done=done, total=total))

                url = f"{self.remote.endpoint}/{self.repo}/resolve/{commit}/{quote(file.name)}"
                with self._lock(file):
                    if _is_here(blobs / file.digest, file):
                        moved(file.size - _part_bytes(blobs, file))
                        continue
                    try:
                        fetched += fetcher.fetch(url, file, blobs / file.digest, moved)
                    except Refused as refusal:
                        raise self._refused(refusal) from refusal
        return fetched

    def _refused(self, refusal: Refused) -> DownloadError:
        if refusal.code == "GatedRepo" or (refusal.status in (401, 403) and self.ref.model and self.ref.model.official):
            return GatedModel(gate(self.ref, self.repo, self.remote.endpoint))
        return refusal

    @contextmanager
    def _lock(self, file: RemoteFile) -> Iterator[None]:
        """One process at a time fetches a blob; the lock files are the hub library's own."""
        from huggingface_hub.utils import WeakFileLock

        directory = self.hub / ".locks" / cache.repo_directory(self.hub, self.repo).name
        directory.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(directory / f"{file.digest}.lock"):
            yield

    def _check_space(self, blobs: Path, missing: Sequence[RemoteFile]) -> None:
        needed = sum(file.size - _part_bytes(blobs, file) for file in missing)
        blobs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(blobs).free
        if needed and needed + SPARE_BYTES > free:
            raise DownloadError(
                f"{self.ref.name} needs {needed / 1e9:.1f} GB more and {free / 1e9:.1f} GB are free in {self.hub}; "
                "make room (`llama list`, `llama rm`), or set HF_HOME to a larger disk"
            )

    def _publish(self, commit: str, files: Sequence[RemoteFile]) -> Path:
        """Show the snapshot: its links are made aside and moved into place, then the branch is written."""
        root = cache.repo_directory(self.hub, self.repo)
        snapshot = root / "snapshots" / commit
        staging = snapshot.with_name(f".{commit}.{secrets.token_hex(4)}")
        try:
            for file in files:
                _link(root / "blobs" / file.digest, staging / file.name, snapshot / file.name)
            try:
                os.rename(staging, snapshot)
            except OSError:
                # The snapshot is there already, perhaps with other files: add ours one by one, weights last.
                for file in files:
                    (snapshot / file.name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(staging / file.name, snapshot / file.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_directory(snapshot.parent)
        revision = self.ref.revision or "main"
        if revision != commit:
            write_durably(ids.inside(root / "refs", *revision.split("/")), commit.encode())
        return snapshot


def verify(snapshot: cache.Snapshot) -> Iterator[tuple[str, bool]]:
    """Hash every file of a snapshot again; gives its name and whether the bytes match the name of its blob."""
    for name in snapshot.files:
        blob = (snapshot.path / name).resolve()
        file = describe(name, blob.stat().st_size, blob.name if len(blob.name) == 64 else None, blob.name)
        yield name, hash_file(file, blob) == file.digest


def _what(what: ModelRef | str, *, home: Path, quant: str | None, mirror: bool, original: bool) -> ModelRef:
    """The reference to pull, wishes applied."""
    ref = names.resolve(what, home=home) if isinstance(what, str) else what
    if ref.source == "created":
        return _what(store.load(home, ref.name).recipe.base, home=home, quant=quant, mirror=mirror, original=original)
    if ref.source != "hub":
        where = "comes with llamakit" if ref.source == "embedded" else "is on this machine already"
        raise InvalidRequest(f"{ref.name} {where}; there is nothing to pull. Run it with `llama run {ref.name}`")
    model = ref.model
    if quant is not None:
        if not ids.is_quant(quant):
            raise InvalidRequest(f"a GGUF quantisation looks like Q4_K_M, got {quant!r}")
        quant = names.canonical_quant(quant)
        ref = names.of_model(model, quant) if model and ref.name == model.name else replace(ref, quant=quant)
    if mirror:
        if model is None or not model.mirrors:
            raise InvalidRequest(f"no mirror of {ref.name} is known; name a repository as owner/name")
        ref = replace(ref, repos=model.mirrors)
    if model is not None and model.not_yet and ref.name == model.name:
        raise UnsupportedFormat(
            f"{ref.name} is known but cannot run here: {model.not_yet}. "
            f"To have its files anyway: llama pull {ref.repos[0]}"
        )
    if original and ref.quant:
        raise InvalidRequest("--original means Meta's .pth files, a quantisation means a GGUF file; choose one")
    return ref


def _repo_of(ref: ModelRef, *, original: bool) -> str:
    model = ref.model
    if original and model is not None and model.original_repo and ref.name == model.name:
        return model.original_repo
    return ref.repos[0]


def _entry(snapshot: Path, chosen: Sequence[str]) -> Path:
    """What to open of a snapshot: its GGUF file, Meta's folder, or the directory."""
    for name in chosen:
        if name.endswith(cache.GGUF_SUFFIX):
            return snapshot / name
        if name.endswith(".pth"):
            return (snapshot / name).parent
    return snapshot


def _is_here(blob: Path, file: RemoteFile) -> bool:
    return blob.is_file() and blob.stat().st_size == file.size


def _part_bytes(blobs: Path, file: RemoteFile) -> int:
    part = blobs / f"{file.digest}.incomplete"
    return min(part.stat().st_size, file.size) if part.is_file() else 0


def _link(blob: Path, link: Path, final: Path) -> None:
    """A relative link to `blob` that is right once `link` has moved to `final`; a copy where links cannot be."""
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(os.path.relpath(blob, final.parent))
    except OSError:
        shutil.copyfile(blob, link)


def hub_endpoint(loaded: Loaded[Settings]) -> str:
    """The hub to use: our own setting wherever it was made, else the variable that the hub's library obeys."""
    named = os.environ.get("HF_ENDPOINT") if loaded.sources["endpoint"] == "default" else None
    return (named or loaded.value.endpoint).rstrip("/")


def _env_says_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
