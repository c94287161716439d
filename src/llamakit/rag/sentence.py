"""A small sentence encoder in numpy alone: a BERT of a few layers whose states are averaged (MiniLM and its kin).

Reads the files that sentence-transformers writes: `config.json`, `model.safetensors`, `tokenizer.json`. A text is
encoded by itself, so its vector does not depend on what else is in the batch. One core encodes some
3000 tokens a second.
Method: Devlin et al., 2018 (BERT); Reimers and Gurevych, 2019 (mean of the states).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamakit.core.errors import CheckpointError, InvalidRequest, PromptTooLong
from llamakit.rag.embed import Vectors

Array = NDArray[np.float32]

MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceConfig:
    """The shape of an encoder."""

    width: int
    layers: int
    heads: int
    eps: float
    context: int
    """Tokens of a text, with those around it; what it was trained for where that is less than it has places for."""


class SentenceEncoder:
    """Texts to vectors of length one. Make it with `open`; `encode` may be called from several threads."""

    def __init__(self, config: SentenceConfig, weights: Mapping[str, Array], tokenizer: Any) -> None:
        self.config = config
        self._weights = weights
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path) -> SentenceEncoder:
        """Read an encoder; raises `CheckpointError` for files that are missing, damaged or of another kind."""
        from tokenizers import Tokenizer

        config = _read_config(folder)
        weights = read_weights(folder / "model.safetensors")
        _check(config, weights, folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return cls(config, weights, tokenizer)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.config.width

    @property
    def context(self) -> int:
        """Tokens of a text at most."""
        return self.config.context

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(weight.nbytes for weight in self._weights.values())

    def tokens(self, text: str) -> list[int]:
        """Token ids, with those that stand before and after every text."""
        return self._tokenizer.encode(text).ids

    def encode(self, inputs: Sequence[str | Sequence[int]]) -> tuple[Vectors, int]:
        """One vector an input `[N, width]`, and the number of tokens; `PromptTooLong` beyond the context."""
        prompts = [self.tokens(item) if isinstance(item, str) else list(item) for item in inputs]
        vocabulary = len(self._weights["embeddings.word_embeddings.weight"])
        for place, ids in enumerate(prompts):
            if not all(0 <= id < vocabulary for id in ids):
                raise InvalidRequest(f"input {place} has a token id outside 0 to {vocabulary - 1}", param="input")
            if len(ids) > self.config.context:
                raise PromptTooLong(
                    f"input {place} has {len(ids)} tokens, the encoder holds {self.config.context}; shorten it",
                    param="input",
                )
        vectors = np.empty((len(prompts), self.config.width), np.float32)
        for place, ids in enumerate(prompts):
            mean = self._states(np.array(ids)).mean(0)
            vectors[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return vectors, sum(map(len, prompts))

    def _states(self, ids: NDArray[np.int64]) -> Array:
        """The states `[T, width]` after the last layer."""
        at = self._weights
        x = at["embeddings.word_embeddings.weight"][ids] + at["embeddings.position_embeddings.weight"][: len(ids)]
        x = self._norm(x + at["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self.config.layers):
            name = f"encoder.layer.{layer}"
            mixed = self._linear(self._attend(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
            x = self._norm(x + mixed, f"{name}.attention.output.LayerNorm")
            wide = _gelu(self._linear(x, f"{name}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        return x

    def _attend(self, x: Array, name: str) -> Array:
        heads, size = self.config.heads, self.config.width // self.config.heads
        query, key, value = (
            self._linear(x, f"{name}.{part}").reshape(len(x), heads, size).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(size**0.5)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return (weights @ value).transpose(1, 0, 2).reshape(len(x), -1)

    def _linear(self, x: Array, name: str) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(self.config.eps))
        return centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    """x times the normal distribution function; its erf is right to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - poly * np.exp(-z * z))
    return (0.5 * x * (1 + erf)).astype(np.float32)


def _read_config(folder: Path) -> SentenceConfig:
    facts = _read_json(folder / "config.json")
    if facts.get("model_type") != "bert" or facts.get("hidden_act") != "gelu":
        raise CheckpointError(
            f"{folder} holds a model of type {facts.get('model_type')!r} with {facts.get('hidden_act')!r}; "
            "a sentence encoder is of type 'bert' with 'gelu'"
        )
    trained = folder / "sentence_bert_config.json"
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    width, layers, heads, places = (facts.get(name) for name in names)
    if not (
        isinstance(width, int)
        and isinstance(layers, int)
        and isinstance(heads, int)
        and isinstance(places, int)
        and min(width, layers, heads, places) > 0
        and width % heads == 0
    ):
        raise CheckpointError(f"{folder / 'config.json'}: {', '.join(names)} are whole numbers that go together")
    context = _read_json(trained).get("max_seq_length", places) if trained.is_file() else places
    return SentenceConfig(
        width=width,
        layers=layers,
        heads=heads,
        eps=float(facts.get("layer_norm_eps", 1e-12)),
        context=min(int(context), places),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds no object")
    return found


def read_weights(path: Path) -> dict[str, Array]:
    """The float32 tensors of a safetensors file, mapped and not copied; raises `CheckpointError`."""
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be opened: {error}") from error
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise CheckpointError(f"{path} is no safetensors file, or is cut off")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        made = {}
        for name, fact in header.items():
            if name == "__metadata__" or fact["dtype"] != "F32":
                continue  # positions are counted, not read
            low, high = (8 + size + place for place in fact["data_offsets"])
            if not 8 + size <= low <= high <= len(data):
                raise ValueError(f"{name} lies outside of the file")
            made[name] = np.frombuffer(data, "<f4", (high - low) // 4, low).reshape(fact["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return made


def _check(config: SentenceConfig, weights: Mapping[str, Array], folder: Path) -> None:
    """Raise for a tensor that is missing or of another shape."""
    width = config.width
    wanted: dict[str, tuple[int, ...]] = {f"embeddings.LayerNorm.{part}": (width,) for part in ("weight", "bias")}
    wide = weights.get("encoder.layer.0.intermediate.dense.bias", np.empty(0)).size
    for layer in range(config.layers):
        name = f"encoder.layer.{layer}"
        for part, out, into in (
            *((f"attention.self.{part}", width, width) for part in ("query", "key", "value")),
            ("attention.output.dense", width, width),
            ("intermediate.dense", wide, width),
            ("output.dense", width, wide),
        ):
            wanted |= {f"{name}.{part}.weight": (out, into), f"{name}.{part}.bias": (out,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            wanted |= {f"{name}.{part}.weight": (width,), f"{name}.{part}.bias": (width,)}
    wrong = [name for name, shape in wanted.items() if name not in weights or weights[name].shape != shape]
    for name in ("word", "position", "token_type"):
        found = weights.get(f"embeddings.{name}_embeddings.weight")
        if found is None or found.ndim != 2 or found.shape[1] != width:
            wrong.append(f"embeddings.{name}_embeddings.weight")
    if wrong:
        raise CheckpointError(f"{folder}: tensors missing or of another shape: {', '.join(wrong[:8])}")
