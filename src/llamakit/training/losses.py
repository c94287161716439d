"""What is minimised. Scores are computed only where there is a target: most places of a prompt have none."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(hidden_MD: Tensor, head_VD: Tensor, targets_M: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods of `targets_M` in nats, float32."""
    scores = F.linear(hidden_MD, head_VD).float()
    return F.cross_entropy(scores, targets_M, reduction="sum")


def select(states_ND: Tensor, places_M: Tensor) -> Tensor:
    """The states at flat places, `[M, D]`."""
    return torch.index_select(states_ND, 0, places_M)
