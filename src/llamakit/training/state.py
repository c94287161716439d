"""A run on disk: weights, optimizer state and place in the data, written whole or not at all.

Tensors go to one safetensors file and numbers to JSON beside it; nothing is ever pickled. A state is
a directory; saving writes a new one and swaps it in by rename.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llamakit.checkpoints.safetensors_file import SafetensorsFile, write_safetensors
from llamakit.core.errors import CheckpointError
from llamakit.models.llama import Llama
from llamakit.training.loader import Cursor
from llamakit.training.optim import Optimizers

_TENSORS, _NUMBERS = "state.safetensors", "state.json"


def save_state(
    path: Path, model: Llama, optimizers: Optimizers, step: int, cursor: Cursor, notes: dict[str, Any]
) -> None:
    """Write the whole run to the directory `path`; `notes` are the recipe's own numbers."""
    tensors: dict[str, Tensor] = {f"model.{name}": value for name, value in model.state_dict().items()}
    numbers: dict[str, float] = {}
    for name, key, value in _optimizer_state(optimizers):
        if isinstance(value, Tensor) and value.ndim:
            tensors[f"optim.{key}.{name}"] = value
        else:
            numbers[f"{key}.{name}"] = float(value)
    fresh = path.with_name(path.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with open(fresh / _TENSORS, "wb") as out:
        layout = [(name, tuple(value.shape), value.dtype) for name, value in tensors.items()]
        write_safetensors(out, layout, tensors.values(), {"step": str(step)})
        out.flush()
        os.fsync(out.fileno())
    record = {"step": step, "block": cursor.block, "batch": cursor.batch, "scalars": numbers, "notes": notes}
    (fresh / _NUMBERS).write_text(json.dumps(record))
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def load_state(path: Path, model: Llama, optimizers: Optimizers) -> tuple[int, Cursor, dict[str, Any]]:
    """Restore a run that `save_state` wrote -> (steps finished, next batch, notes)."""
    if not path.exists() and path.with_name(path.name + ".old").exists():
        path = path.with_name(path.name + ".old")  # The process ended between the two renames.
    record = json.loads((path / _NUMBERS).read_text())
    file = SafetensorsFile(path / _TENSORS)
    try:
        tensors = {name: stored.load().clone() for name, stored in file.tensors.items()}
    finally:
        file.close()
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    wanted = model.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in wanted.items()}:
        raise CheckpointError(f"{path}: its weights are not of this model; give the run another directory")
    model.load_state_dict(weights)
    parameters = dict(model.named_parameters())
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                name = optimizers.names[id(parameter)]
                found: dict[str, Tensor] = {}
                for full, value in tensors.items():
                    if full.startswith("optim.") and full.endswith(f".{name}"):
                        found[full.removeprefix("optim.").removesuffix(f".{name}")] = value
                for full, value in record["scalars"].items():
                    if full.endswith(f".{name}"):
                        found[full.removesuffix(f".{name}")] = torch.tensor(value)
                if found:
                    part.state[parameters[name]] = found
    return record["step"], Cursor(record["block"], record["batch"]), record["notes"]


def _optimizer_state(optimizers: Optimizers) -> list[tuple[str, str, Any]]:
    return [
        (optimizers.names[id(parameter)], key, value)
        for part in optimizers.parts
        for parameter, entries in part.state.items()
        for key, value in entries.items()
    ]
