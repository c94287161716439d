"""`llama convert`: write a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamakit.cli.converting import converted, json_of, say_result
from llamakit.cli.terminal import put_json
from llamakit.core.errors import ConfigError


def command(
    source: Annotated[str, typer.Argument(help="A model on this machine by name, a directory or a .gguf file.")],
    target: Annotated[Path, typer.Argument(help="A new .gguf file, or a new directory for safetensors.")],
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant", "-q", help="For GGUF: f32, f16, bf16, q8_0, q4_0, q4_k_m, ...; for a directory: int8, int4."
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="For a directory: float32, bfloat16 or float16.")] = None,
    name: Annotated[str | None, typer.Option(help="Name to write into a GGUF file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing target.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when done.")] = False,
) -> None:
    """\b
    llama convert llama3.2:1b llama.gguf --quant q4_k_m
    llama convert ./consolidated-dir ./hf-dir --dtype bfloat16

    Convert a checkpoint: from Hugging Face, Meta's .pth or GGUF, to a GGUF file or a Hugging Face directory. The target
    appears whole or not at all.
    """
    result = converted(
        source, target, quantization=quant.lower() if quant else None, dtype=_dtype(dtype), name=name, force=force
    )
    if as_json:
        put_json(json_of(result))
    say_result(result)


def _dtype(text: str | None):
    if text is None:
        return None
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known |= {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    if text.lower() not in known:
        raise ConfigError(f"no dtype {text!r}; there are float32, bfloat16 and float16")
    return known[text.lower()]
