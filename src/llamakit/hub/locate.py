"""From a name to files on this machine, with the recipe that lies on top; or the command that gets them.

Reads, never downloads: `download.pull` does that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import cache, catalog, embedded, names, store
from llamakit.hub.modelfile import Modelfile, merged
from llamakit.hub.names import ModelRef
from llamakit.hub.parts import all_parts, missing_parts, models_among

MAX_RECIPE_DEPTH = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Located(os.PathLike[str]):
    """A model whose files are here; usable wherever a path is."""

    ref: ModelRef
    """What was asked for."""
    path: Path
    """Directory (safetensors, Meta) or GGUF file."""
    repo: str | None = None
    """The repository it came from, where it lies in the hub's cache."""
    recipe: Modelfile | None = None
    """What a created model adds: system text, parameters, adapters, messages; merged over its bases."""
    prompt_format: str | None = None
    """The format that the catalog, or the card of an embedded model, gives it or its base; None where neither does."""

    def __fspath__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Present:
    """One line of `llama list`."""

    name: str
    source: str
    """embedded, created, or the repository."""
    format: str
    """safetensors, a GGUF quantisation, pth, or what a recipe is made from."""
    size_bytes: int
    modified: datetime
    path: Path


def resolve_model(name: str, *, home: Path | None = None, hub: Path | None = None, paths: bool = True) -> Located:
    """The files of the model that `name` says; raises `UnknownModel` with the command that gets them.

    `home` is the data directory, `hub` the hub's cache; both have their usual places by default.
    """
    home = data_home() if home is None else home
    hub = cache.hub_cache() if hub is None else hub
    return _locate(names.resolve(name, home=home, paths=paths), home, hub, depth=0)


def locate(ref: ModelRef, *, home: Path | None = None, hub: Path | None = None) -> Located:
    """The same for a reference."""
    return _locate(ref, data_home() if home is None else home, cache.hub_cache() if hub is None else hub, depth=0)


def present(*, home: Path, hub: Path) -> list[Present]:
    """Every model on this machine: those of the package, created ones, and the hub's cache."""
    lines = [_embedded_line(name) for name in embedded.names()]
    lines += [_created_line(home, name) for name in store.names(home)]
    seen = {line.name for line in lines}
    for snapshot in cache.snapshots(hub):
        for line in _snapshot_lines(snapshot):
            # Two copies of one model (official and mirror) are told apart by their repositories.
            lines.append(replace(line, name=f"{snapshot.repo}@{snapshot.commit[:12]}") if line.name in seen else line)
            seen.add(line.name)
    return lines


def pull_command(ref: ModelRef) -> str:
    """The command that gets a model."""
    return f"llama pull {ref.name}"


def _locate(ref: ModelRef, home: Path, hub: Path, *, depth: int) -> Located:
    match ref.source:
        case "created":
            return _created(ref, home, hub, depth)
        case "embedded":
            assert ref.path is not None, ref
            named = embedded.card(ref.path).get("prompt_format")
            return Located(ref=ref, path=ref.path, prompt_format=named if isinstance(named, str) else None)
        case "path":
            assert ref.path is not None, ref
            return Located(ref=ref, path=_open_path(ref.path))
        case "hub":
            path, repo = _in_cache(ref, hub)
            return Located(ref=ref, path=path, repo=repo, prompt_format=ref.model.prompt_format if ref.model else None)


def _created(ref: ModelRef, home: Path, hub: Path, depth: int) -> Located:
    if depth == MAX_RECIPE_DEPTH:
        raise InvalidRequest(f"{ref.name} is built on itself, or on more than {MAX_RECIPE_DEPTH} created models")
    created = store.load(home, ref.name)
    base = _locate(names.resolve(created.recipe.base, home=home), home, hub, depth=depth + 1)
    recipe = merged(base.recipe, created.recipe) if base.recipe else created.recipe
    return replace(base, ref=replace(ref, model=base.ref.model), recipe=recipe)


