"""A path -> the reader of what lies there; the kind is told by content, never by the name of a directory."""

from __future__ import annotations

from pathlib import Path

from llamakit.checkpoints.gguf import GgufReader
from llamakit.checkpoints.gguf_file import MAGIC
from llamakit.checkpoints.hf import INDEX_NAME, HfReader, read_index
from llamakit.checkpoints.meta import SHARD
from llamakit.checkpoints.meta_quantized import open_meta
from llamakit.checkpoints.packed import PACKED_NAME, PackedReader
from llamakit.checkpoints.reader import Reader
from llamakit.core.errors import CheckpointError
from llamakit.hub.parts import missing_parts, models_among

_MAX_LISTED = 20
_WANTED = (
    "looked for config.json with *.safetensors (Hugging Face), params.json with consolidated.00.pth (Meta), "
    "or exactly one *.gguf, whole or in parts"
)


def open_checkpoint(path: str | Path) -> Reader:
    """The reader of a checkpoint directory or file.

    Raises `CheckpointError` when nothing readable is there (the message lists what was looked for and what
    was found), when the file is damaged, or when it holds something else than a Llama.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _open_directory(path)
        if path.exists():
            return _open_file(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise CheckpointError(f"{path}: no such file or directory; {_WANTED}")


def _open_directory(path: Path) -> Reader:
    entries = sorted(entry.name for entry in path.iterdir())
    safetensors = [name for name in entries if name.endswith(".safetensors") and not SHARD.fullmatch(name)]
    ggufs = [name for name in entries if name.endswith(".gguf")]
    if "config.json" in entries and PACKED_NAME in entries:
        return PackedReader(path)
    if "config.json" in entries and "model.safetensors" in entries:
        return HfReader(path, [path / "model.safetensors"])
    if "config.json" in entries and INDEX_NAME in entries:
        index = path / INDEX_NAME
        return HfReader(path, [path / name for name in sorted(set(read_index(index).values()))], index)
    if "config.json" in entries and len(safetensors) == 1:
        return HfReader(path, [path / safetensors[0]])
    if "params.json" in entries and any(SHARD.fullmatch(name) for name in entries):
        return open_meta(path)
    if len(models := models_among(ggufs)) == 1:
        return GgufReader(path / models[0])
    raise CheckpointError(f"{path}: no checkpoint; {_WANTED}; found {_listing(entries)}{_advice(entries)}")


def _open_file(path: Path) -> Reader:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == MAGIC:
        return GgufReader(path)
    if path.suffix == ".safetensors":
        if not (path.parent / "config.json").is_file():
            raise CheckpointError(f"{path}: needs a config.json beside it, which {path.parent} does not have")
        return HfReader(path, [path])
    if SHARD.fullmatch(path.name):
        raise CheckpointError(f"{path}: is one rank of a Meta checkpoint; open its directory {path.parent}")
    raise CheckpointError(f"{path}: is neither a GGUF file nor a .safetensors file with a config.json beside it")


def _listing(entries: list[str]) -> str:
    if not entries:
        return "nothing"
    more = f" and {len(entries) - _MAX_LISTED} more" if len(entries) > _MAX_LISTED else ""
    return ", ".join(entries[:_MAX_LISTED]) + more


def _advice(entries: list[str]) -> str:
    if len(models_among(entries)) > 1:
        return "; name one of the GGUF files"
    if lacking := missing_parts(entries):
        return f"; the GGUF model lacks {_listing(lacking)}"
    if any(name.startswith("pytorch_model") for name in entries):
        return "; pytorch_model.bin is a pickle of code and is never read, get the safetensors of this model"
    if "original" in entries:
        return "; the original directory may hold Meta's files, open that"
    return ""
