"""One definition for every text Llama, 1 to 3.3: training, evaluation and serving run this module.

Tokens are flat (`[N]`, any number of sequences one after another); what a token may see is the
business of `attend`. `forward` is the plain way for whole batches and gradients, `hidden` and
`logits` are the two halves an engine needs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llamakit.core.model_config import ModelConfig
from llamakit.kernels.attention import causal_attention
from llamakit.kernels.matmul import linear
from llamakit.kernels.rope import RopeTable, inverse_frequencies
from llamakit.models.layers import Attend, DecoderLayer, Layers, Linear, RMSNorm


class Body(nn.Module):
    """Embedding, layers and final norm: everything below the head."""

    def __init__(
        self, config: ModelConfig, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        # The plain constructor would fill the table with noise; readers and `initialize` own the values.
        table = torch.empty(config.vocab_size, config.dim, device=device, dtype=dtype)
        self.embed_tokens = nn.Embedding.from_pretrained(table, freeze=False)
        self.layers = Layers(DecoderLayer(config, device=device, dtype=dtype) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps, device=device, dtype=dtype)


class Llama(nn.Module):
    """A text Llama. State-dict keys are the Hugging Face names; `lm_head` is absent when tied."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config, device=device, dtype=dtype)
        self.lm_head = (
            None if config.tie_embeddings else Linear(config.dim, config.vocab_size, device=device, dtype=dtype)
        )
        self.rope = RopeTable(_frequencies(config))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the residual stream."""
        return self.model.norm.weight.dtype

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, *, max_position: int | None = None) -> Tensor:
        """States `[N, dim]` of flat tokens after the final norm."""
        x = self.model.embed_tokens(ids_N)
        rope = self.rope(positions_N, max_position)
        return self.model.norm(self.model.layers(x, rope, attend))

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores of the next token `[M, vocab]`, float32."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        weight = getattr(head, "weight", None)  # None: a head with a correction beside it, which has a dtype
        if not isinstance(weight, Tensor | None):
            hidden_MD = hidden_MD.float()  # a quantized head keeps no dtype: nothing need be rounded before the choice
        return (linear(hidden_MD, head.weight) if self.lm_head is None else self.lm_head(hidden_MD)).float()

    def forward(
        self, ids_BT: Tensor, *, positions_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """Logits `[B, T, vocab]`, float32; causal inside each row.

        `documents_BT` numbers the documents packed into a row: a token sees only its own document.
        Positions run from 0 in each row unless given.
        """
        return self.logits(self.states(ids_BT, positions_BT=positions_BT, documents_BT=documents_BT))

    def states(
        self, ids_BT: Tensor, *, positions_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor:
        """What `forward` feeds to the head, `[B, T, dim]`: losses that never hold all logits start here."""
        batch, length = ids_BT.shape
        if positions_BT is None:
            flat_positions = torch.arange(length, device=ids_BT.device).repeat(batch)
        else:
            flat_positions = positions_BT.reshape(-1)
        mask = None
        if documents_BT is not None:
            same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
            mask = same & torch.ones(length, length, dtype=torch.bool, device=ids_BT.device).tril()

        def attend(layer: int, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> Tensor:
            q, k, v = (t.view(batch, length, *t.shape[1:]) for t in (q_NHD, k_NKD, v_NKD))
            return causal_attention(q, k, v, mask).reshape(batch * length, *q_NHD.shape[1:])

        flat = self.hidden(ids_BT.reshape(-1), flat_positions, attend)
        return flat.view(batch, length, -1)


def build(config: ModelConfig, *, device: torch.device | str = "meta", dtype: torch.dtype | None = None) -> Llama:
    """A model of this shape with unset weights; on `meta` it takes no memory."""
    return Llama(config, device=device, dtype=dtype)


def initialize(model: Llama, seed: int) -> None:
    """Fill a new model for training: normal 0.02, residual outputs scaled by 1/sqrt(2 * layers) (GPT-2), gains 1."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    residual = 0.02 / math.sqrt(2 * model.config.num_layers)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            std = residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))


def _frequencies(config: ModelConfig) -> Tensor:
    if config.rope_scaling is None:
        return inverse_frequencies(config.head_dim, config.rope_theta, divisors=config.rope_divisors)
    scaling = config.rope_scaling
    return inverse_frequencies(
        config.head_dim,
        config.rope_theta,
        factor=scaling.factor,
        low_freq_factor=scaling.low_freq_factor,
        high_freq_factor=scaling.high_freq_factor,
        original_context=scaling.original_context,
    )
