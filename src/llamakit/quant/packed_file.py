"""A quantized model as one file that is mapped, not read: the second start needs no packing.

Layout: `MAGIC`, the length of the header as 8 bytes little endian, the header as JSON, then the tensors, each at a
multiple of 64 bytes from the start. The header names where the model came from (`source`); a file of another source
is stale, not wrong. This is this package's own layout, tied to its kernels: a cache beside a checkpoint, or the weights
in a directory of `llama quantize`. Whoever changes the layout of packed weights gives `MAGIC` another number.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from llamakit.core.errors import CheckpointError
from llamakit.core.files import writing_durably
from llamakit.kernels.grouped import GroupedWeight
from llamakit.kernels.packed import PackedWeight
from llamakit.kernels.table import TableWeight, table_from
from llamakit.quant.convert import Weight, install, parts
from llamakit.quant.grouped import CorrectedLinear, GroupedEmbedding, GroupedLinear, LowRank
from llamakit.quant.linear import QuantizedEmbedding, QuantizedLinear, TableHead

MAGIC = b"llamakit packed 2\n"
MAX_HEADER_BYTES = 16 << 20
_ALIGNMENT = 64
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
# Linux 5.14 and later: map all pages now, in one call, instead of one fault for each.
_MADV_POPULATE_READ = 22


def source_of(checkpoint: Path, *settings: str) -> str:
    """What a packed file depends on: the checkpoint's files by name, size and time, and how it was packed."""
    files = sorted(checkpoint.rglob("*")) if checkpoint.is_dir() else [checkpoint]
    digest = hashlib.sha256(repr((str(checkpoint.resolve()), settings)).encode())
    for file in files:
        status = file.stat()
        digest.update(repr((file.name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def save_packed(model: nn.Module, path: Path, source: str) -> None:
    """Write a quantized CPU model; the file appears whole or not at all."""
    entries, tensors = _describe(model)
    place = 0
    for tensor, entry, key in tensors:
        entry[key] = place
        place += -(-_num_bytes(tensor) // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"source": source, "bytes": place, "tensors": entries}).encode()
    if len(header) > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: the header would take {len(header)} bytes, more than {MAX_HEADER_BYTES}")
    with writing_durably(path) as file:
        file.write(MAGIC + len(header).to_bytes(8, "little") + header)
        file.write(bytes(_data_start(len(header)) - file.tell()))
        for tensor, _, _ in tensors:
            _write(file, tensor)


def load_packed(model: nn.Module, path: Path, source: str) -> bool:
    """Give a model without weights (on `meta`) the packed ones; False when there is no file of this source.

    The tensors share the file's pages with every process that maps it; the file must not be changed in place. Raises
    CheckpointError when the file is damaged or is not of this model.
    """
    try:
        file = PackedFile(path, source=source)
    except (FileNotFoundError, OtherSource):
        return False
    for name in file.names():
        file.install(model, name)
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing[:5])} and {len(missing) - 1} more; delete it")
    return True


class OtherSource(Exception):
    """The file was packed from something else than was asked for."""


class PackedFile:
    """A mapped packed file: packed matrices and plain tensors by module or parameter name.

    Raises FileNotFoundError without a file, OtherSource when `source` is given and differs, CheckpointError for a
    damaged file. The file must not be changed in place while its tensors live.
    """

    def __init__(self, path: Path, *, source: str | None = None) -> None:
        self.path = path
        with path.open("rb") as file:
            header, start = _read_header(file, path)
            if source is not None and header["source"] != source:
                raise OtherSource(header["source"])
            size = file.seek(0, 2)
            if size < start + header["bytes"]:
                raise CheckpointError(f"{path} ends after {size} of {start + header['bytes']} bytes; delete it")
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        with suppress(OSError, ValueError):  # A hint: without it the pages come one by one.
            pages.madvise(_MADV_POPULATE_READ)
        self._view = _View(path, pages, start, header["bytes"])
        self._entries: dict[str, dict[str, Any]] = {}
        with self._told():
            for entry in header["tensors"]:
                if not isinstance(entry["name"], str) or entry["name"] in self._entries:
                    raise ValueError(f"the name {str(entry['name'])[:100]!r}")
                self._entries[entry["name"]] = entry

    def names(self) -> tuple[str, ...]:
        """Names of modules whose matrix is packed, and of plain parameters."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor that the entry stands for."""
        with self._told():
            entry = self._entries[name]
            found = [entry["columns"], entry["depth"]] if "bits" in entry else entry["shape"]
            if not all(type(length) is int and length >= 0 for length in found):
                raise ValueError(f"a tensor of shape {found}")
            return tuple(found)

    def bits(self, name: str) -> int | None:
        """Of a packed matrix; None for a plain tensor."""
        with self._told():
            bits = self._entries[name].get("bits")
            if bits not in (None, 4, 8):
                raise ValueError(f"{name} has {bits!r} bits")
            return bits

    def num_bytes(self, name: str) -> int:
        """Bytes of everything that the entry holds."""
        weight, correction = (self.matrix(name), self.correction(name)) if self.bits(name) else (None, None)
        if weight is None:
            return _num_bytes(self.plain(name))
        return weight.num_bytes + (0 if correction is None else _num_bytes(correction.down) + _num_bytes(correction.up))

    def plain(self, name: str) -> Tensor:
        """A plain tensor over the file's pages."""
        with self._told():
            entry = self._entries[name]
            return self._view.tensor(entry["values"], entry["shape"], _DTYPES[entry["dtype"]])

    def matrix(self, name: str) -> Weight:
        """A packed matrix over the file's pages."""
        with self._told():
            return _weight(self._entries[name], self._view)

    def correction(self, name: str) -> LowRank | None:
        """What an adapter adds to a packed matrix."""
        with self._told():
            return _correction(self._entries[name], self._view)

    def install(self, model: nn.Module, name: str) -> None:
        """Give one entry to a model."""
        with self._told():
            _restore(model, self._entries[name], self._view)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} does not hold this model ({error}); delete it") from error


@dataclass(frozen=True)
class _View:
    """Tensors over the mapped file."""

    path: Path
    pages: mmap.mmap
    start: int
    size: int

    def tensor(self, offset: int, shape: list[int], dtype: torch.dtype) -> Tensor:
        count = 1
        for length in shape:
            if not isinstance(length, int) or length < 0:
                raise ValueError(f"a tensor of shape {shape}")
            count *= length
        if not isinstance(offset, int) or not 0 <= offset <= self.size - count * dtype.itemsize:
            raise ValueError(f"a tensor at {offset} that leaves the file")
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self.pages, dtype=dtype, count=count, offset=self.start + offset).view(shape)


