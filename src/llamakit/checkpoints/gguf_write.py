"""Writes GGUF files: metadata, tokenizer, template and tensors, plain or quantized; the inverse of `gguf`."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from llamakit.checkpoints import gguf_blocks as types
from llamakit.checkpoints import names
from llamakit.checkpoints.checked_file import CHUNK_BYTES
from llamakit.checkpoints.gguf import ROPE_DIVISORS, scaling_divisors
from llamakit.checkpoints.gguf_file import DEFAULT_ALIGNMENT, FORMATS, MAGIC, VERSION
from llamakit.checkpoints.gguf_quantize import quantize
from llamakit.checkpoints.gguf_recipes import (
    PLAIN_TYPES,
    QUANTIZATIONS,
    Quantization,
    file_type,
    plain_recipe,
    tensor_type,
)
from llamakit.checkpoints.reader import Generation
from llamakit.checkpoints.safetensors_file import write_bytes
from llamakit.checkpoints.staging import staged_file
from llamakit.checkpoints.weights import Progress, Weights, as_weights, check_weights, natural_dtype
from llamakit.core.errors import CheckpointError, ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.text.gguf_vocab import TokenizerFields

_U32, _F32_VALUE, _BOOL, _STRING, _ARRAY, _I32 = 4, 6, 7, 8, 9, 5


def save_gguf(
    weights: Weights | nn.Module | Mapping[str, Tensor],
    config: ModelConfig,
    path: str | Path,
    *,
    quantization: Quantization | None = None,
    generation: Generation = Generation(),
    tokenizer: TokenizerFields | None = None,
    chat_template: str | None = None,
    name: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a model, tensors under canonical names, or an open checkpoint as one GGUF file.

    One tensor at a time is converted; the file appears whole or not at all.
    `quantization` None keeps the stored precision. Raises `CheckpointError` when values do not fit the type,
    `ConfigError` when `path` exists and `force` is not set.
    """
    weights = as_weights(weights)
    path, infos = Path(path), weights.infos()
    check_weights(infos, config, path)
    if tokenizer is not None and len(tokenizer.tokens) != config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer.tokens)} tokens, the model embeds {config.vocab_size}; "
            "a GGUF wants one entry for each"
        )
    quantization = quantization or plain_recipe(natural_dtype(infos))
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"no quantization {quantization!r}; known are {', '.join(QUANTIZATIONS)}")
    shapes = names.expected_shapes(config)
    kinds = {tensor: tensor_type(tensor, shape, quantization, config) for tensor, shape in shapes.items()}
    divisors = _divisors(config)
    pairs = _metadata(config, quantization, generation, tokenizer, chat_template, name or path.stem)
    with staged_file(path, force=force) as out:
        _write_header(out, pairs, _layout(shapes, kinds, divisors))
        if divisors is not None:
            _write_aligned(out, divisors, types.F32)
        done, total = 0, sum(info.nbytes for info in infos.values())
        for tensor_name in shapes:
            tensor = weights.tensor(tensor_name)
            heads = names.rotary_heads(tensor_name, config)
            try:
                _write_aligned(out, tensor if heads is None else names.to_neighbours(tensor, heads), kinds[tensor_name])
            except CheckpointError as error:
                raise CheckpointError(f"{tensor_name}: {error}") from error
            done += infos[tensor_name].nbytes
            if progress is not None:
                progress(done, total)
    return path


def _divisors(config: ModelConfig) -> Tensor | None:
    if config.rope_divisors is not None:
        return torch.tensor(config.rope_divisors)
    if config.rope_scaling is not None:
        return scaling_divisors(config.rope_scaling, config.head_dim, config.rope_theta).float()
    return None


# Metadata

_Pair = tuple[str, int, object]


def _metadata(
    config: ModelConfig,
    quantization: Quantization,
    generation: Generation,
    tokenizer: TokenizerFields | None,
    chat_template: str | None,
    name: str,
) -> list[_Pair]:
    pairs: list[_Pair] = [
        ("general.architecture", _STRING, "llama"),
        ("general.name", _STRING, name),
        ("general.file_type", _U32, file_type(quantization)),
        ("general.quantization_version", _U32, 2),
        ("llama.context_length", _U32, config.context_length),
        ("llama.embedding_length", _U32, config.dim),
        ("llama.block_count", _U32, config.num_layers),
        ("llama.feed_forward_length", _U32, config.ffn_dim),
        ("llama.attention.head_count", _U32, config.num_heads),
        ("llama.attention.head_count_kv", _U32, config.num_kv_heads),
        ("llama.attention.layer_norm_rms_epsilon", _F32_VALUE, config.norm_eps),
        ("llama.attention.key_length", _U32, config.head_dim),
        ("llama.attention.value_length", _U32, config.head_dim),
        ("llama.rope.dimension_count", _U32, config.head_dim),
        ("llama.rope.freq_base", _F32_VALUE, config.rope_theta),
        ("llama.vocab_size", _U32, config.vocab_size),
    ]
    if tokenizer is not None:
        pairs += _tokenizer_pairs(tokenizer, generation)
    if chat_template is not None:
        pairs.append(("tokenizer.chat_template", _STRING, chat_template))
    return pairs


