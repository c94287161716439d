"""Reader of Hugging Face directories: config.json with one or many safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llamakit.checkpoints.checked_file import MAX_HEADER_BYTES, MAX_TENSORS, read_json
from llamakit.checkpoints.hf_config import config_from_hf, generation_from_hf
from llamakit.checkpoints.reader import (
    Generation,
    Metadata,
    Reader,
    TokenizerSource,
    main_encoding,
    tokenizer_directory,
)
from llamakit.checkpoints.safetensors_file import SafetensorsFile
from llamakit.checkpoints.stored import StoredTensor, TensorInfo
from llamakit.checkpoints.tied import drop_tied_head
from llamakit.core.errors import CheckpointError
from llamakit.core.model_config import ModelConfig
from llamakit.text.hf_tokenizer import read_chat_template

INDEX_NAME = "model.safetensors.index.json"
_MAX_SHARDS = 1000


class HfReader(Reader):
    """A directory, or one safetensors file with its config.json beside it."""

    kind = "hf"

    def __init__(self, path: Path, files: list[Path], index: Path | None = None) -> None:
        self.path = path
        self._directory = path if path.is_dir() else path.parent
        self._values = read_json(self._directory / "config.json")
        self._shards: list[SafetensorsFile] = []
        try:
            self._tensors = self._open_shards(files, index)
            self._tensors = drop_tied_head(self._tensors, self.config(), path)
        except BaseException:
            self.close()
            raise

    def _open_shards(self, files: list[Path], index: Path | None) -> dict[str, StoredTensor]:
        tensors: dict[str, StoredTensor] = {}
        for file in files:
            self._shards.append(shard := SafetensorsFile(file))
            for name, tensor in shard.tensors.items():
                if name in tensors:
                    raise CheckpointError(f"{file}: tensor {name[:200]!r} is in another shard too")
                # Old exports keep the rotary frequencies as a buffer; they follow from the config.
                if not name.endswith(".rotary_emb.inv_freq"):
                    tensors[name] = tensor
            if len(tensors) > MAX_TENSORS:
                raise CheckpointError(f"{self.path}: has more than {MAX_TENSORS} tensors")
        if index is not None:
            absent = [name for name in read_index(index) if name not in tensors and not name.endswith(".inv_freq")]
            if absent:
                listed = ", ".join(name[:200] for name in absent[:5])
                raise CheckpointError(f"{index}: {len(absent)} tensors are in no shard, first: {listed}")
        return tensors

    def config(self) -> ModelConfig:
        return config_from_hf(self._values, self._directory / "config.json")

    def generation(self) -> Generation:
        path = self._directory / "generation_config.json"
        return generation_from_hf(self._values, read_json(path) if path.is_file() else {}, path)

    def metadata(self) -> Metadata:
        infos = self.infos()
        return Metadata(
            architecture="llama",
            name=None,
            quantization=main_encoding(infos),
            num_parameters=self.config().num_parameters,
            num_bytes=sum(info.nbytes for info in infos.values()),
            chat_template=read_chat_template(self._directory),
        )

    def tokenizer_source(self) -> TokenizerSource:
        return tokenizer_directory(self._directory)

    def infos(self) -> Mapping[str, TensorInfo]:
        return {name: tensor.info for name, tensor in self._tensors.items()}

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        return self._tensors[name].load(dtype)

    def release(self, name: str) -> None:
        self._tensors[name].release()

    def close(self) -> None:
        for shard in self._shards:
            shard.close()


def read_index(path: Path) -> dict[str, str]:
    """The weight map of an index file: tensor name -> plain file name beside it."""
    weight_map = read_json(path, max_bytes=MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not 0 < len(weight_map) <= MAX_TENSORS:
        raise CheckpointError(f"{path}: weight_map must be an object of 1 to {MAX_TENSORS} tensors")
    for shard in weight_map.values():
        # A path here could point at any file of the machine.
        if (
            not isinstance(shard, str)
            or shard != Path(shard).name
            or "\\" in shard
            or not shard.endswith(".safetensors")
        ):
            raise CheckpointError(f"{path}: weight_map must give plain .safetensors names, found {str(shard)[:100]!r}")
    if len(set(weight_map.values())) > _MAX_SHARDS:
        raise CheckpointError(f"{path}: names more than {_MAX_SHARDS} shards")
    return weight_map