def _open_path(path: Path) -> Path:
    """A directory that holds one GGUF file and nothing else to open means that file."""
    if path.is_dir() and not any((path / mark).is_file() for mark in ("config.json", "params.json")):
        ggufs = sorted(file.name for file in path.glob("*.gguf"))
        models = models_among(ggufs)
        if len(models) > 1:
            raise InvalidRequest(f"{path} holds {len(models)} GGUF models; name one: {', '.join(models[:4])}")
        if ggufs and not models:
            raise InvalidRequest(f"{path} holds a GGUF model in parts and lacks {', '.join(missing_parts(ggufs)[:4])}")
        if models:
            return path / models[0]
    return path


def _in_cache(ref: ModelRef, hub: Path) -> tuple[Path, str]:
    """What to open, and the repository it belongs to."""
    if ref.model is not None and ref.model.not_yet is not None:
        raise UnknownModel(f"{ref.name} is known but cannot run here: {ref.model.not_yet}", name=ref.name)
    repos = ref.repos if ref.quant or ref.model is None or ref.model.gguf is None else (*ref.repos, ref.model.gguf)
    partial = None
    for repo in dict.fromkeys(repos):
        snapshot = cache.find_snapshot(hub, repo, ref.revision)
        if snapshot is None:
            continue
        if ref.quant is not None:
            files = cache.pick_gguf(snapshot.gguf_models, ref.quant)
            if files:
                return snapshot.path / files[0], repo
        elif snapshot.has_safetensors:
            return snapshot.path, repo
        elif snapshot.original is not None:
            return snapshot.original, repo
        elif len(snapshot.gguf_models) == 1:
            return snapshot.path / snapshot.gguf_models[0], repo
        elif snapshot.gguf_models:
            quants = ", ".join(f"{repo}:{cache.quant_of(file) or file}" for file in snapshot.gguf_models)
            raise InvalidRequest(f"{ref.name}: several GGUF files are here, say which: {quants}")
        partial = snapshot
    if partial is not None:
        raise UnknownModel(f"{ref.name} is here in part only. Get the rest with `{pull_command(ref)}`", name=ref.name)
    raise UnknownModel(f"{ref.name} is not on this machine. Get it with `{pull_command(ref)}`", name=ref.name)


def _embedded_line(name: str) -> Present:
    path = embedded.ROOT / name
    size = sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    modified = datetime.fromtimestamp((path / "config.json").stat().st_mtime, UTC)
    return Present(name=name, source="embedded", format="safetensors", size_bytes=size, modified=modified, path=path)


def _created_line(home: Path, name: str) -> Present:
    path = store.path_of(home, name)
    try:
        made_of = f"from {store.load(home, name).recipe.base}"
    except InvalidRequest:
        # One damaged file must not hide the others; using it says what is wrong with it.
        made_of = "damaged"
    info = path.stat()
    modified = datetime.fromtimestamp(info.st_mtime, UTC)
    return Present(name=name, source="created", format=made_of, size_bytes=info.st_size, modified=modified, path=path)


def _snapshot_lines(snapshot: cache.Snapshot) -> list[Present]:
    model = catalog.find(snapshot.repo)
    rows: list[tuple[str, str, int, Path]] = []
    if snapshot.has_safetensors:
        rows.append((model.name if model else snapshot.repo, "safetensors", snapshot.size_bytes(), snapshot.path))
    elif snapshot.original is not None:
        rows.append((model.name if model else snapshot.repo, "pth", snapshot.size_bytes(), snapshot.original))
    for file in snapshot.gguf_models:
        quant = cache.quant_of(file)
        path = snapshot.path / file
        name = f"{snapshot.repo}:{quant}" if quant else str(path)
        if model and quant and model.gguf == snapshot.repo:
            name = names.of_model(model, quant).name
        size = sum((snapshot.path / part).stat().st_size for part in all_parts(file))
        rows.append((name, quant or "gguf", size, path))
    return [
        Present(name=name, source=snapshot.repo, format=kind, size_bytes=size, modified=snapshot.modified(), path=path)
        for name, kind, size, path in rows
    ]
