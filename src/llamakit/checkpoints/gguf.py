"""Reader of GGUF files of the `llama` architecture: metadata -> config, stored names -> canonical ones.

Quantized blocks are decoded to plain numbers when a tensor is read, and regrouped as they stand when a matrix is
asked for (`gguf_groups`). Llama 3.1 and later keep their rotary scaling as a table of divisors; when it
is the llama3 rule it becomes that rule again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llamakit.checkpoints import names
from llamakit.checkpoints.fields import Fields, build_config
from llamakit.checkpoints.gguf_file import GgufArray
from llamakit.checkpoints.gguf_groups import GROUPED_ENCODINGS, load_groups
from llamakit.checkpoints.gguf_parts import open_parts
from llamakit.checkpoints.gguf_recipes import FILE_TYPES
from llamakit.checkpoints.reader import (
    Generation,
    Metadata,
    Reader,
    StoredMatrix,
    TokenizerSource,
    halves_of,
    main_encoding,
)
from llamakit.checkpoints.stored import PLAIN, StoredTensor, TensorInfo
from llamakit.core.errors import CheckpointError, UnsupportedFormat
from llamakit.core.model_config import ModelConfig, RopeScaling
from llamakit.kernels.rope import inverse_frequencies
from llamakit.text.gguf_vocab import TokenizerFields

ROPE_DIVISORS = "rope_freqs.weight"
# fmt: off
_READ = frozenset({
    "llama.context_length", "llama.embedding_length", "llama.block_count", "llama.feed_forward_length",
    "llama.attention.head_count", "llama.attention.head_count_kv", "llama.attention.layer_norm_rms_epsilon",
    "llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count",
    "llama.rope.freq_base", "llama.vocab_size", "llama.rope.scaling.type",
})
# fmt: on
_HARMLESS = frozenset({"llama.tensor_data_layout", "llama.rope.scaling.original_context_length"})
_FIXED = {
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
    "llama.rope.scaling.factor": 1.0,
    "llama.attention.causal": True,
}


class GgufReader(Reader):
    """A GGUF file, or the first of several that hold one model together."""

    kind = "gguf"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_parts(path)
        try:
            self._fields = Fields(self._file.metadata, path)
            self._tensors = {
                names.translate(name, "gguf", "hf") or name: tensor
                for name, tensor in self._file.tensors.items()
                if name != ROPE_DIVISORS
            }
            self._config = self._read_config()
        except BaseException:
            self._file.close()
            raise

    def _read_config(self) -> ModelConfig:
        fields = self._fields
        if fields.values.get("general.architecture") != "llama":
            raise UnsupportedFormat(str(fields.error("general.architecture", "'llama'")))
        for name, wanted in _FIXED.items():
            if fields.values.get(name, wanted) != wanted:
                raise UnsupportedFormat(str(fields.error(name, repr(wanted))))
        if fields.values.get("llama.rope.scaling.type", "none") != "none":
            raise UnsupportedFormat(str(fields.error("llama.rope.scaling.type", "'none'")))
        model_fields = {name: value for name, value in fields.values.items() if name.startswith("llama.")}
        Fields(model_fields, self.path).refuse_unknown({*_READ, *_HARMLESS, *_FIXED})
        embedding = self._tensors.get(names.EMBEDDING)
        if embedding is None or len(embedding.shape) != 2:
            raise CheckpointError(f"{self.path}: has no matrix token_embd.weight")
        dim, num_heads = fields.integer("llama.embedding_length"), fields.integer("llama.attention.head_count")
        head_dim = fields.integer("llama.attention.key_length", max(1, dim // num_heads))
        for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
            if fields.integer(name, head_dim) != head_dim:
                raise UnsupportedFormat(str(fields.error(name, f"{head_dim}, the width of a head")))
        theta = fields.number("llama.rope.freq_base", 10_000.0)
        divisors = self._divisors()
        scaling = None if divisors is None else recognise_scaling(divisors, head_dim, theta)
        return build_config(
            self.path,
            vocab_size=embedding.shape[0],
            dim=dim,
            num_layers=fields.integer("llama.block_count"),
            num_heads=num_heads,
            num_kv_heads=fields.integer("llama.attention.head_count_kv", num_heads),
            head_dim=head_dim,
            ffn_dim=fields.integer("llama.feed_forward_length"),
            norm_eps=_shortest(fields.number("llama.attention.layer_norm_rms_epsilon")),
            rope_theta=_shortest(theta),
            rope_scaling=scaling,
            rope_divisors=divisors if scaling is None else None,
            tie_embeddings=names.HEAD not in self._tensors,
            context_length=fields.integer("llama.context_length"),
        )

    def _divisors(self) -> tuple[float, ...] | None:
        stored = self._file.tensors.get(ROPE_DIVISORS)
        if stored is None:
            return None
        if len(stored.shape) != 1 or stored.shape[0] > 65_536 or stored.encoding is not PLAIN[torch.float32]:
            raise CheckpointError(f"{self.path}: {ROPE_DIVISORS} must be a vector of F32")
        return tuple(stored.load().tolist())

    def config(self) -> ModelConfig:
        return self._config

    def generation(self) -> Generation:
        ids = [self._token_id(name) for name in ("eos", "eot", "eom")]
        return Generation(
            bos_id=self._token_id("bos"),
            eos_ids=tuple(dict.fromkeys(token for token in ids if token is not None)),
            pad_id=self._token_id("padding"),
        )

    def metadata(self) -> Metadata:
        infos = self.infos()
        name, template = (self._fields.values.get(key) for key in ("general.name", "tokenizer.chat_template"))
        kind = self._fields.values.get("general.file_type")
        quantization = FILE_TYPES.get(kind) if isinstance(kind, int) else None
        return Metadata(
            architecture="llama",
            name=name if isinstance(name, str) else None,
            quantization=quantization or main_encoding(infos),
            num_parameters=self._config.num_parameters,
            num_bytes=sum(info.nbytes for info in infos.values()),
            chat_template=template if isinstance(template, str) else None,
        )

    def tokenizer_source(self) -> TokenizerSource:
        fields = self._fields
        model, tokens = fields.values.get("tokenizer.ggml.model"), self._array("tokens")
        if model is None or tokens is None:
            return None
        if not isinstance(model, str):
            raise fields.error("tokenizer.ggml.model", "text")
        if tokens.count > self._config.vocab_size:
            raise CheckpointError(
                f"{self.path}: has {tokens.count} tokens, but embeddings for {self._config.vocab_size} only"
            )
        scores, kinds, merges = (self._array(name) for name in ("scores", "token_type", "merges"))
        for name, array in (("scores", scores), ("token_type", kinds)):
            if array is not None and array.count != tokens.count:
                raise CheckpointError(f"{self.path}: has {tokens.count} tokens, but {array.count} values in {name}")
        pre, template = (fields.values.get(key) for key in ("tokenizer.ggml.pre", "tokenizer.chat_template"))
        return TokenizerFields(
            model=model,
            pre=pre if isinstance(pre, str) else None,
            tokens=tokens.strings("the tokens"),
            scores=None if scores is None else [float(score) for score in scores.numbers("the scores")],
            token_types=None if kinds is None else [int(kind) for kind in kinds.numbers("the token types")],
            merges=None if merges is None else merges.strings("the merges"),
            bos_id=self._token_id("bos"),
            eos_id=self._token_id("eos"),
            eot_id=self._token_id("eot"),
            eom_id=self._token_id("eom"),
            unk_id=self._token_id("unknown"),
            pad_id=self._token_id("padding"),
            add_bos=self._flag("add_bos_token"),
            add_space_prefix=self._flag("add_space_prefix"),
            chat_template=template if isinstance(template, str) else None,
        )

    def tokenizer_digest(self) -> str | None:
        if self._array("tokens") is None:
            return None
        digest = hashlib.sha256()
        for key, value in sorted(self._fields.values.items()):
            if key.startswith("tokenizer.ggml."):
                data = value.data if isinstance(value, GgufArray) else repr(value).encode()
                digest.update(f"{key} {len(data)} ".encode())
                digest.update(data)
        return digest.hexdigest()

    def _token_id(self, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        if self._fields.values.get(key) == 2**32 - 1:
            return None  # -1, "none", through an unsigned field
        token = self._fields.token_id(key)
        if token is not None and token >= self._config.vocab_size:
            raise self._fields.error(key, f"a token id below {self._config.vocab_size}")
        return token

    def _flag(self, name: str) -> bool | None:
        key = f"tokenizer.ggml.{name}"
        return self._fields.flag(key) if key in self._fields.values else None

    def _array(self, name: str) -> GgufArray | None:
        key = f"tokenizer.ggml.{name}"
        value = self._fields.values.get(key)
        if value is not None and not isinstance(value, GgufArray):
            raise self._fields.error(key, "an array")
        return value

    def infos(self) -> Mapping[str, TensorInfo]:
        return {name: tensor.info for name, tensor in self._tensors.items()}

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        stored: StoredTensor = self._tensors[name]
        return halves_of(self.path, name, stored.load(dtype), self._config)

    def matrix(self, name: str) -> StoredMatrix | None:
        stored, heads = self._tensors[name], names.rotary_heads(name, self._config)
        if heads is not None and stored.shape[0] != heads * self._config.head_dim:
            return None  # `tensor` says what is wrong
        weight = load_groups(stored, heads)
        return None if weight is None else StoredMatrix(weight=weight)

    def is_quantized(self) -> bool:
        return main_encoding(self.infos()) in GROUPED_ENCODINGS

    def release(self, name: str) -> None:
        self._tensors[name].release()

    def close(self) -> None:
        self._file.close()


def recognise_scaling(divisors: tuple[float, ...], head_dim: int, theta: float) -> RopeScaling | None:
    """The llama3 rule that gives these divisors; None when no factor does."""
    if len(divisors) != head_dim // 2:
        return None
    found = torch.tensor(divisors, dtype=torch.float64)
    # The lowest frequency is divided by the whole factor, unless the heads are too small to reach it.
    for factor in (round(divisors[-1], 4), 8.0, 32.0):
        if not 1 < factor < 1e6:
            continue
        scaling = RopeScaling(factor=factor)
        if torch.allclose(found, scaling_divisors(scaling, head_dim, theta), rtol=1e-4):
            return scaling
    return None


def scaling_divisors(scaling: RopeScaling, head_dim: int, theta: float) -> Tensor:
    """What each plain frequency is divided by under the llama3 rule, float64 `[head_dim / 2]`."""
    scaled = inverse_frequencies(
        head_dim,
        theta,
        factor=scaling.factor,
        low_freq_factor=scaling.low_freq_factor,
        high_freq_factor=scaling.high_freq_factor,
        original_context=scaling.original_context,
    )
    return inverse_frequencies(head_dim, theta).double() / scaled.double()


def _shortest(value: float) -> float:
    """The decimal that was meant by a float32 of the file: 1e-05, not 9.99999974738e-06."""
    return float(f"{value:.7g}")
