"""Train a Llama from scratch on packed rows: resume, metrics and checkpoints around the shared loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig
from llamakit.data.packing import Row
from llamakit.models.llama import Llama, build, initialize
from llamakit.training.loader import Cursor, batches
from llamakit.training.loop import Report, steps
from llamakit.training.metrics import MetricsFile
from llamakit.training.optim import OptimConfig, Optimizers
from llamakit.training.state import load_state, save_state


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """One run. A directory that already holds a state of it goes on from there."""

    out: Path
    """Directory of the run: `state/`, `metrics.jsonl`."""
    model: ModelConfig
    optim: OptimConfig
    seed: int = 0
    batch_tokens: int = 4096
    """Places of one batch, padding included."""
    batches_per_step: int = 2
    """Batches whose gradients are summed before each update."""
    save_every_s: float = 180.0
    compiled: bool = False
    """Compile the layers; needs a C++ compiler on a CPU."""

    def __post_init__(self) -> None:
        if self.batch_tokens < 1 or self.batches_per_step < 1 or self.save_every_s < 0:
            raise ConfigError(f"batch_tokens and batches_per_step must be positive, got {self!r}")


@dataclass(slots=True)
class Totals:
    """Sums over the whole run, interruptions included."""

    tokens: int = 0
    targets: int = 0
    wall_s: float = 0.0

    def add(self, report: Report) -> None:
        """Count one step."""
        self.tokens += report.num_tokens
        self.targets += report.num_targets
        self.wall_s += report.step_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a run leaves behind."""

    model: Llama
    totals: Totals
    cursor: Cursor
    """The first batch that was not read."""


def pretrain(
    config: PretrainConfig,
    rows_of: Callable[[int], list[Row]],
    all_tokens: Callable[[Cursor], bool],
    log: Callable[[str], None],
    prepare: Callable[[Llama], None] = lambda model: None,
) -> Finished:
    """Train to the end of the schedule. `prepare` may change the initialised weights before the first step.

    `rows_of(block)` must be pure; `all_tokens(cursor)` says whether a batch trains on every token or on
    the assistant's alone.
    """
    model = build(config.model, device="cpu")
    initialize(model, config.seed)
    prepare(model)
    optimizers = Optimizers(model, config.optim)
    state = config.out / "state"
    first, cursor, totals = 0, Cursor(), Totals()
    if state.exists() or state.with_name("state.old").exists():
        first, cursor, notes = load_state(state, model, optimizers)
        totals = Totals(tokens=int(notes["tokens"]), targets=int(notes["targets"]), wall_s=float(notes["wall_s"]))
        log(f"goes on after step {first}")
    source = batches(rows_of, batch_tokens=config.batch_tokens, seed=config.seed, all_tokens=all_tokens, start=cursor)
    metrics = MetricsFile(config.out / "metrics.jsonl")
    saved_at, recent = time.monotonic(), 0.0
    try:
        for report in steps(
            model,
            source,
            optimizers,
            first_step=first,
            batches_per_step=config.batches_per_step,
            compiled=config.compiled,
        ):
            totals.add(report)
            cursor = report.cursor
            metrics.write(report)
            recent = report.loss if not recent else 0.95 * recent + 0.05 * report.loss
            last = report.step == config.optim.num_steps
            if report.step % 20 == 0 or last:
                speed = report.num_tokens / report.step_s
                place = f"step {report.step}/{config.optim.num_steps}"
                log(f"{place} loss {recent:.4f} rate {report.rate:.3f} {speed:.0f} tokens/s")
            if last or time.monotonic() - saved_at >= config.save_every_s:
                notes = {"tokens": totals.tokens, "targets": totals.targets, "wall_s": totals.wall_s}
                save_state(state, model, optimizers, report.step, report.cursor, notes)
                saved_at = time.monotonic()
    finally:
        metrics.close()
    return Finished(model=model, totals=totals, cursor=cursor)