def _tokenizer_pairs(fields: TokenizerFields, generation: Generation) -> list[_Pair]:
    """Every field that is set; the end ids of the checkpoint fill what the tokenizer leaves open."""
    eos = fields.eos_id if fields.eos_id is not None else next(iter(generation.eos_ids), None)
    bos = fields.bos_id if fields.bos_id is not None else generation.bos_id
    pad = fields.pad_id if fields.pad_id is not None else generation.pad_id
    optional: list[tuple[str, int, object]] = [
        ("pre", _STRING, fields.pre),
        ("scores", _F32_VALUE, fields.scores),
        ("token_type", _I32, fields.token_types),
        ("merges", _STRING, fields.merges),
        ("bos_token_id", _U32, bos),
        ("eos_token_id", _U32, eos),
        ("eot_token_id", _U32, fields.eot_id),
        ("eom_token_id", _U32, fields.eom_id),
        ("unknown_token_id", _U32, fields.unk_id),
        ("padding_token_id", _U32, pad),
        ("add_bos_token", _BOOL, fields.add_bos),
        ("add_space_prefix", _BOOL, fields.add_space_prefix),
    ]
    required: list[tuple[str, int, object]] = [("model", _STRING, fields.model), ("tokens", _STRING, fields.tokens)]
    return [(f"tokenizer.ggml.{key}", kind, value) for key, kind, value in required + optional if value is not None]


# Bytes


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: object) -> bytes:
    if isinstance(value, list):
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_scalar(kind, entry) for entry in value)
    return struct.pack("<I", kind) + _scalar(kind, value)


def _scalar(kind: int, value: object) -> bytes:
    return _string(value) if isinstance(value, str) else struct.pack(FORMATS[kind], value)


_Place = tuple[str, tuple[int, ...], int, int]


def _layout(shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, int], divisors: Tensor | None) -> list[_Place]:
    """Stored name, shape, type and offset of every tensor."""
    entries: list[tuple[str, tuple[int, ...], int]] = []
    if divisors is not None:
        entries.append((ROPE_DIVISORS, tuple(divisors.shape), types.F32))
    for name, shape in shapes.items():
        entries.append((names.translate(name, "hf", "gguf") or name, shape, kinds[name]))
    places: list[_Place] = []
    offset = 0
    for name, shape, kind in entries:
        places.append((name, shape, kind, offset))
        encoding = types.ENCODINGS[kind]
        offset += _padded(math.prod(shape) // encoding.block_values * encoding.block_bytes)
    return places


def _padded(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT


def _write_header(out: BinaryIO, pairs: Iterable[_Pair], places: list[_Place]) -> None:
    pairs = list(pairs)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(places), len(pairs))]
    parts += [_string(key) + _value(kind, value) for key, kind, value in pairs]
    for name, shape, kind, offset in places:
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        parts.append(_string(name) + dims + struct.pack("<IQ", kind, offset))
    header = b"".join(parts)
    out.write(header.ljust(_padded(len(header)), b"\0"))


def _write_aligned(out: BinaryIO, tensor: Tensor, kind: int) -> None:
    start = out.tell()
    for piece in _pieces(tensor):
        if kind in PLAIN_TYPES:
            plain = piece.to(PLAIN_TYPES[kind])
            if kind == types.F16 and not torch.isfinite(plain).all():
                raise CheckpointError("values beyond half precision cannot be stored as F16; choose bf16")
            write_bytes(out, plain)
        else:
            blocks = piece.float().reshape(-1, types.ENCODINGS[kind].block_values)
            write_bytes(out, quantize(blocks, kind))
    written = out.tell() - start
    out.write(bytes(_padded(written) - written))


def _pieces(tensor: Tensor) -> Iterable[Tensor]:
    """Runs of rows of a few MiB, so that a large matrix is never held twice in float32."""
    row_bytes = 4 * tensor[0].numel()
    return tensor.split(max(1, CHUNK_BYTES // row_bytes))
