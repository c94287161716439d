"""The shape of a Llama: pure numbers, shared by the catalog, the checkpoint readers and the modules.

Knows no tensor and no file format; readers translate into it, `models` builds from it.
Constants come from the model cards and `config.json` / `params.json` of each release.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamakit.core.errors import ConfigError

_COUNTS = ("vocab_size", "dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_dim", "context_length")


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScaling:
    """The "llama3" frequency scaling of Llama 3.1 and later (model cards; `rope_type: llama3`)."""

    factor: float
    """Divides frequencies whose wavelength exceeds `original_context / low_freq_factor`."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and self.high_freq_factor > self.low_freq_factor > 0 and self.original_context > 0):
            raise ConfigError(f"rope scaling wants factor >= 1 and high > low > 0, got {self!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape and constants of one text model."""

    vocab_size: int
    dim: int
    """Width of the residual stream."""
    num_layers: int
    num_heads: int
    num_kv_heads: int
    """Key/value heads; query head j reads head j // (num_heads / num_kv_heads)."""
    head_dim: int
    ffn_dim: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rope_divisors: tuple[float, ...] | None = None
    """Per-frequency divisors that a GGUF file stores in `rope_freqs.weight`; excludes `rope_scaling`."""
    tie_embeddings: bool = False
    """True when the head is the embedding table."""
    context_length: int = 4096
    """Positions the model was trained for, in tokens."""

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "dim",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "ffn_dim",
            "context_length",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
                raise ConfigError(f"{name} must be a positive integer below 2^31, got {value!r}")
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even for rotary embedding, got {self.head_dim}")
        if not 0 < self.norm_eps < 1:
            raise ConfigError(f"norm_eps must be in (0, 1), got {self.norm_eps!r}")
        if not 1 < self.rope_theta < 1e12:
            raise ConfigError(f"rope_theta must be in (1, 1e12), got {self.rope_theta!r}")
        if self.rope_divisors is not None:
            if self.rope_scaling is not None:
                raise ConfigError("rope_scaling and rope_divisors exclude each other")
            if len(self.rope_divisors) != self.head_dim // 2 or not all(0 < d < 1e9 for d in self.rope_divisors):
                raise ConfigError(
                    f"rope_divisors wants {self.head_dim // 2} positive values, got {self.rope_divisors!r}"
                )

    @property
    def num_parameters(self) -> int:
        """Exact count of parameters; a tied head is counted once."""
        attention = self.dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        layer = attention + 3 * self.dim * self.ffn_dim + 2 * self.dim
        tables = self.vocab_size * self.dim * (1 if self.tie_embeddings else 2)
        return tables + self.num_layers * layer + self.dim

    def kv_bytes_per_token(self, itemsize: int = 2) -> int:
        """Bytes of keys and values one token occupies over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * itemsize
