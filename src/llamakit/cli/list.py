"""`llama list`: the models on this machine, or every model the catalog knows."""

from __future__ import annotations

from typing import Annotated

import typer

from llamakit.cli.terminal import ago, put, put_json, put_table, say, size
from llamakit.core.config import data_home
from llamakit.hub import cache, catalog, embedded
from llamakit.hub.locate import present


def command(
    every: Annotated[bool, typer.Option("--all", "-a", help="Every known model, here or not.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print names only.")] = False,
) -> None:
    """\b
    llama list
    llama list --all --json

    List the models on this machine: those of the package, created ones, and the Hugging Face cache.
    """
    if every:
        _known(as_json=as_json, quiet=quiet)
        return
    lines = present(home=data_home(), hub=cache.hub_cache())
    if as_json:
        put_json(
            [
                {
                    "name": line.name,
                    "source": line.source,
                    "format": line.format,
                    "size_bytes": line.size_bytes,
                    "modified": line.modified.isoformat(timespec="seconds"),
                    "path": str(line.path),
                }
                for line in lines
            ]
        )
    elif quiet:
        for line in lines:
            put(line.name)
    elif lines:
        rows = [(line.name, line.source, line.format, size(line.size_bytes), ago(line.modified)) for line in lines]
        put_table(("NAME", "SOURCE", "FORMAT", "SIZE", "MODIFIED"), rows)
    else:
        say("No models are here yet. Get a small one with: llama pull llama3.2:1b")


def _known(*, as_json: bool, quiet: bool) -> None:
    models = catalog.models()
    here = {
        model.name for line in present(home=data_home(), hub=cache.hub_cache()) if (model := catalog.find(line.source))
    }
    if as_json:
        put_json(
            [{"name": name, "source": "embedded", "runs": True, "here": True} for name in embedded.names()]
            + [
                {
                    "name": model.name,
                    "title": model.title,
                    "kind": model.kind,
                    "parameters": model.num_parameters,
                    "context_length": model.context_length,
                    "licence": model.licence.tag,
                    "released": model.released.isoformat(),
                    "descriptors": list(model.descriptors),
                    "repositories": [*model.repos, *([model.gguf] if model.gguf else [])],
                    "runs": model.not_yet is None,
                    "here": model.name in here,
                }
                for model in models
            ]
        )
        return
    if quiet:
        for name in (*embedded.names(), *(model.name for model in models)):
            put(name)
        return
    rows = [(name, "", "", "", "", "yes") for name in embedded.names()]
    for model in models:
        parameters = f"{model.num_parameters / 1e9:.1f} B" if model.num_parameters else ""
        state = "yes" if model.name in here else "" if model.not_yet is None else "later"
        context = f"{model.context_length:,}"
        rows.append(
            (
                model.name,
                model.descriptors[0] if model.descriptors else "",
                parameters,
                context,
                model.licence.tag,
                state,
            )
        )
    put_table(("NAME", "META'S NAME", "PARAMETERS", "CONTEXT", "LICENCE", "HERE"), rows)
    say("\nGet one with: llama pull NAME", "faint")
