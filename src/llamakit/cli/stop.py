"""`llama stop`: let the running server unload a model."""

from __future__ import annotations

from typing import Annotated

import typer

from llamakit.cli.running import ask
from llamakit.cli.terminal import say


def command(
    model: Annotated[str, typer.Argument(help="Name as `llama ps` shows it.")],
    host: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the server.")] = None,
) -> None:
    """\b
    llama stop llama3.2:1b
    llama stop cria --port 9000

    Unload a model from the running server; answers that still run are finished first. The server itself is stopped
    with Ctrl-C in its terminal.
    """
    answer = ask("POST", "/v1/llamakit/unload", body={"model": model}, host=host, port=port)
    if answer.get("unloaded"):
        say(f"{model} leaves memory", "good")
    else:
        say(f"{model} was not in memory")
