"""Models that a person made: recipes kept as JSON in the data directory, one file a model.

`<home>/models/<name>/<tag>.json`. A recipe refers to weights by name or path and never copies them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.core.files import write_durably
from llamakit.hub import ids
from llamakit.hub.modelfile import MAX_BYTES, Modelfile, from_json, to_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """A stored recipe."""

    name: str
    """`name`, or `name:tag` where the tag is not `latest`."""
    recipe: Modelfile
    path: Path


def save(home: Path, name: str, recipe: Modelfile) -> Created:
    """Store a recipe under `name`, replacing an older one; raises `InvalidRequest` for a name that cannot be."""
    path = path_of(home, name)
    write_durably(path, json.dumps(to_json(recipe), indent=2).encode() + b"\n")
    return load(home, name)


def load(home: Path, name: str) -> Created:
    """The recipe stored under `name`; raises `UnknownModel`, or `InvalidRequest` for a damaged file."""
    path = path_of(home, name)
    try:
        if (size := path.stat().st_size) > 4 * MAX_BYTES:
            raise InvalidRequest(f"{path} has {size} bytes; no recipe is that large")
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UnknownModel(f"no created model {name!r}. List them with `llama list`", name=name) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as fault:
        raise InvalidRequest(f"{path} is not JSON ({fault}); create the model again with `llama create`") from fault
    recipe = from_json(data, where=str(path))
    return Created(name=_name(*ids.check_created(name)), recipe=recipe, path=path)


def has(home: Path, name: str) -> bool:
    """Whether a recipe is stored under `name`."""
    return ids.is_created(name) and path_of(home, name).is_file()


def remove(home: Path, name: str) -> None:
    """Forget a recipe; its base stays. Raises `UnknownModel`."""
    path = path_of(home, name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise UnknownModel(f"no created model {name!r}. List them with `llama list`", name=name) from None
    if not any(path.parent.iterdir()):
        shutil.rmtree(path.parent)


def names(home: Path) -> list[str]:
    """Names of all stored recipes, in order."""
    found = (home / "models").glob("*/*.json")
    return sorted(
        _name(file.parent.name, file.stem) for file in found if ids.is_created(f"{file.parent.name}:{file.stem}")
    )


def path_of(home: Path, name: str) -> Path:
    """The file a recipe of that name is kept in; raises `InvalidRequest` for a name that cannot be."""
    stem, tag = ids.check_created(name)
    return ids.inside(home / "models", stem, f"{tag}.json")


def _name(stem: str, tag: str) -> str:
    return stem if tag == "latest" else f"{stem}:{tag}"
