"""Every way to say a model, resolved to one reference; knows spellings, not what is on the disk.

In order: `cria` (comes with the package) · a created model · a path that begins with `./`, `../`, `/` or `~`, or
that exists and looks like a checkpoint · `hf.co/owner/repo:quant@revision` or `owner/repo` · a name of the catalog
in any of its spellings, with a GGUF quantisation after it if wanted (`llama3.2:1b-instruct-q4_K_M`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import catalog, embedded, ids, store
from llamakit.hub.catalog import Model

Source = Literal["embedded", "created", "path", "hub"]

_HUB_PREFIX = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/|hf://", re.IGNORECASE)
_QUANT_SUFFIX = re.compile(r"(.+?)[-:]((?:i?q\d|bf16|fp?16|fp?32)\w*)", re.IGNORECASE)
_MARKS = ("config.json", "params.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRef:
    """What a name means."""

    name: str
    """The name to show and to type again."""
    source: Source
    path: Path | None = None
    """Directory or file, for embedded models and paths."""
    repos: tuple[str, ...] = ()
    """Hub repositories that hold it, the one to pull from first."""
    quant: str | None = None
    """Wanted GGUF quantisation, as file names spell it."""
    revision: str | None = None
    model: Model | None = None
    """Its row in the catalog, if it has one."""


def resolve(name: str, *, home: Path, paths: bool = True) -> ModelRef:
    """The reference `name` stands for; raises `UnknownModel` or `InvalidRequest`.

    `paths=False` takes no file-system path, for names that come from elsewhere than the person at this machine.
    """
    text = name.strip()
    if not text or len(text) > 1024 or not text.isprintable():
        raise InvalidRequest(f"a model name is 1 to 1024 printable characters, got {name!r}")
    if (directory := embedded.find(text)) is not None:
        return ModelRef(name=directory.name, source="embedded", path=directory)
    if store.has(home, text):
        return ModelRef(name=text.removesuffix(":latest"), source="created")
    if _looks_like_path(text):
        if not paths:
            raise UnknownModel(f"no model {name!r}: models are asked for by name here, not by path", name=name)
        return _path(text)
    if _HUB_PREFIX.match(text):
        return _repo(_HUB_PREFIX.sub("", text, count=1), text)
    if paths and _is_checkpoint(Path(text)):
        return _path(text)
    if (ref := _catalogued(text)) is not None:
        return ref
    if "/" in text:
        return _repo(text, text)
    raise unknown(text, home)


def unknown(name: str, home: Path) -> UnknownModel:
    """The error for a name nobody knows, with the nearest known ones."""
    close = nearest_names(name, [*embedded.names(), *store.names(home), *catalog.aliases()])
    hint = f"; nearest: {', '.join(close)}" if close else ""
    return UnknownModel(
        f"no model {name!r}{hint}. `llama list --all` shows every known name; "
        "a repository is owner/name, a file or directory starts with ./",
        name=name,
    )


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names close to `name`, one spelling a model."""
    matches = difflib.get_close_matches(name.lower(), list(known), 12, 0.6)
    shown: list[str] = []
    for match in matches:
        model = catalog.find(match)
        canonical = model.name if model else match
        if canonical not in shown:
            shown.append(canonical)
    return shown[:3]


def of_model(model: Model, quant: str | None = None) -> ModelRef:
    """The reference of a catalog row, or of a GGUF file of it; raises `UnknownModel` without such a repository."""
    if quant is None:
        return ModelRef(name=model.name, source="hub", repos=model.repos, model=model)
    if model.gguf is None:
        raise UnknownModel(
            f"no GGUF repository of {model.name} is known; name one as hf.co/owner/repo:{quant}", name=model.name
        )
    return ModelRef(name=f"{model.name}-{quant.lower()}", source="hub", repos=(model.gguf,), quant=quant, model=model)


def _catalogued(text: str) -> ModelRef | None:
    if (model := catalog.find(text)) is not None:
        if text.lower() in (repo.lower() for repo in (*model.repos, model.gguf) if repo):
            return _repo(text, text)
        return of_model(model)
    match = _QUANT_SUFFIX.fullmatch(text)
    if match and "/" not in text and (model := catalog.find(match[1])) is not None:
        return of_model(model, canonical_quant(match[2]))
    return None


def canonical_quant(text: str) -> str:
    """A quantisation as GGUF files spell it: `q4_k_m` and `Q4_K_M` are one, `fp16` is F16."""
    return text.upper().replace("FP16", "F16").replace("FP32", "F32")


def _repo(text: str, spelled: str) -> ModelRef:
    rest, at, revision = text.partition("@")
    repo, colon, quant = rest.partition(":")
    repo = repo.strip("/")
    if not ids.is_repo(repo):
        raise InvalidRequest(f"a hub model is owner/name, owner/name:quant or owner/name@revision, got {spelled!r}")
    if colon and not ids.is_quant(quant):
        raise InvalidRequest(f"after ':' comes a GGUF quantisation such as Q4_K_M, got {quant!r} in {spelled!r}")
    model = catalog.find(repo)
    # The catalog's spelling of a known repository wins: the cache's directories distinguish upper and lower case.
    known = next((r for r in (*model.repos, model.gguf) if r and r.lower() == repo.lower()), repo) if model else repo
    return ModelRef(
        name=known + (f":{canonical_quant(quant)}" if colon else "") + (f"@{revision}" if at else ""),
        source="hub",
        repos=(known,),
        quant=canonical_quant(quant) if colon else None,
        revision=ids.check_revision(revision) if at else None,
        model=model,
    )


def _path(text: str) -> ModelRef:
    path = Path(text).expanduser()
    if not path.exists():
        raise UnknownModel(f"no file or directory {text!r}", name=text)
    return ModelRef(name=text, source="path", path=path)


def _looks_like_path(text: str) -> bool:
    return text.startswith(("./", "../", "/", "~", ".\\", "..\\")) or text in (".", "..")


def _is_checkpoint(path: Path) -> bool:
    """Whether something exists there that can be opened: a GGUF file, or a directory with a model's marks."""
    if path.suffix == ".gguf":
        return path.is_file()
    return path.is_dir() and (any((path / mark).is_file() for mark in _MARKS) or any(path.glob("*.gguf")))
