"""A located model put together: load, choose dtype, format, context and cache.

The only place that knows files, text and tensors at once; it puts the parts together and forgets them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from llamakit.checkpoints.adapter import add_adapter
from llamakit.checkpoints.load import STORED, Loaded, load_model
from llamakit.checkpoints.open import open_checkpoint
from llamakit.checkpoints.reader import Metadata, Reader
from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
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
from llamakit.runtime.prompting import Prompter
from llamakit.runtime.text_side import choose_format, default_sampling, prelude_of, read_tokenizer, stop_ids_of
from llamakit.text.tokenizer import Tokenizer

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
    with open_checkpoint(located.path) as reader:
        loaded = _load(_dtype(reader, options, device), reader, located, options, device, progress)
        if tokenizer is None or reader.tokenizer_source() != located.path:
            tokenizer = read_tokenizer(reader, located)
    model = loaded.model
    recipe = located.recipe
    context = options.context or (recipe.context if recipe is not None else None)
    draft = _draft(options.draft, model, options, device) if options.draft is not None else None
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
    return Opened(
        name=shown or located.ref.name,
        path=located.path,
        model=model,
        engine=engine,
        tokenizer=tokenizer,
        prompt_format=choose_format(options.prompt_format, located, tokenizer, loaded.metadata, model.config),
        metadata=loaded.metadata,
        context=plan.context,
        cache_bytes=plan.cache_bytes,
        token_bytes=per_token,
        stop_ids=stop_ids_of(loaded.generation, tokenizer),
        sampling_defaults=default_sampling(loaded.generation, located),
        prelude=prelude_of(located),
    )


def assemble_text(located: Located, options: LoadOptions, *, shown: str | None = None) -> Prompter:
    """What makes prompts for a located model, without its weights; raises CheckpointError or InvalidRequest.

    Its context is the one that the model would get now.
    """
    with open_checkpoint(located.path) as reader:
        config, generation, metadata = reader.config(), reader.generation(), reader.metadata()
        tokenizer = read_tokenizer(reader, located)
    return Prompter(
        shown or located.ref.name,
        tokenizer,
        choose_format(options.prompt_format, located, tokenizer, metadata, config),
        context=_expected_context(located, options, config, metadata),
        stop_ids=stop_ids_of(generation, tokenizer),
        defaults=default_sampling(generation, located),
        prelude=prelude_of(located),
    )


def _expected_context(located: Located, options: LoadOptions, config: ModelConfig, metadata: Metadata) -> int:
    wish = options.context or (located.recipe.context if located.recipe is not None else None)
    if wish is not None:
        return wish
    device = _device(options.device)
    dtype = best_dtype(metadata.quantization, device) if options.dtype == "auto" else _DTYPES[options.dtype]
    try:
        return plan_cache(
            config,
            token_bytes=token_bytes(config, kv_dtype(options.kv, dtype)),
            available=_available(device) - metadata.num_bytes,
            cache_bytes=options.cache_bytes,
        ).context
    except ConfigError:
        return config.context_length  # Loading it will say what is missing.


def best_dtype(stored: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in for weights stored as `stored`: float32 stays, the rest goes to the fastest half."""
    if stored.upper() == "F32":
        return torch.float32
    if device.type != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _dtype(reader: Reader, options: LoadOptions, device: torch.device) -> torch.dtype:
    return best_dtype(reader.metadata().quantization, device) if options.dtype == "auto" else _DTYPES[options.dtype]


def _load(
    dtype: torch.dtype,
    reader: Reader,
    located: Located,
    options: LoadOptions,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Loaded:
    """The weights as the options say, computed with in `dtype`; adapters of the recipe stand beside integers."""
    scheme: str | None = None if options.quantize in ("auto", "none") else options.quantize
    # Without compiled kernels plain numbers are the faster way.
    if options.quantize == "auto" and device.type == "cpu" and reader.is_quantized() and has_kernels():
        scheme = STORED
    if scheme is not None and device.type == "cpu":
        loaded = load_quantized(reader, scheme, dtype, progress)
    else:
        loaded = load_model(reader, dtype=dtype, device=device, progress=progress)
        if scheme is not None:
            quantize(loaded.model, scheme)
    for adapter in located.recipe.adapters if located.recipe is not None else ():
        add_adapter(loaded.model, Path(adapter))
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


def _draft(name: str, target: Llama, options: LoadOptions, device: torch.device) -> Llama:
    located = resolve_model(name)
    with open_checkpoint(located.path) as reader:
        draft = _load(target.dtype, reader, located, options, device).model
    if draft.config.vocab_size != target.config.vocab_size:
        raise ConfigError(
            f"the draft model {name} has {draft.config.vocab_size} tokens, the model {target.config.vocab_size}; "
            "they must share one vocabulary"
        )
    return draft
