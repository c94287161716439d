"""`llama quantize`: write a checkpoint with smaller weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamakit.cli.converting import converted, json_of, say_result
from llamakit.cli.terminal import put_json


def command(
    source: Annotated[str, typer.Argument(help="A model on this machine by name, a directory or a .gguf file.")],
    target: Annotated[Path, typer.Argument(help="A new .gguf file, or a new directory for packed weights.")],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="For a .gguf: q4_0, q4_k_m, q5_k_m, q6_k, q8_0; for a directory: int4, int8. "
            "By default q4_k_m and int4.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name to write into a GGUF file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when done.")] = False,
) -> None:
    """\b
    llama quantize llama3.2:1b llama-int4
    llama quantize ./hf-dir llama.gguf --to q4_0

    Write a checkpoint with weights of 4 to 8 bits: a GGUF file, for every program that reads those, or a directory of
    packed weights, which this package maps into memory and starts at once. The target appears whole or not at all.
    What a quantization costs, `llama eval quant` measures.
    """
    is_file = target.suffix == ".gguf"
    quantization = (to or ("q4_k_m" if is_file else "int4")).lower()
    result = converted(source, target, quantization=quantization, name=name, force=force)
    if as_json:
        put_json(json_of(result) | {"quantization": quantization})
    say_result(result)
