"""A located model put together: load, choose dtype, format, context and cache.

The only place that knows files, text and tensors at once; it puts the parts together and forgets them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from llamakit.checkpoints.adapter import merge_adapter
from llamakit.checkpoints.load import STORED, Loaded, load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Generation, TokenizerSource
from llamakit.core.errors import ConfigError, InvalidRequest
from llamakit.core.messages import Message, TextPart
from llamakit.engine.cache import kv_dtype, token_bytes
from llamakit.engine.config import EngineConfig, SpeculationConfig
from llamakit.engine.engine import Engine
from llamakit.hub.locate import Located, resolve_model
from llamakit.kernels.grouped import has_kernels
from llamakit.kernels.large_pages import settle
from llamakit.models.llama import Llama
from llamakit.quant.convert import quantize, weight_tensors
from llamakit.quant.fused import fuse
from llamakit.runtime.memory import available_bytes, plan_cache
from llamakit.runtime.opening import LoadOptions, Opened
from llamakit.runtime.packing import load_quantized
from llamakit.text.formats.format import PromptFormat
from llamakit.text.formats.resolve import detect_format, resolve_format
from llamakit.text.kept_tokenizer import load_kept
from llamakit.text.tokenizer import Tokenizer, load_tokenizer

_ROOM = 1 << 30
"""Memory left to everybody else when file pages are replaced by our own."""
_SETTLES_AFTER_S = 1.0
"""Time for the first tokens."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def assemble(
    located: Located,
    options: LoadOptions,
    *,
    tokenizer: Tokenizer | None = None,
    shown: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Opened:
    """The running model of what was located; raises CheckpointError or ConfigError.

    `tokenizer` is that of the directory itself, where it has been read. `shown` is the name in messages to clients.
    """
    device = _device(options.device)
    torch.set_num_threads(options.threads or psutil.cpu_count(logical=False) or 1)
    loaded = _load(located, options, device, progress)
    if tokenizer is None or loaded.tokenizer_source != located.path:
        tokenizer = _tokenizer(loaded.tokenizer_source, located)
    model = loaded.model
    recipe = located.recipe
    context = options.context or (recipe.context if recipe is not None else None)
    draft = _draft(options.draft, model, device) if options.draft is not None else None
    per_token = token_bytes(model.config, kv_dtype(options.kv, model.dtype))
    plan = plan_cache(
        model.config,
        token_bytes=per_token,
        available=_available(device),
        context=context,
        cache_bytes=options.cache_bytes,
    )
    engine = Engine(
        model,
        EngineConfig(
            max_sequences=options.max_sequences,
            max_context=plan.context,
            cache_bytes=plan.cache_bytes,
            kv=options.kv,
            speculation=SpeculationConfig() if options.speculation else SpeculationConfig(max_tokens=0),
        ),
        draft=draft,
    )
    defaults = _defaults(loaded.generation)
    if recipe is not None:
        defaults |= recipe.sampling()
    return Opened(
        name=shown or located.ref.name,
        path=located.path,
        model=model,
        engine=engine,
        tokenizer=tokenizer,
        prompt_format=_format(options, located, loaded, tokenizer),
        metadata=loaded.metadata,
        context=plan.context,
        cache_bytes=plan.cache_bytes,
        token_bytes=per_token,
        stop_ids=frozenset(loaded.generation.eos_ids) | frozenset(tokenizer.eos_ids),
        sampling_defaults=defaults,
        prelude=_prelude(located),
    )


def best_dtype(stored: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in for weights stored as `stored`: float32 stays, the rest goes to the fastest half."""
    if stored.upper() == "F32":
        return torch.float32
    if device.type != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _load(
    located: Located, options: LoadOptions, device: torch.device, progress: Callable[[int, int], None] | None
) -> Loaded:
    with open_checkpoint(located.path) as reader:
        stored, integers = reader.metadata().quantization, reader.is_quantized()
    dtype = best_dtype(stored, device) if options.dtype == "auto" else _DTYPES[options.dtype]
    adapters = located.recipe.adapters if located.recipe is not None else ()
    scheme: str | None = None if options.quantize in ("auto", "none") else options.quantize
    # An adapter is merged into plain numbers; without compiled kernels, too, those are the faster way.
    if options.quantize == "auto" and integers and device.type == "cpu" and not adapters and has_kernels():
        scheme = STORED
    if scheme is not None and device.type == "cpu" and not adapters:
        loaded = load_quantized(located.path, scheme, dtype, progress)
    else:
        loaded = load_model(located.path, dtype=dtype, device=device, progress=progress)
        for adapter in adapters:
            merge_adapter(loaded.model, Path(adapter))
        if scheme is not None:
            quantize(loaded.model, scheme)
    fuse(loaded.model)
    _settle(loaded.model)
    return loaded


def _settle(model: Llama) -> None:
    """Have the weights moved into large pages where there is room: shared pages of a file become our own."""
    tensors = list(weight_tensors(model))
    if available_bytes() > sum(t.numel() * t.element_size() for t in tensors) + _ROOM:
        settle(tensors, after_s=_SETTLES_AFTER_S)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is usable here; leave device at auto, or install a CUDA build of torch")
    return device


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_bytes()


def _draft(name: str, target: Llama, device: torch.device) -> Llama:
    draft = load_model(resolve_model(name).path, dtype=target.dtype, device=device).model
    if draft.config.vocab_size != target.config.vocab_size:
        raise ConfigError(
            f"the draft model {name} has {draft.config.vocab_size} tokens, the model {target.config.vocab_size}; "
            "they must share one vocabulary"
        )
    return draft


def _tokenizer(source: TokenizerSource, located: Located) -> Tokenizer:
    if source is None:
        raise InvalidRequest(
            f"{located.path} has no tokenizer; put tokenizer.json or tokenizer.model beside the weights"
        )
    return load_kept(source) if isinstance(source, Path) else load_tokenizer(source)


def _format(options: LoadOptions, located: Located, loaded: Loaded, tokenizer: Tokenizer) -> PromptFormat:
    name = options.prompt_format or located.prompt_format
    if name is None:
        name = detect_format(
            tokenizer, name=located.ref.name, chat_template=loaded.metadata.chat_template, config=loaded.model.config
        )
    return resolve_format(name, tokenizer)


def _defaults(generation: Generation) -> dict[str, Any]:
    fields = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
        "repetition_penalty": generation.repetition_penalty,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _prelude(located: Located) -> tuple[Message, ...]:
    if located.recipe is None:
        return ()
    start = [("system", located.recipe.system)] if located.recipe.system is not None else []
    turns = [*start, *located.recipe.messages]
    return tuple(
        dataclasses.replace(Message(role="user"), role=role, content=(TextPart(text=text),))  # type: ignore[arg-type]
        for role, text in turns
    )
