"""Calls into the compiled kernels for grouped weights (`grouped_api.h`): tensors in, tensors out.

Knows the C border and nothing of when a kernel is the right one; beside `library`, which has the others.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from llamakit.kernels.cpu.library import DTYPES

_BAD_ROW = 3


class GroupedMatrix(Structure):
    """A grouped weight as the kernels see it (`lk_grouped`); whoever makes one keeps its tensors alive."""

    _fields_ = (
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("minima", c_void_p),
        ("columns", c_int64),
        ("depth", c_int64),
        ("rotation", c_int64),
        ("bits", c_int),
    )


_MATRIX = POINTER(GroupedMatrix)
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "lk_grouped_level": (c_int, [c_char_p]),
    "lk_grouped_linear": (None, [c_int, c_int, c_void_p, _MATRIX, c_void_p, c_int64, c_int]),
    "lk_grouped_rows": (c_int, [c_int, c_int, _MATRIX, c_void_p, c_int64, c_void_p, c_int]),
}


class GroupedLibrary:
    """The grouped kernels of the shared library at `path`, at one level; OSError when it has none."""

    def __init__(self, path: Path, level: str) -> None:
        self._lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            try:
                function = getattr(self._lib, name)
            except AttributeError as error:
                raise OSError(f"{path} has no {name}: it was built from other sources; build it again") from error
            function.restype, function.argtypes = result, arguments
        self._level: int = self._lib.lk_grouped_level(level.encode())
        if self._level < 0:
            raise OSError(f"{path} has no level {level}")

    def linear(self, x: Tensor, weight: GroupedMatrix, threads: int) -> Tensor:
        """`x [..., K]` times `weight [N, K]` transposed -> `[..., N]`."""
        x = x.contiguous()
        shape = x.shape[:-1]
        out = torch.empty(*shape, weight.columns, dtype=x.dtype)
        pointers = x.data_ptr(), byref(weight), out.data_ptr()
        self._lib.lk_grouped_linear(self._level, DTYPES[x.dtype], *pointers, shape.numel(), threads)
        return out

    def rows(self, weight: GroupedMatrix, rows_N: Tensor, dtype: torch.dtype, threads: int) -> Tensor:
        """The floats `[..., K]` that rows stand for; IndexError for a row that is not there."""
        rows_N = rows_N.contiguous()
        out = torch.empty(*rows_N.shape, weight.depth, dtype=dtype)
        pointers = byref(weight), rows_N.data_ptr(), rows_N.numel(), out.data_ptr()
        if self._lib.lk_grouped_rows(self._level, DTYPES[dtype], *pointers, threads) == _BAD_ROW:
            raise IndexError(f"a row lies outside the {weight.columns} of the matrix")
        return out
