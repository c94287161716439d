"""`llama completion`: the script that teaches a shell to complete this command."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """Shells that can be taught."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"
    powershell = "powershell"


def command(shell: Annotated[Shell, typer.Argument(help="The shell to teach.")]) -> None:
    """\b
    llama completion bash >> ~/.bashrc
    llama completion fish > ~/.config/fish/completions/llama.fish

    Print the completion script of a shell.
    """
    from llamakit.cli.main import app

    # The protocol between a shell and a program of this kind: asked so, the program prints its script.
    os.environ["_LLAMA_COMPLETE"] = f"source_{shell.value}"
    app(args=[], prog_name="llama")
