"""Reader of directories with packed weights: Hugging Face's small files beside one `model.packed`.

What `llama quantize --to int4` writes (`packed_write`). The weights are mapped, never read: they start at once and are
shared between processes. The layout is that of this package's kernels (`quant.packed_file`); to exchange a model,
write GGUF.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from llamakit.checkpoints.checked_file import read_json
from llamakit.checkpoints.hf_config import config_from_hf, generation_from_hf
from llamakit.checkpoints.reader import (
    Generation,
    Metadata,
    Reader,
    StoredMatrix,
    TokenizerSource,
    main_encoding,
    tokenizer_directory,
)
from llamakit.checkpoints.stored import PLAIN, TensorInfo
from llamakit.core.model_config import ModelConfig
from llamakit.kernels.grouped import GroupedWeight, unpack_grouped_rows
from llamakit.kernels.packed import PackedWeight, rotate, unpack_rows
from llamakit.kernels.table import TableWeight, table_rows
from llamakit.quant.packed_file import PackedFile
from llamakit.text.hf_tokenizer import read_chat_template

PACKED_NAME: Final = "model.packed"
_CHUNK_ROWS = 1024


class PackedReader(Reader):
    """A directory with config.json and model.packed."""

    kind = "packed"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = read_json(path / "config.json")
        self._config = config_from_hf(self._values, path / "config.json")
        self._file = PackedFile(path / PACKED_NAME)
        self._places = {self._canonical(name): name for name in self._file.names()}

    def _canonical(self, name: str) -> str:
        return name if self._file.bits(name) is None else f"{name}.weight"

    def config(self) -> ModelConfig:
        return self._config

    def generation(self) -> Generation:
        path = self.path / "generation_config.json"
        return generation_from_hf(self._values, read_json(path) if path.is_file() else {}, path)

    def metadata(self) -> Metadata:
        infos = self.infos()
        return Metadata(
            architecture="llama",
            name=None,
            quantization=main_encoding(infos),
            num_parameters=self._config.num_parameters,
            num_bytes=sum(info.nbytes for info in infos.values()),
            chat_template=read_chat_template(self.path),
        )

    def tokenizer_source(self) -> TokenizerSource:
        return tokenizer_directory(self.path)

    def infos(self) -> Mapping[str, TensorInfo]:
        return {name: self._info(place) for name, place in self._places.items()}

    def _info(self, place: str) -> TensorInfo:
        shape, bits, nbytes = self._file.shape(place), self._file.bits(place), self._file.num_bytes(place)
        if bits is not None:
            return TensorInfo(shape=shape, dtype=torch.float32, encoding=f"INT{bits}", nbytes=nbytes)
        dtype = self._file.plain(place).dtype
        return TensorInfo(shape=shape, dtype=dtype, encoding=PLAIN[dtype].name, nbytes=nbytes)

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        place = self._places[name]
        if self._file.bits(place) is None:
            return self._file.plain(place).to(dtype)
        weight, correction = self._file.matrix(place), self._file.correction(place)
        target = torch.empty(weight.shape, dtype=dtype or torch.float32)
        for start in range(0, weight.columns, _CHUNK_ROWS):
            rows = torch.arange(start, min(start + _CHUNK_ROWS, weight.columns))
            values = _unpack(weight, rows)
            if correction is not None:
                values += correction.scale * (correction.up[rows].float() @ correction.down.float())
            target[start : start + len(rows)] = values
        return target

    def matrix(self, name: str) -> StoredMatrix | None:
        place = self._places[name]
        if self._file.bits(place) is None:
            return None
        return StoredMatrix(weight=self._file.matrix(place), correction=self._file.correction(place))

    def is_quantized(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing to close: the file is mapped, and its tensors keep it."""


def _unpack(weight: GroupedWeight | PackedWeight | TableWeight, rows: Tensor) -> Tensor:
    if isinstance(weight, PackedWeight):
        return unpack_rows(weight, rows, torch.float32)
    if isinstance(weight, TableWeight):
        return table_rows(weight, rows, torch.float32)
    values = unpack_grouped_rows(weight, rows, torch.float32)
    return rotate(values, weight.rotation) * weight.rotation**-0.5 if weight.rotation else values