def _describe(model: nn.Module) -> tuple[list[dict[str, Any]], list[tuple[Tensor, dict[str, Any], str]]]:
    """Header entries, and every tensor with the entry and the key that shall hold its place."""
    entries: list[dict[str, Any]] = []
    tensors: list[tuple[Tensor, dict[str, Any], str]] = []
    for name, weight, dtype, correction in _packed_weights(model):
        entry: dict[str, Any] = {
            "name": name,
            "bits": weight.bits,
            "columns": weight.columns,
            "depth": weight.depth,
            "rotation": weight.rotation,
            "dtype": dtype,
        }
        entries.append(entry)
        found = parts(weight)
        if isinstance(weight, GroupedWeight):
            entry["groups"] = True
        elif isinstance(weight, TableWeight):
            entry["passes"] = 2
        if correction is not None:
            entry["correction"] = correction.scale
            found |= {"down": correction.down, "up": correction.up}
        for key, tensor in found.items():
            entry[f"{key}_shape"] = list(tensor.shape)
            tensors.append((tensor, entry, key))
    for name, parameter in model.named_parameters():
        entry = {"name": name, "dtype": _dtype_name(parameter.dtype), "shape": list(parameter.shape)}
        entries.append(entry)
        tensors.append((parameter.detach(), entry, "values"))
    return entries, tensors


