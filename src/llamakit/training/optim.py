"""Which parameter learns how fast: Muon for matrices, AdamW for tables and gains, one schedule for both."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

from llamakit.core.errors import ConfigError
from llamakit.models.llama import Llama


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Learning rates and their schedule: linear warm-up, constant, linear decay to zero (WSD)."""

    matrix_lr: float = 0.02
    """Muon's, for every matrix inside the layers."""
    table_lr: float = 4e-3
    """AdamW's, for embeddings and a head of its own."""
    gain_lr: float = 2e-3
    """AdamW's, for the gains of the norms."""
    weight_decay: float = 0.01
    """Of the matrices."""
    num_steps: int = 1000
    """Steps of the whole run; the schedule ends there."""
    warmup_steps: int = 20
    decay_share: float = 0.45
    """Part of the run, at its end, over which the rates fall to zero."""
    restarts: tuple[tuple[int, float], ...] = ()
    """Steps at which a finished run goes on, each with the factor that the rates jump to and fall from."""
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if min(self.matrix_lr, self.table_lr, self.gain_lr, self.clip_norm) <= 0 or self.weight_decay < 0:
            raise ConfigError(f"learning rates and clip_norm must be positive, got {self!r}")
        if not (0 <= self.warmup_steps < self.num_steps and 0 <= self.decay_share <= 1):
            raise ConfigError(f"wanted warmup_steps below num_steps and decay_share in [0, 1], got {self!r}")
        marks = [0, *(at for at, _ in self.restarts), self.num_steps]
        if any(b <= a for a, b in itertools.pairwise(marks)):
            raise ConfigError(f"restarts must rise and lie inside the {self.num_steps} steps, got {self.restarts!r}")


def schedule(config: OptimConfig, step: int) -> float:
    """Factor on every learning rate at `step`, counted from 0."""
    begin, peak, share = 0, 1.0, config.decay_share
    end = config.num_steps
    for at, factor in config.restarts:
        if step < at:
            end = at
            break
        begin, peak, share = at, factor, 1.0
    warm = (step - begin + 1) / max(1, config.warmup_steps)
    cool = (end - step) / max(1.0, share * (end - begin))
    return peak * max(0.0, min(1.0, warm, cool))


class Optimizers:
    """Both optimizers as one, with their parameters' names for the checkpoint."""

    def __init__(self, model: Llama, config: OptimConfig) -> None:
        self.config = config
        matrices: dict[str, Parameter] = {}
        tables: dict[str, Parameter] = {}
        gains: dict[str, Parameter] = {}
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                gains[name] = parameter
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                tables[name] = parameter
            else:
                matrices[name] = parameter
        muon = Muon(
            matrices.values(), lr=config.matrix_lr, momentum=0.95, nesterov=True, weight_decay=config.weight_decay
        )
        adamw = AdamW(
            [{"params": tables.values(), "lr": config.table_lr}, {"params": gains.values(), "lr": config.gain_lr}],
            lr=config.table_lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0, fused=True,
        )  # fmt: skip
        self.parts: tuple[Optimizer, ...] = (muon, adamw)
        self.names = {id(parameter): name for group in (matrices, tables, gains) for name, parameter in group.items()}
        self._base = [[group["lr"] for group in part.param_groups] for part in self.parts]

    def step(self, step: int) -> float:
        """Apply the gradients at the rates of `step`, forget them, and return the schedule's factor."""
        factor = schedule(self.config, step)
        for part, rates in zip(self.parts, self._base, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            part.step()
            part.zero_grad(set_to_none=True)
        return factor
