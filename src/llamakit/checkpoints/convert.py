"""One checkpoint format -> another: any readable source to a GGUF file or a directory, plain or packed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from llamakit.checkpoints.gguf_recipes import QUANTIZATIONS, Quantization
from llamakit.checkpoints.gguf_write import save_gguf
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.packed_write import save_packed_directory
from llamakit.checkpoints.reader import Reader
from llamakit.checkpoints.save import save_hf
from llamakit.checkpoints.weights import Progress
from llamakit.core.errors import ConfigError, TokenizerError
from llamakit.quant.schemes import SCHEMES
from llamakit.text.gguf_tokenizer import GgufTokenizer, fields_of
from llamakit.text.gguf_vocab import TokenizerFields
from llamakit.text.spm import NORMAL
from llamakit.text.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What was written, and what the source did not have for it."""

    path: Path
    notes: tuple[str, ...]
    has_template: bool
    """Whether the result says by itself how its prompts look."""


def convert(
    source: str | Path,
    target: str | Path,
    *,
    quantization: str | None = None,
    dtype: torch.dtype | None = None,
    name: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Converted:
    """Write the checkpoint at `source` as `target`: a GGUF file if it ends in .gguf, else a directory.

    `quantization` is a recipe of GGUF for a file, or a scheme of `quant.schemes` for a directory of packed weights;
    `dtype` is for directories of plain ones. The target appears whole or not at all; an existing
    one is replaced only with `force`. Raises `CheckpointError` for a bad source, `ConfigError` for a bad wish.
    """
    target = Path(target)
    to_gguf = target.suffix == ".gguf"
    if to_gguf and dtype is not None:
        raise ConfigError("a GGUF's precision is chosen by quantization (f32, f16, bf16, q8_0, ...), not by dtype")
    recipe = None if quantization is None else _checked(quantization, target, to_gguf, dtype)
    with open_checkpoint(source) as reader:
        template = reader.metadata().chat_template
        notes = _notes(reader, template, quantization)
        if to_gguf:
            save_gguf(
                reader,
                reader.config(),
                target,
                quantization=recipe,
                generation=reader.generation(),
                tokenizer=_fields(reader),
                chat_template=template,
                name=name or reader.metadata().name,
                force=force,
                progress=progress,
            )
        elif quantization is not None:
            save_packed_directory(reader, target, quantization, force=force, progress=progress)
        else:
            save_hf(
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
    return Converted(path=target, notes=notes, has_template=template is not None)


def _checked(quantization: str, target: Path, to_gguf: bool, dtype: torch.dtype | None) -> Quantization | None:
    """The recipe of GGUF with this name, or None for a scheme of packed directories; refuses what does not fit."""
    recipe: Quantization | None = next((known for known in QUANTIZATIONS if known == quantization), None)
    if recipe is None and quantization not in SCHEMES:
        known = f"{', '.join(QUANTIZATIONS)} (GGUF) and {', '.join(SCHEMES)} (a directory of packed weights)"
        raise ConfigError(f"no quantization {quantization!r}; there are {known}")
    if to_gguf and recipe is None:
        raise ConfigError(
            f"{target}: {quantization} is written as a directory; leave out .gguf, or choose q4_0 or q8_0"
        )
    if not to_gguf and recipe is not None:
        raise ConfigError(
            f"{target}: {quantization} is written as GGUF; name the target *.gguf, or choose int4 or int8"
        )
    if recipe is None and dtype is not None:
        raise ConfigError(f"{quantization} decides how weights are stored; leave out the dtype")
    return recipe


def _fields(reader: Reader) -> TokenizerFields | None:
    source = reader.tokenizer_source()
    if not isinstance(source, Path):
        return source
    tokenizer = load_tokenizer(source)
    if not isinstance(tokenizer, GgufTokenizer):
        raise TokenizerError(f"{source}: a tokenizer of kind {tokenizer.kind!r} has no GGUF form")
    return _with_scores(fields_of(tokenizer, size=max(tokenizer.vocab_size, reader.config().vocab_size)))


def _with_scores(fields: TokenizerFields) -> TokenizerFields:
    """Scores for a SentencePiece vocabulary that came without (from a tokenizer.json): later pieces are worse.

    SentencePiece itself numbers BPE pieces in the order in which they were learned and scores them so.
    """
    if fields.scores is None or any(fields.scores):
        return fields
    kinds = fields.token_types or [NORMAL] * len(fields.tokens)
    ranks = itertools.count()
    return replace(fields, scores=[-float(next(ranks)) if kind == NORMAL else 0.0 for kind in kinds])


def _notes(reader: Reader, template: str | None, quantization: str | None) -> tuple[str, ...]:
    notes = []
    if reader.is_quantized() and quantization not in (None, "f32", "f16", "bf16"):
        notes.append(f"{reader.path} is quantized already; rounding again loses more than rounding the original once")
    if reader.tokenizer_source() is None:
        notes.append(f"{reader.path} has no tokenizer, so the result has none: text cannot be encoded with it alone")
    elif template is None:
        notes.append(f"{reader.path} has no chat template, so the result has none")
    return tuple(notes)
