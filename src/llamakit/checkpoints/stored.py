"""One tensor at rest: where its bytes lie in which file, and the three ways of bringing it to memory.

`map` shares the file's pages, `read_into` fills memory the caller owns piece by piece, `load` picks
whichever fits the wanted dtype. Knows no names and no container format.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from llamakit.checkpoints.checked_file import CheckedFile

CHUNK_VALUES = 2**20
"""Numbers converted at once; decoding a quantized chunk takes some ten times their float32 size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How values lie in bytes: blocks of `block_values` numbers in `block_bytes` bytes."""

    name: str
    block_values: int
    block_bytes: int
    dtype: torch.dtype
    """What `decode` gives; for plain numbers the dtype itself."""
    decode: Callable[[Tensor], Tensor] | None = None
    """uint8 `[n, block_bytes]` -> `dtype` `[n, block_values]`; None when the bytes are the numbers."""


PLAIN = {
    dtype: Encoding(name=name, block_values=1, block_bytes=dtype.itemsize, dtype=dtype)
    for name, dtype in (
        ("F64", torch.float64),
        ("F32", torch.float32),
        ("F16", torch.float16),
        ("BF16", torch.bfloat16),
    )
}

BYTES = Encoding(name="I8", block_values=1, block_bytes=1, dtype=torch.int8)
"""Signed bytes: no numbers of a model by themselves, but codes of a quantized one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """Shape of a tensor and the dtype it has when loaded without a wish."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    encoding: str
    """Name of the stored encoding, as in "BF16" or "Q4_K"."""
    nbytes: int
    """Bytes on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor in a file; the container's reader has checked that its bytes lie inside."""

    file: CheckedFile
    offset: int
    shape: tuple[int, ...]
    encoding: Encoding
    stride: tuple[int, ...] | None = None
    """In values, for a plain encoding that is not stored row by row; None when it is."""

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes from the first value to the last."""
        if self.stride is not None:
            return self.encoding.block_bytes * span(self.shape, self.stride)
        return self.numel // self.encoding.block_values * self.encoding.block_bytes

    @property
    def info(self) -> TensorInfo:
        """Shape and dtype, without reading."""
        return TensorInfo(shape=self.shape, dtype=self.encoding.dtype, encoding=self.encoding.name, nbytes=self.nbytes)

    def map(self) -> Tensor:
        """The tensor over the file's own pages (plain encodings only); copied if its address is not aligned."""
        if self.encoding.decode is not None:
            raise ValueError(f"a {self.encoding.name} tensor cannot be mapped")
        self.file.check_range(self.offset, self.nbytes, "a tensor")
        source, start = self.file.map(), self.offset
        if start % self.encoding.dtype.itemsize:
            source, start = bytearray(memoryview(source)[start : start + self.nbytes]), 0
        count = self.nbytes // self.encoding.block_bytes
        flat = torch.frombuffer(source, dtype=self.encoding.dtype, count=count, offset=start)
        return flat.view(self.shape) if self.stride is None else flat.as_strided(self.shape, self.stride)

    def release(self) -> None:
        """Let the pages go that `map` has brought to memory; the tensor stays valid, what was changed in it is lost."""
        self.file.release(self.offset, self.nbytes)

    def load(self, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor as `dtype`: mapped when it is stored so, else converted in pieces of a few MiB."""
        if self.encoding.decode is None and dtype in (None, self.encoding.dtype):
            return self.map()
        target = torch.empty(self.shape, dtype=dtype or self.encoding.dtype)
        self.read_into(target)
        return target

    def read_into(self, target: Tensor) -> None:
        """Convert into `target`, which has this shape and may be a slice of a larger tensor."""
        if self.stride is not None:
            target.copy_(self.map())
        elif target.is_contiguous():
            self._fill(target.view(-1, self.encoding.block_values))
        else:
            # A slice along the columns: rows are the largest piece that is contiguous on both sides.
            self._fill(target.view(target.shape[0], -1))

    def _fill(self, target: Tensor) -> None:
        row_values = target.shape[1]
        row_bytes = row_values // self.encoding.block_values * self.encoding.block_bytes
        num_rows = max(1, CHUNK_VALUES // row_values)
        done = 0
        for chunk in self.file.chunks(self.offset, self.nbytes, num_rows * row_bytes):
            count = len(chunk) // row_bytes
            if self.encoding.decode is None:
                values = torch.frombuffer(chunk, dtype=self.encoding.dtype)
            else:
                blocks = torch.frombuffer(chunk, dtype=torch.uint8).view(-1, self.encoding.block_bytes)
                values = self.encoding.decode(blocks)
            target[done : done + count].copy_(values.view(count, row_values))
            done += count


def span(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Values from the first to the last element of a strided tensor, inclusive."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
