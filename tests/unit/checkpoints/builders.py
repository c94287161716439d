"""Writes small checkpoints of every format for the tests of this room."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamakit.checkpoints import names
from llamakit.checkpoints.gguf_blocks import ENCODINGS
from llamakit.checkpoints.gguf_file import GgufFile
from llamakit.checkpoints.gguf_write import save_gguf
from llamakit.checkpoints.save import save_hf
from llamakit.core.model_config import ModelConfig
from llamakit.models.llama import Llama
from llamakit.text.gguf_vocab import TokenizerFields


def meta_tensors(model: Llama) -> dict[str, Tensor]:
    """The model's weights under Meta's names and in Meta's row order."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        heads = names.rotary_heads(name, model.config)
        stored = tensor if heads is None else names.to_neighbours(tensor, heads)
        tensors[names.translate(name, "hf", "meta")] = stored.clone()
    return tensors


def meta_params(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    """params.json of this shape; the width rule gives `ffn_dim` because that is the multiple it rounds up to."""
    return {
        "dim": config.dim,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        "vocab_size": config.vocab_size,
        "multiple_of": config.ffn_dim,
        "ffn_dim_multiplier": 0.1,
        "norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
    } | changes


def write_meta(
    directory: Path,
    model: Llama,
    *,
    ranks: int = 1,
    embedding_axis: int = 0,
    kv_copies: int = 1,
    extra: dict[str, Tensor] | None = None,
    **params: Any,
) -> Path:
    """A Meta directory; `kv_copies` ranks share each part of the key and value weights."""
    directory.mkdir(exist_ok=True)
    (directory / "params.json").write_text(json.dumps(meta_params(model.config, **params)))
    tensors = meta_tensors(model) | (extra or {})
    for rank in range(ranks):
        part = {name: _part(name, tensor, rank, ranks, embedding_axis, kv_copies) for name, tensor in tensors.items()}
        torch.save(part, directory / f"consolidated.{rank:02}.pth")
    return directory


def _part(name: str, tensor: Tensor, rank: int, ranks: int, embedding_axis: int, kv_copies: int) -> Tensor:
    canonical = names.translate(name, "meta", "hf")
    split = "none" if canonical is None else names.split_of(canonical)
    if split == "none":
        return tensor.clone()
    axis = {"rows": 0, "columns": 1, "embedding": embedding_axis}[split]
    if name.endswith(("wk.weight", "wv.weight")):
        return tensor.chunk(ranks // kv_copies, axis)[rank // kv_copies].clone()
    return tensor.chunk(ranks, axis)[rank].clone()


def write_hf(directory: Path, model: Llama, **options: Any) -> Path:
    """A Hugging Face directory."""
    return save_hf(model, model.config, directory, **options)


def write_gguf(path: Path, model: Llama, **options: Any) -> Path:
    """A GGUF file with a small tokenizer."""
    fields = options.pop("tokenizer", spm_fields(model.config.vocab_size))
    return save_gguf(model, model.config, path, tokenizer=fields, **options)


def split_gguf(path: Path, *sizes: int, **changes: Any) -> list[Path]:
    """The tensors of a GGUF file in several, `sizes` of them in each, as `llama-gguf-split` writes them.

    `changes` replaces, in the last file, what a `split` key says: `no`, `count` or `tensors`.
    """
    raw = path.read_bytes()
    with GgufFile(path) as whole:
        tensors = list(whole.tensors.items())
        num_pairs = int.from_bytes(raw[16:24], "little")
        (name, first) = tensors[0]
        pairs = raw[24 : raw.index(_string(name) + struct.pack("<I", len(first.shape)))]
    if len(tensors) < sum(sizes):
        raise ValueError(f"{path} has {len(tensors)} tensors")
    paths, kinds = [], {encoding.name: kind for kind, encoding in ENCODINGS.items()}
    for number in range(len(sizes)):
        part, tensors = tensors[: sizes[number]], tensors[sizes[number] :]
        facts = {"no": number, "count": len(sizes), "tensors": sum(sizes)}
        facts |= changes if number == len(sizes) - 1 else {}
        own = _string("split.no") + struct.pack("<IH", 2, facts["no"])
        own += _string("split.count") + struct.pack("<IH", 2, facts["count"])
        own += _string("split.tensors.count") + struct.pack("<Ii", 5, facts["tensors"])
        head = b"GGUF" + struct.pack("<IQQ", 3, len(part), 3 + (0 if number else num_pairs))
        head += (b"" if number else pairs) + own
        data = b""
        for name, tensor in part:
            head += _string(name) + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
            head += struct.pack("<IQ", kinds[tensor.encoding.name], len(data))
            data += raw[tensor.offset : tensor.offset + tensor.nbytes]
            data += bytes(-len(data) % 32)
        paths.append(path.with_name(f"{path.stem}-{number + 1:05}-of-{len(sizes):05}.gguf"))
        paths[-1].write_bytes(head + bytes(-len(head) % 32) + data)
    return paths


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def spm_fields(vocab_size: int) -> TokenizerFields:
    """A SentencePiece vocabulary of bytes, letters and a few words."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    words = ["▁", "t", "h", "e", "▁t", "he", "▁the", "l", "a", "m", "ll", "▁l", "am"]
    pieces += [(word, -float(rank), 1) for rank, word in enumerate(words)]
    pieces += [(f"▁word{i}", -1000.0 - i, 1) for i in range(max(0, vocab_size - len(pieces)))]
    pieces = pieces[:vocab_size]
    return TokenizerFields(
        model="llama",
        pre="default",
        tokens=[text for text, _, _ in pieces],
        scores=[score for _, score, _ in pieces],
        token_types=[kind for _, _, kind in pieces],
        bos_id=1,
        eos_id=2,
        unk_id=0,
        add_bos=True,
        add_space_prefix=True,
    )


QLORA: dict[str, Any] = {
    "quantization_args": {"scheme": "int4_weight_int8_dynamic_activation", "group_size": 32, "spinquant": False},
    "lora_args": {"rank": 16, "scale": 2.0},
}
"""What params.json of Meta's QLoRA release has beside the shape."""


def published(config: ModelConfig, *, rank: int = 0, seed: int = 0) -> dict[str, Tensor]:
    """Random integers, scales and norms under the names and in the shapes and types of the released files."""
    random = torch.Generator().manual_seed(seed)
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes = {"attention.wq": (q, config.dim), "attention.wk": (kv, config.dim), "attention.wv": (kv, config.dim)}
    shapes |= {"attention.wo": (config.dim, q), "feed_forward.w1": (config.ffn_dim, config.dim)}
    shapes |= {"feed_forward.w3": (config.ffn_dim, config.dim), "feed_forward.w2": (config.dim, config.ffn_dim)}
    tensors: dict[str, Tensor] = {"norm.weight": 1 + torch.randn(config.dim, generator=random) / 10}
    for table in ("tok_embeddings", "output"):
        codes = torch.randint(-127, 128, (config.vocab_size, config.dim), generator=random)
        tensors[f"{table}.weight"] = codes.to(torch.int8)
        tensors[f"{table}.scales"] = (0.01 + torch.rand(config.vocab_size, 1, generator=random) / 50).bfloat16()
    for layer in range(config.num_layers):
        for norm in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{layer}.{norm}.weight"] = 1 + torch.randn(config.dim, generator=random) / 10
        for name, (rows, depth) in shapes.items():
            stem = f"layers.{layer}.{name}"
            tensors[f"{stem}.weight"] = torch.randint(-8, 8, (rows, depth), generator=random).to(torch.int8)
            tensors[f"{stem}.scales"] = (0.02 + torch.rand(rows, depth // 32, generator=random) / 50).bfloat16()
            if rank:
                tensors[f"{stem}.adaptor.A.weight"] = (torch.randn(rank, depth, generator=random) / 8).bfloat16()
                tensors[f"{stem}.adaptor.B.weight"] = (torch.randn(rows, rank, generator=random) / 8).bfloat16()
    return {name: t if t.dtype == torch.int8 else t.bfloat16() for name, t in tensors.items()}


def write_published(path: Path, config: ModelConfig, tensors: dict[str, Tensor] | None = None, **params: Any) -> Path:
    """A directory of Meta's quantized layout; random tensors that fit `params` unless given."""
    path.mkdir(exist_ok=True)
    (path / "params.json").write_text(json.dumps(meta_params(config) | params))
    rank = params.get("lora_args", {}).get("rank", 0)
    torch.save(published(config, rank=rank) if tensors is None else tensors, path / "consolidated.00.pth")
    return path
