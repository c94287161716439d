"""The parts every Llama is made of.

Each part is a plain module whose parameters carry their canonical (Hugging Face) names, so that
adapters, quantized layers and parallel plans can replace or wrap it from outside. Attention does
not know where keys and values are kept: the caller passes `attend`.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from llamakit.core.model_config import ModelConfig
from llamakit.kernels.activation import swiglu
from llamakit.kernels.matmul import linear
from llamakit.kernels.norm import rms_norm
from llamakit.kernels.rope import rotate


class Attend(Protocol):
    """Attention over whatever past the caller keeps."""

    def __call__(self, layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
        """Mix the values of everything each token may see -> `[N, H, D]`; may store `k` and `v`."""
        ...


class Linear(nn.Module):
    """A matrix without bias: `[..., in] -> [..., out]`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learned gain."""

    def __init__(
        self, dim: int, eps: float, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class SelfAttention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(
        self, config: ModelConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        q_width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.dim, q_width, device=device, dtype=dtype)
        self.k_proj = Linear(config.dim, kv_width, device=device, dtype=dtype)
        self.v_proj = Linear(config.dim, kv_width, device=device, dtype=dtype)
        self.o_proj = Linear(q_width, config.dim, device=device, dtype=dtype)

    def forward(self, layer: int, x_NE: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        num_tokens = x_NE.shape[0]
        q = rotate(self.q_proj(x_NE).view(num_tokens, self.num_heads, self.head_dim), *rope)
        k = rotate(self.k_proj(x_NE).view(num_tokens, self.num_kv_heads, self.head_dim), *rope)
        v = self.v_proj(x_NE).view(num_tokens, self.num_kv_heads, self.head_dim)
        return self.o_proj(attend(layer, q, k, v).reshape(num_tokens, -1))


class FeedForward(nn.Module):
    """SwiGLU feed-forward network."""

    def __init__(
        self, config: ModelConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.ffn_dim, device=device, dtype=dtype)
        self.up_proj = Linear(config.dim, config.ffn_dim, device=device, dtype=dtype)
        self.down_proj = Linear(config.ffn_dim, config.dim, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Module):
    """Pre-norm block: attention, then feed-forward, each added to the residual stream."""

    def __init__(
        self, config: ModelConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config, device=device, dtype=dtype)
        self.mlp = FeedForward(config, device=device, dtype=dtype)
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps, device=device, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps, device=device, dtype=dtype)

    def forward(self, layer: int, x_NE: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x_NE = x_NE + self.self_attn(layer, self.input_layernorm(x_NE), rope, attend)
        return x_NE + self.mlp(self.post_attention_layernorm(x_NE))


class Layers(nn.ModuleList):
    """Decoder layers one after another."""

    def forward(self, x_NE: Tensor, rope: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        for index, layer in enumerate(self):
            x_NE = layer(index, x_NE, rope, attend)
        return x_NE
