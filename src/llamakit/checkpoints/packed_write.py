"""Writes directories of packed weights; the inverse of `packed`."""

from __future__ import annotations

from pathlib import Path

from llamakit.checkpoints.hf_config import config_to_hf, generation_to_hf
from llamakit.checkpoints.load import load_model
from llamakit.checkpoints.packed import PACKED_NAME
from llamakit.checkpoints.reader import Reader
from llamakit.checkpoints.save import write_json, write_tokenizer_files
from llamakit.checkpoints.staging import staged_directory
from llamakit.checkpoints.weights import Progress, natural_dtype
from llamakit.quant.packed_file import save_packed


def save_packed_directory(
    reader: Reader, path: Path, scheme: str, *, force: bool = False, progress: Progress | None = None
) -> Path:
    """Write an open checkpoint, its matrices packed by `scheme`, as a directory that appears whole or not at all.

    Raises `ConfigError` when `path` exists and may not be replaced, and what `load_model` raises.
    """
    dtype, generation = natural_dtype(reader.infos()), reader.generation()
    values = config_to_hf(reader.config(), dtype, generation)
    with staged_directory(path, force=force) as directory:
        model = load_model(reader.path, dtype=dtype, scheme=scheme, progress=progress).model
        save_packed(model, directory / PACKED_NAME, source="")
        write_json(directory / "config.json", values)
        write_json(directory / "generation_config.json", generation_to_hf(generation))
        write_tokenizer_files(directory, reader.tokenizer_source(), reader.metadata().chat_template)
    return path
