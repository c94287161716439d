"""`llama rm`: remove models from this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llamakit.cli.terminal import confirm, is_terminal, say, size
from llamakit.core.config import data_home
from llamakit.core.errors import InvalidRequest, UnknownModel
from llamakit.hub import cache, names, store
from llamakit.hub.names import ModelRef


def command(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names as `llama list` shows them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """\b
    llama rm llama3.2:1b
    llama rm --yes bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M

    Remove models: the files of downloaded ones, the recipe of created ones.
    """
    for model in models:
        remove(model, yes=yes)


def remove(name: str, *, yes: bool) -> None:
    """Remove one model; asks on a terminal unless `yes`."""
    home = data_home()
    ref = names.resolve(name, home=home)
    if ref.source == "embedded":
        raise InvalidRequest(f"{ref.name} is part of llamakit and goes with it: pip uninstall llamakit")
    if ref.source == "path":
        raise InvalidRequest(
            f"{name} is a file of yours; remove it yourself, this command removes what was pulled or created"
        )
    if ref.source == "created":
        if _agreed(f"Forget the created model {ref.name}?", yes):
            store.remove(home, ref.name)
            say(f"removed {ref.name}; what it was made from stays", "good")
        return
    freed = _remove_pulled(ref, yes)
    if freed is not None:
        say(f"removed {ref.name}, {size(freed)} freed", "good")


def _remove_pulled(ref: ModelRef, yes: bool) -> int | None:
    """Bytes freed; None when the person said no."""
    hub = cache.hub_cache()
    for repo in ref.repos:
        snapshot = cache.find_snapshot(hub, repo, ref.revision)
        if snapshot is None:
            continue
        if ref.quant is None:
            question = f"Remove {repo} ({size(snapshot.size_bytes())}) from the cache that other programs may use too?"
            return cache.remove_repo(hub, repo) if _agreed(question, yes) else None
        files = cache.pick_gguf(snapshot.files, ref.quant)
        if files:
            question = f"Remove {', '.join(files)} of {repo}?"
            return cache.remove_files(hub, snapshot, files) if _agreed(question, yes) else None
    raise UnknownModel(f"{ref.name} is not on this machine. See what is: llama list", name=ref.name)


def _agreed(question: str, yes: bool) -> bool:
    if yes or not is_terminal(sys.stdin):
        return True
    return confirm(question, default=False)
