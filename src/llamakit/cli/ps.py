"""`llama ps`: the models that the running server has in memory."""

from __future__ import annotations

from typing import Annotated

import typer

from llamakit.cli.running import ask
from llamakit.cli.terminal import put_json, put_table, say, size


def command(
    host: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the server.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """\b
    llama ps
    llama ps --port 9000 --json

    List the models that the running server has in memory, and when each one leaves.
    """
    models = ask("GET", "/v1/llamakit/ps", host=host, port=port)["models"]
    if as_json:
        put_json(models)
        return
    if not models:
        say("The server runs and has no model in memory; the first request loads one.")
        return
    rows = [
        (
            str(model["model"]),
            size(int(model["memory_bytes"])),
            f"{model['context_length']:,}",
            str(model["device"]),
            str(model["running"]),
            "in use"
            if model["running"]
            else "never"
            if model["expires_in_s"] is None
            else f"in {model['expires_in_s']:.0f} s",
        )
        for model in models
    ]
    put_table(("NAME", "MEMORY", "CONTEXT", "DEVICE", "REQUESTS", "LEAVES"), rows)
