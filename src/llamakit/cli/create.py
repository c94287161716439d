"""`llama create`: keep a Modelfile under a name, so that it runs like any model."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from llamakit.cli.terminal import say
from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import catalog, embedded, names, store
from llamakit.hub.locate import resolve_model
from llamakit.hub.modelfile import MAX_BYTES, Modelfile, parse


def command(
    name: Annotated[str, typer.Argument(help="Name of the new model, lower case: name or name:tag.")],
    file: Annotated[Path, typer.Option("--file", "-f", help="The Modelfile; - reads standard input.")] = Path(
        "Modelfile"
    ),
    base: Annotated[
        str | None, typer.Option("--from", help="Instead of a file: the model or path to build on.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="With --from: its system text.")] = None,
) -> None:
    """\b
    llama create mario -f Modelfile
    llama create mine --from ./my-model.gguf --system "Answer in one sentence."

    Make a model from another one and what every conversation with it begins with. A Modelfile has the lines FROM,
    PARAMETER, SYSTEM, ADAPTER, MESSAGE and LICENSE; weights are referred to, not copied.
    """
    if base is not None:
        recipe, place = Modelfile(base=base, system=system), Path.cwd()
    elif system is not None:
        raise InvalidRequest("--system goes with --from; in a Modelfile, write SYSTEM")
    else:
        recipe, place = _read(file)
    if embedded.find(name) is not None or catalog.find(name) is not None:
        raise InvalidRequest(f"{name} is a model already known; choose another name for yours")
    recipe = dataclasses.replace(
        recipe,
        base=_absolute(recipe.base, place),
        adapters=tuple(_absolute(a, place, always=True) for a in recipe.adapters),
    )
    for adapter in recipe.adapters:
        if not Path(adapter).exists():
            raise InvalidRequest(f"ADAPTER {adapter} does not exist")
    reference = names.resolve(recipe.base, home=data_home())
    created = store.save(data_home(), name, recipe)
    if recipe.set_aside:
        say(f"set aside, they mean nothing here: {', '.join(recipe.set_aside)}", "warn")
    say(f"created {created.name} from {reference.name}", "good")
    try:
        resolve_model(created.name)
    except UnknownModel as missing:
        say(f"note: {missing}", "warn")
        return
    say(f"Next: llama run {created.name}", "faint")


def _read(file: Path) -> tuple[Modelfile, Path]:
    """The recipe, and the directory its relative paths start from."""
    if str(file) == "-":
        return parse(sys.stdin.read(MAX_BYTES + 1), where="standard input"), Path.cwd()
    try:
        if file.stat().st_size > MAX_BYTES:
            raise InvalidRequest(f"{file} is larger than {MAX_BYTES} bytes; is it a Modelfile?")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidRequest(f"no file {file}; write one beginning with FROM, or use --from MODEL") from None
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{file} is not a text file; to build on weights write: llama create NAME --from {file}"
        ) from None
    return parse(text, where=str(file)), file.resolve().parent


def _absolute(text: str, place: Path, *, always: bool = False) -> str:
    """A path as it holds from anywhere; names stay names."""
    is_path = always or text.startswith(("./", "../", "~", "/")) or text.endswith(".gguf") or (place / text).is_dir()
    if not is_path or text.startswith(("hf.co/", "http", "hf://")):
        return text
    return str((place / Path(text).expanduser()).resolve())
