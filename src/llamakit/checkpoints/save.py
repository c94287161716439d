"""Writes Hugging Face directories: config, safetensors in shards, generation defaults, tokenizer files.

The inverse of `hf`. What is written loads in transformers 4 and 5.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llamakit.checkpoints.hf import INDEX_NAME
from llamakit.checkpoints.hf_config import config_to_hf, generation_to_hf
from llamakit.checkpoints.names import expected_shapes
from llamakit.checkpoints.reader import TOKENIZER_FILES, Generation, TokenizerSource
from llamakit.checkpoints.safetensors_file import write_safetensors
from llamakit.checkpoints.staging import staged_directory
from llamakit.checkpoints.tokenizer_export import write_tokenizer
from llamakit.checkpoints.weights import Progress, Weights, as_weights, check_weights, natural_dtype
from llamakit.core.errors import ConfigError
from llamakit.core.model_config import ModelConfig

MAX_SHARD_BYTES = 5_000_000_000
_WRITABLE = (torch.float32, torch.float16, torch.bfloat16)


def save_hf(
    weights: Weights | nn.Module | Mapping[str, Tensor],
    config: ModelConfig,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    generation: Generation = Generation(),
    tokenizer: TokenizerSource = None,
    chat_template: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a model, tensors under canonical names, or an open checkpoint as a Hugging Face directory.

    One tensor at a time is converted; the directory appears whole or not at all. `tokenizer` is a directory
    whose tokenizer files are copied, or the fields of a GGUF file. Raises `ConfigError` when `path` exists and
    may not be replaced.
    """
    weights = as_weights(weights)
    path, infos = Path(path), weights.infos()
    check_weights(infos, config, path)
    dtype = natural_dtype(infos) if dtype is None else dtype
    if dtype not in _WRITABLE:
        raise ConfigError(f"weights are written as float32, float16 or bfloat16, not {dtype}")
    values = config_to_hf(config, dtype, generation)
    shards = _shards(expected_shapes(config), dtype, max_shard_bytes)
    total = config.num_parameters * dtype.itemsize
    with staged_directory(path, force=force) as directory:
        done = 0
        for file_name, shapes in shards.items():
            layout = [(name, shape, dtype) for name, shape in shapes.items()]
            tensors = _converted(weights, shapes, dtype, done, total, progress)
            with (directory / file_name).open("xb") as out:
                write_safetensors(out, layout, tensors, {"format": "pt"})
            done += sum(map(math.prod, shapes.values())) * dtype.itemsize
        if len(shards) > 1:
            weight_map = {name: file_name for file_name, shapes in shards.items() for name in shapes}
            write_json(directory / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})
        write_json(directory / "config.json", values)
        write_json(directory / "generation_config.json", generation_to_hf(generation))
        write_tokenizer_files(directory, tokenizer, chat_template)
    return path


def _converted(
    weights: Weights, names: Iterable[str], dtype: torch.dtype, done: int, total: int, progress: Progress | None
) -> Iterator[Tensor]:
    for name in names:
        tensor = weights.tensor(name, dtype)
        yield tensor
        done += tensor.nbytes
        if progress is not None:
            progress(done, total)


def _shards(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, max_bytes: int
) -> dict[str, dict[str, tuple[int, ...]]]:
    """File name -> names and shapes in it; one file when everything fits."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    used = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        if groups[-1] and used + size > max_bytes:
            groups.append({})
            used = 0
        groups[-1][name] = shape
        used += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups, start=1)}


def write_tokenizer_files(directory: Path, tokenizer: TokenizerSource, chat_template: str | None) -> None:
    """Copy or write what belongs to the tokenizer, its chat template included."""
    if isinstance(tokenizer, Path):
        for name in TOKENIZER_FILES:
            if (tokenizer / name).is_file():
                shutil.copyfile(tokenizer / name, directory / name)
    elif tokenizer is not None:
        write_tokenizer(tokenizer, directory)
    # A template inside tokenizer_config.json has just been copied with its file.
    if chat_template is not None and not isinstance(tokenizer, Path):
        (directory / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """A small file of one object, for people, too."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