def _packed_weights(
    model: nn.Module,
) -> Iterator[tuple[str, Weight, str, CorrectedLinear | None]]:
    corrected = {
        f"{name}.base": module for name, module in model.named_modules() if isinstance(module, CorrectedLinear)
    }
    for name, module in model.named_modules():
        correction = corrected.get(name)
        shown = name.removesuffix(".base") if correction is not None else name
        if isinstance(module, QuantizedEmbedding | GroupedEmbedding):
            yield shown, module.weight, _dtype_name(module.dtype), None
        elif isinstance(module, QuantizedLinear | GroupedLinear | TableHead):
            if isinstance(module, QuantizedLinear) and module.bias is not None:
                raise CheckpointError(f"{name} has a bias; only matrices without one are written to a packed file")
            dtype = "float32" if correction is None else _dtype_name(correction.down.dtype)
            yield shown, module.weight, dtype, correction


def _restore(model: nn.Module, entry: Mapping[str, Any], view: _View) -> None:
    name, dtype = entry["name"], _DTYPES[entry["dtype"]]
    if "bits" not in entry:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        old = module.get_parameter(leaf)
        if list(old.shape) != entry["shape"]:
            raise ValueError(f"{name} has shape {entry['shape']}, wanted {list(old.shape)}")
        values = view.tensor(entry["values"], entry["shape"], dtype)
        module.register_parameter(leaf, nn.Parameter(values, requires_grad=False))
        return
    wanted = list(model.get_submodule(name).get_parameter("weight").shape)
    if wanted != [entry["columns"], entry["depth"]]:
        raise ValueError(f"{name} is {entry['columns']} by {entry['depth']}, wanted {wanted}")
    install(model, name, _weight(entry, view), dtype, _correction(entry, view))


def _correction(entry: Mapping[str, Any], view: _View) -> LowRank | None:
    if "correction" not in entry:
        return None
    dtype = _DTYPES[entry["dtype"]]
    down, up = (view.tensor(entry[key], entry[f"{key}_shape"], dtype) for key in ("down", "up"))
    if down.ndim != 2 or list(up.shape) != [entry["columns"], down.shape[0]] or down.shape[1] != entry["depth"]:
        raise ValueError(f"{entry['name']} has a correction of {list(down.shape)} and {list(up.shape)}")
    return LowRank(down=down, up=up, scale=float(entry["correction"]))


def _weight(entry: Mapping[str, Any], view: _View) -> Weight:
    def part(key: str, dtype: torch.dtype) -> Tensor:
        return view.tensor(entry[key], entry[f"{key}_shape"], dtype)

    codes, columns, depth = part("codes", torch.uint8), entry["columns"], entry["depth"]
    if entry.get("groups"):
        scales, minima = part("scales", torch.float16), part("minima", torch.float16) if "minima" in entry else None
        return GroupedWeight(codes, scales, minima, columns, depth, entry["bits"], entry["rotation"])
    if entry.get("passes", 1) == 2:
        kinds = {"multipliers": torch.int8, "scales": torch.float32, "rows": torch.uint8, "row_scales": torch.float32}
        found = {"codes": codes} | {key: part(key, dtype) for key, dtype in kinds.items()}
        return table_from(found, columns, depth, entry["rotation"])
    multipliers = part("multipliers", torch.int8) if entry["bits"] == 4 else None
    return PackedWeight(codes, multipliers, part("scales", torch.float32), columns, depth, entry["rotation"])


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    start = file.read(len(MAGIC) + 8)
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if start[: len(MAGIC)] != MAGIC or length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path} is not a packed model of this version; delete it")
    try:
        header = json.loads(file.read(length))
        complete = isinstance(header["source"], str) and isinstance(header["bytes"], int) and header["bytes"] >= 0
        if not complete or not all(isinstance(entry, dict) for entry in header["tensors"]):
            raise ValueError("a field has the wrong type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header ({error}); delete it") from error
    return header, _data_start(length)


def _data_start(header_bytes: int) -> int:
    return -(-(len(MAGIC) + 8 + header_bytes) // _ALIGNMENT) * _ALIGNMENT


def _write(file: BinaryIO, tensor: Tensor) -> None:
    raw = tensor.contiguous().view(-1).view(torch.uint8).numpy()
    file.write(raw.data)
    file.write(bytes(-raw.nbytes % _ALIGNMENT))


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
