"""From a name to a running engine: what can be chosen, what comes out, and the order in which a start does things.

PyTorch takes longer to import than everything else together. So this module does not import it: its library is linked
in a thread, the tokenizer is read beside that, and `assembly` puts the parts together when PyTorch is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llamakit.core.errors import LlamakitError
from llamakit.core.messages import Message
from llamakit.hub.locate import Located, resolve_model
from llamakit.runtime.quick_import import link_torch, unswept
from llamakit.text.formats.format import PromptFormat
from llamakit.text.kept_tokenizer import load_kept
from llamakit.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llamakit.checkpoints.reader import Metadata
    from llamakit.engine.engine import Engine
    from llamakit.models.llama import Llama
    from llamakit.runtime.prompting import Prompter


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """How a model is loaded; every default is chosen from the checkpoint and the machine."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of weights and computation; auto is bfloat16 where the processor computes in it, else float32."""
    quantize: Literal["auto", "none", "int8", "int4"] = "auto"
    """Pack the matrices to 8 or 4 bits as they are read; auto uses those of a quantized checkpoint as it stores them
    and leaves others alone, none computes with plain numbers in any case."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes a CUDA device if there is one."""
    threads: int | None = None
    """Threads to compute with; None is one a physical core."""
    context: int | None = None
    """Most tokens of prompt and answer; None is the model's own, as far as memory holds it."""
    cache_bytes: int | None = None
    """Bytes for keys and values; None takes a share of what is free."""
    kv: Literal["auto", "int8"] = "auto"
    """How keys and values are kept: auto in the dtype of computation, int8 in half of that, for long contexts."""
    prompt_format: str | None = None
    """Name of the prompt format, where the checkpoint's own is not recognised."""
    speculation: bool = True
    """Propose tokens from the text itself; switches itself off where it does not pay."""
    draft: str | None = None
    """A smaller model with the same vocabulary that proposes tokens."""
    max_sequences: int = 64
    """Sequences computed together."""


@dataclass(kw_only=True)
class Opened:
    """The parts of a loaded model."""

    name: str
    path: Path
    model: Llama
    engine: Engine
    tokenizer: Tokenizer
    prompt_format: PromptFormat
    metadata: Metadata
    context: int
    cache_bytes: int
    token_bytes: int
    """Of keys and values, over all layers."""
    stop_ids: frozenset[int]
    sampling_defaults: dict[str, Any]
    prelude: tuple[Message, ...]
    """What every conversation with a created model begins with."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights, packed ones included."""
        from llamakit.quant.convert import packed_bytes

        return sum(p.numel() * p.element_size() for p in self.model.parameters()) + packed_bytes(self.model)


def open_model(
    name: str,
    options: LoadOptions,
    *,
    shown: str | None = None,
    paths: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Opened:
    """Load the model that `name` says; raises UnknownModel, CheckpointError or ConfigError.

    `shown` is the name in messages to clients. `paths=False` takes no path of the file system as a name.
    """
    link_torch()
    located = resolve_model(name, paths=paths)
    tokenizer = _early_tokenizer(located)
    with unswept():
        from llamakit.runtime.assembly import assemble
    return assemble(located, options, tokenizer=tokenizer, shown=shown, progress=progress)


def open_text(located: Located, options: LoadOptions, *, shown: str | None = None) -> Prompter:
    """What makes prompts for a located model, without its weights; raises CheckpointError or InvalidRequest."""
    link_torch()
    with unswept():
        from llamakit.runtime.assembly import assemble_text
    return assemble_text(located, options, shown=shown)


def _early_tokenizer(located: Located) -> Tokenizer | None:
    """The tokenizer beside the weights; None leaves it, and any fault of it, to who reads the checkpoint."""
    try:
        return load_kept(located.path) if located.path.is_dir() else None
    except (LlamakitError, OSError):
        return None
