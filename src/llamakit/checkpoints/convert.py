"""One checkpoint format -> another: any readable source to a GGUF file or a Hugging Face directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llamakit.checkpoints.gguf_recipes import Quantization
from llamakit.checkpoints.gguf_write import write_gguf
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Reader
from llamakit.checkpoints.save import write_hf
from llamakit.checkpoints.tokenizer_fields import read_fields
from llamakit.checkpoints.weights import Progress
from llamakit.core.errors import ConfigError
from llamakit.text.gguf_vocab import TokenizerFields


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written, and what the source did not have for it."""

    path: Path
    notes: tuple[str, ...]


def convert(
    source: str | Path,
    target: str | Path,
    *,
    quantization: Quantization | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write the checkpoint at `source` as `target`: a GGUF file if it ends in .gguf, else a directory.

    `quantization` is for GGUF, `dtype` for directories. The target appears whole or not at all; an existing
    one is replaced only with `force`. Raises `CheckpointError` for a bad source, `ConfigError` for a bad wish.
    """
    target = Path(target)
    to_gguf = target.suffix == ".gguf"
    if to_gguf and dtype is not None:
        raise ConfigError("a GGUF's precision is chosen by quantization (f32, f16, bf16, q8_0, ...), not by dtype")
    if not to_gguf and quantization is not None:
        raise ConfigError(f"{target}: quantized weights are written as GGUF; name the target *.gguf or choose a dtype")
    with open_checkpoint(source) as reader:
        template = reader.metadata().chat_template
        notes = _notes(reader, template)
        if to_gguf:
            write_gguf(
                reader,
                reader.config(),
                target,
                quantization=quantization,
                generation=reader.generation(),
                tokenizer=_fields(reader),
                chat_template=template,
                name=name or reader.metadata().name,
                force=force,
                progress=progress,
            )
        else:
            write_hf(
                reader,
                reader.config(),
                target,
                dtype=dtype,
                generation=reader.generation(),
                tokenizer=reader.tokenizer_source(),
                chat_template=template,
                force=force,
                progress=progress,
            )
    return Converted(path=target, notes=notes)


def _fields(reader: Reader) -> TokenizerFields | None:
    source = reader.tokenizer_source()
    return read_fields(source) if isinstance(source, Path) else source


def _notes(reader: Reader, template: str | None) -> tuple[str, ...]:
    notes = []
    if reader.tokenizer_source() is None:
        notes.append(f"{reader.path} has no tokenizer, so the result has none: text cannot be encoded with it alone")
    elif template is None:
        notes.append(f"{reader.path} has no chat template, so the result has none")
    return tuple(notes)
