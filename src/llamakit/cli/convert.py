"""`llama convert`: write a checkpoint in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llamakit.cli.terminal import put_json, say, size, working
from llamakit.core.errors import ConfigError
from llamakit.hub.locate import resolve_model


def command(
    source: Annotated[str, typer.Argument(help="A model on this machine by name, a directory or a .gguf file.")],
    target: Annotated[Path, typer.Argument(help="A new .gguf file, or a new directory for safetensors.")],
    quant: Annotated[
        str | None, typer.Option("--quant", "-q", help="For GGUF: f32, f16, bf16, q8_0, q4_0, q4_k_m, ...")
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
    located = resolve_model(source)
    if located.recipe is not None and (located.recipe.adapters or located.recipe.system):
        say(f"note: the recipe of {source} (system text, adapters) is not part of the weights and stays behind", "warn")
    from llamakit.checkpoints.convert import convert

    with working(f"converting {located.path} to {target}"):
        converted = convert(
            located.path, target, quantization=_quantization(quant), dtype=_dtype(dtype), name=name, force=force
        )
    written = converted.path
    count = (
        written.stat().st_size if written.is_file() else sum(f.stat().st_size for f in written.iterdir() if f.is_file())
    )
    for note in converted.notes:
        say(f"note: {note}", "warn")
    if as_json:
        put_json({"path": str(written), "size_bytes": count, "notes": list(converted.notes)})
    say(f"wrote {written}, {size(count)}", "good")
    say(f"Next: llama run {written if written.is_absolute() else f'./{written}'}", "faint")


def _quantization(text: str | None):
    if text is None:
        return None
    from typing import get_args

    from llamakit.checkpoints.gguf_recipes import Quantization

    known = get_args(Quantization)
    for choice in known:
        if choice.lower() == text.lower():
            return choice
    raise ConfigError(f"no GGUF quantisation {text!r}; there are {', '.join(known)}")


def _dtype(text: str | None):
    if text is None:
        return None
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    known |= {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    if text.lower() not in known:
        raise ConfigError(f"no dtype {text!r}; there are float32, bfloat16 and float16")
    return known[text.lower()]
