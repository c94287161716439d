"""Calls into the compiled CPU kernels: tensors in, tensors out.

Knows the C border (`api.h`) and nothing of when a kernel is the right one: `llamakit.kernels.native` finds the
library, the modules beside it decide. The interpreter lock is free while a kernel runs.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

ABI = 8
"""Must equal LK_ABI in `api.h`."""

DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_BAD_SLOT, _BAD_BLOCK, _BAD_ROW = 1, 2, 3


class Matrix(Structure):
    """A weight as the kernels see it (`lk_matrix`); whoever makes one keeps its tensors alive."""

    _fields_ = (
        ("dense", c_void_p),
        ("stride", c_int64),
        ("codes", c_void_p),
        ("multipliers", c_void_p),
        ("scales", c_void_p),
        ("columns", c_int64),
        ("depth", c_int64),
        ("rotation", c_int64),
        ("halves", c_void_p),
        ("minima", c_void_p),
        ("bits", c_int),
    )


class Table(Structure):
    """A vocabulary of rows as the kernels see it (`lk_table`); whoever makes one keeps its tensors alive."""

    _fields_ = (("coarse", Matrix), ("rows", c_void_p), ("scales", c_void_p))


class Layer(Structure):
    """A decoder layer (`lk_layer`); whoever makes one keeps its tensors alive."""

    _fields_ = (
        ("attention_gain", c_void_p),
        ("feed_forward_gain", c_void_p),
        ("attention_eps", c_float),
        ("feed_forward_eps", c_float),
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        ("head_dim", c_int64),
    )


class Step(Structure):
    """What all layers of a step share (`lk_step`); whoever makes one keeps its tensors alive."""

    _fields_ = (
        ("tokens", c_int64),
        *((name, c_void_p) for name in ("cos", "sin", "slots", "query_starts", "context_lens", "block_tables")),
        *((name, c_int64) for name in ("sequences", "table_stride", "num_blocks", "block_tokens")),
        ("scale", c_float),
    )


class Pools(Structure):
    """Where a layer keeps its keys and values (`lk_pools`); whoever makes one keeps its tensors alive."""

    _fields_ = tuple((name, c_void_p) for name in ("k", "v", "k_scales", "v_scales"))


def dense_matrix(weight_NK: Tensor) -> Matrix:
    """A float weight whose rows are whole, perhaps strided."""
    columns, depth = weight_NK.shape
    return Matrix(weight_NK.data_ptr(), weight_NK.stride(0), None, None, None, columns, depth, 0)


_MATRIX = POINTER(Matrix)
_SIGNATURES: dict[str, tuple[type | None, list[type]]] = {
    "lk_abi": (c_int, []),
    "lk_levels": (c_char_p, []),
    "lk_select": (c_int, [c_char_p]),
    "lk_pin_threads": (None, []),
    "lk_linear": (None, [c_int, c_void_p, _MATRIX, c_void_p, c_int64, c_int]),
    "lk_attention_inputs": (
        None,
        [c_int, c_void_p, c_void_p, c_float, *[_MATRIX] * 3, *[c_void_p] * 5, c_int64, c_int64, c_int],
    ),
    "lk_feed_forward": (
        None,
        [c_int, c_void_p, c_void_p, c_void_p, c_float, *[_MATRIX] * 4, c_void_p, c_int64, c_int],
    ),
    "lk_pack": (None, [c_int, c_void_p, c_int64, _MATRIX, c_int]),
    "lk_unpack_rows": (c_int, [c_int, _MATRIX, c_void_p, c_int64, c_void_p, c_int]),
    "lk_table_pack": (None, [c_int, c_void_p, c_int64, POINTER(Table), c_int]),
    "lk_table_scores": (None, [POINTER(Table), c_void_p, c_void_p, c_int64, c_int]),
    "lk_table_rows": (c_int, [c_int, POINTER(Table), c_void_p, c_int64, c_void_p, c_int]),
    "lk_rms_norm": (None, [c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_float, c_int]),
    "lk_rotate": (None, [c_int, c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int]),
    "lk_swiglu": (None, [c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int64, c_int]),
    "lk_write_kv": (c_int, [c_int, c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int]),
    "lk_attention_int8": (c_int, [c_int, *[c_void_p] * 9, *[c_int64] * 7, c_float, c_int]),
    "lk_write_kv_int8": (c_int, [c_int, *[c_void_p] * 4, *[c_int64] * 4, c_int]),
    "lk_run_layers": (
        c_int,
        [c_int, c_int, POINTER(POINTER(Layer)), POINTER(Pools), c_int64, POINTER(Step), c_void_p, c_void_p, c_int],
    ),
    "lk_settle": (c_int64, [c_void_p, c_int64]),
    "lk_work": (c_int64, [c_int, c_int64]),
    "lk_read": (c_int64, [c_void_p, c_int64, c_int]),
    "lk_attention": (c_int, [c_int, c_int, *[c_void_p] * 7, *[c_int64] * 7, c_float, c_int]),
}


def takes(*tensors: Tensor) -> bool:
    """Whether all tensors are of one dtype that the kernels read."""
    dtype = tensors[0].dtype
    return dtype in DTYPES and all(t.dtype == dtype for t in tensors)


class Library:
    """The shared library at `path`; raises OSError when it cannot be loaded or is of another version."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            try:
                function = getattr(self._lib, name)
            except AttributeError as error:
                raise OSError(f"{path} has no {name}: it was built from other sources; build it again") from error
            function.restype, function.argtypes = result, arguments
        if (found := self._lib.lk_abi()) != ABI:
            raise OSError(f"{path} has version {found}, wanted {ABI}: it was built from other sources; build it again")
        self.levels: tuple[str, ...] = self._lib.lk_levels().decode().split()
        """Instruction sets that this build and this processor share, best first."""
        self.level = self.levels[0]

    def pin_threads(self) -> None:
        """Keep each thread that is made from now on at a processor of its own (Linux)."""
        self._lib.lk_pin_threads()

    def select(self, level: str) -> None:
        """Run all kernels of this process with the instruction set `level`, one of `levels`."""
        if not self._lib.lk_select(level.encode()):
            raise ValueError(f"level {level!r} is not among {', '.join(self.levels)}")
        self.level = level

    def linear(self, x: Tensor, weight: Matrix, threads: int) -> Tensor:
        """`x [..., K]` times `weight [N, K]` transposed -> `[..., N]`."""
        x = x.contiguous()
        shape = x.shape[:-1]
        out = torch.empty(*shape, weight.columns, dtype=x.dtype)
        rows = shape.numel()
        self._lib.lk_linear(DTYPES[x.dtype], x.data_ptr(), byref(weight), out.data_ptr(), rows, threads)
        return out

    def attention_inputs(
        self,
        x_NE: Tensor,
        gain: Tensor,
        eps: float,
        weights: tuple[Matrix, Matrix, Matrix],
        rope: tuple[Tensor, Tensor],
        head_dim: int,
        threads: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Norm, the q, k and v projections, rotary positions of q and k -> `[N, H, D]`, `[N, K, D]`, `[N, K, D]`."""
        x_NE = x_NE.contiguous()
        num_tokens = x_NE.shape[0]
        outs = [torch.empty(num_tokens, w.columns // head_dim, head_dim, dtype=x_NE.dtype) for w in weights]
        cos, sin = rope[0].contiguous(), rope[1].contiguous()
        self._lib.lk_attention_inputs(
            DTYPES[x_NE.dtype],
            x_NE.data_ptr(),
            gain.data_ptr(),
            eps,
            *map(byref, weights),
            cos.data_ptr(),
            sin.data_ptr(),
            *[out.data_ptr() for out in outs],
            num_tokens,
            head_dim,
            threads,
        )
        return outs[0], outs[1], outs[2]

    def feed_forward(
        self,
        x_NE: Tensor,
        mixed: Tensor,
        gain: Tensor,
        eps: float,
        weights: tuple[Matrix, Matrix, Matrix, Matrix],
        threads: int,
    ) -> Tensor:
        """`y + down(silu(gate(n)) * up(n))` with `y = x + o(mixed)` and `n` its norm; weights: o, gate, up, down."""
        x_NE, mixed = x_NE.contiguous(), mixed.contiguous()
        out = torch.empty_like(x_NE)
        self._lib.lk_feed_forward(
            DTYPES[x_NE.dtype],
            x_NE.data_ptr(),
            mixed.data_ptr(),
            gain.data_ptr(),
            eps,
            *map(byref, weights),
            out.data_ptr(),
            x_NE.shape[0],
            threads,
        )
        return out

    def pack(self, weight_NK: Tensor, to: Matrix, threads: int) -> None:
        """Fill the tensors behind `to` from a float matrix."""
        stride = weight_NK.stride(0)
        self._lib.lk_pack(DTYPES[weight_NK.dtype], weight_NK.data_ptr(), stride, byref(to), threads)

    def unpack_rows(self, weight: Matrix, rows_N: Tensor, dtype: torch.dtype, threads: int) -> Tensor:
        """The floats `[..., K]` that rows of a packed weight stand for; IndexError for a row that is not there."""
        rows_N = rows_N.contiguous()
        out = torch.empty(*rows_N.shape, weight.depth, dtype=dtype)
        code = self._lib.lk_unpack_rows(
            DTYPES[dtype], byref(weight), rows_N.data_ptr(), rows_N.numel(), out.data_ptr(), threads
        )
        if code == _BAD_ROW:
            raise IndexError(f"a row lies outside the {weight.columns} of the matrix")
        return out

    def table_pack(self, from_NK: Tensor, to: Table, threads: int) -> None:
        """Fill the tensors behind `to` from a float matrix."""
        self._lib.lk_table_pack(DTYPES[from_NK.dtype], from_NK.data_ptr(), from_NK.stride(0), byref(to), threads)

    def table_scores(self, table: Table, x_MK: Tensor, threads: int) -> Tensor:
        """Float32 scores `[M, columns]` of float32 rows `[M, depth]`."""
        x_MK = x_MK.contiguous()
        out = torch.empty(x_MK.shape[0], table.coarse.columns)
        self._lib.lk_table_scores(byref(table), x_MK.data_ptr(), out.data_ptr(), x_MK.shape[0], threads)
        return out

    def table_rows(self, table: Table, ids_N: Tensor, dtype: torch.dtype, threads: int) -> Tensor:
        """The floats `[..., depth]` that rows of a table stand for; IndexError for a row that is not there."""
        ids_N = ids_N.contiguous()
        out = torch.empty(*ids_N.shape, table.coarse.depth, dtype=dtype)
        code = self._lib.lk_table_rows(
            DTYPES[dtype], byref(table), ids_N.data_ptr(), ids_N.numel(), out.data_ptr(), threads
        )
        if code == _BAD_ROW:
            raise IndexError(f"a row lies outside the {table.coarse.columns} of the table")
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, threads: int) -> Tensor:
        """Rows of `x [..., D]` over their root mean square, times `weight [D]`."""
        x, weight = x.contiguous(), weight.contiguous()
        dim = x.shape[-1]
        out = torch.empty_like(x)
        self._lib.lk_rms_norm(
            DTYPES[x.dtype],
            x.data_ptr(),
            weight.data_ptr(),
            out.data_ptr(),
            x.numel() // dim if dim else 0,
            dim,
            eps,
            threads,
        )
        return out

    def rotate(self, x_NHD: Tensor, cos_N1P: Tensor, sin_N1P: Tensor, threads: int) -> Tensor:
        """Pairs (i, i + D/2) of `x` turned by float32 angles."""
        x_NHD, cos_N1P, sin_N1P = x_NHD.contiguous(), cos_N1P.contiguous(), sin_N1P.contiguous()
        out = torch.empty_like(x_NHD)
        self._lib.lk_rotate(
            DTYPES[x_NHD.dtype],
            x_NHD.data_ptr(),
            cos_N1P.data_ptr(),
            sin_N1P.data_ptr(),
            out.data_ptr(),
            *x_NHD.shape,
            threads,
        )
        return out

    def swiglu(self, gate: Tensor, up: Tensor, threads: int) -> Tensor:
        """`silu(gate) * up`."""
        gate, up = gate.contiguous(), up.contiguous()
        dim = gate.shape[-1]
        out = torch.empty_like(gate)
        self._lib.lk_swiglu(
            DTYPES[gate.dtype],
            gate.data_ptr(),
            up.data_ptr(),
            out.data_ptr(),
            gate.numel() // dim if dim else 0,
            dim,
            dim,
            dim,
            threads,
        )
        return out

    def write_kv(self, pool: Tensor, slots_N: Tensor, rows_NKD: Tensor, threads: int) -> None:
        """Store rows at `slots` of a pool `[blocks, block_tokens, K, D]`; IndexError, with nothing stored, outside."""
        rows_NKD, slots_N = rows_NKD.contiguous(), slots_N.contiguous()
        num_slots = pool.shape[0] * pool.shape[1]
        code = self._lib.lk_write_kv(
            DTYPES[rows_NKD.dtype],
            DTYPES[pool.dtype],
            rows_NKD.data_ptr(),
            pool.data_ptr(),
            slots_N.data_ptr(),
            rows_NKD.shape[0],
            num_slots,
            pool.shape[2] * pool.shape[3],
            threads,
        )
        if code == _BAD_SLOT:
            raise IndexError(f"a slot lies outside the pool of {num_slots} slots")

    def write_kv_int8(self, pool: Tensor, scales: Tensor, slots_N: Tensor, rows_NKD: Tensor, threads: int) -> None:
        """Round rows to bytes at `slots` of a pool and its scales; IndexError, with nothing stored, outside."""
        rows_NKD, slots_N = rows_NKD.contiguous(), slots_N.contiguous()
        num_slots = pool.shape[0] * pool.shape[1]
        code = self._lib.lk_write_kv_int8(
            DTYPES[rows_NKD.dtype],
            rows_NKD.data_ptr(),
            pool.data_ptr(),
            scales.data_ptr(),
            slots_N.data_ptr(),
            rows_NKD.shape[0],
            num_slots,
            pool.shape[2],
            pool.shape[3],
            threads,
        )
        if code == _BAD_SLOT:
            raise IndexError(f"a slot lies outside the pool of {num_slots} slots")

    def attention(
        self,
        q_NHD: Tensor,
        k_pool: Tensor,
        v_pool: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        block_tables: Tensor,
        scale: float,
        threads: int,
        scales: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Paged attention; the three tables are contiguous int32. IndexError when a table leaves the pool.

        Pools of int8 come with the `scales` of their keys and values.
        """
        q_NHD = q_NHD.contiguous()
        _, num_heads, head_dim = q_NHD.shape
        num_blocks, block_tokens, num_kv, _ = k_pool.shape
        out = torch.empty_like(q_NHD)
        pools = (k_pool.data_ptr(), v_pool.data_ptr())
        rest = (
            out.data_ptr(),
            query_starts.data_ptr(),
            context_lens.data_ptr(),
            block_tables.data_ptr(),
            context_lens.shape[0],
            block_tables.shape[1],
            num_blocks,
            block_tokens,
            num_heads,
            num_kv,
            head_dim,
            scale,
            threads,
        )
        dtype, q = DTYPES[q_NHD.dtype], q_NHD.data_ptr()
        if scales is None:
            code = self._lib.lk_attention(dtype, DTYPES[k_pool.dtype], q, *pools, *rest)
        else:
            code = self._lib.lk_attention_int8(dtype, q, *pools, scales[0].data_ptr(), scales[1].data_ptr(), *rest)
        if code == _BAD_BLOCK:
            raise IndexError(
                f"a block table of width {block_tables.shape[1]} does not cover its context inside {num_blocks} blocks"
            )
        return out

    def run_layers(
        self,
        x_NE: Tensor,
        layers: ctypes.Array[ctypes._Pointer[Layer]],
        pools: ctypes.Array[Pools],
        pool_dtype: torch.dtype,
        step: Step,
        threads: int,
    ) -> Tensor:
        """Whole decoder layers, one after another, each over its pools of keys and values, which it fills.

        IndexError, with nothing changed, when a slot or a table leaves the pools.
        """
        x_NE = x_NE.contiguous()
        out = torch.empty_like(x_NE)
        code = self._lib.lk_run_layers(
            DTYPES[x_NE.dtype],
            DTYPES.get(pool_dtype, 0),  # scales tell integers
            layers,
            pools,
            len(layers),
            byref(step),
            x_NE.data_ptr(),
            out.data_ptr(),
            threads,
        )
        if code == _BAD_SLOT:
            raise IndexError(f"a slot lies outside the pool of {step.num_blocks * step.block_tokens} slots")
        if code == _BAD_BLOCK:
            raise IndexError(
                f"a block table of width {step.table_stride} does not cover its context inside {step.num_blocks} blocks"
            )
        return out

    def settle(self, address: int, num_bytes: int) -> int:
        """Move memory that nobody writes any more into large pages, where it is; the bytes moved."""
        return self._lib.lk_settle(address, num_bytes)

    def work(self, unit: str, rounds: int) -> int:
        """Multiply and add `rounds` times out of registers with the unit for `float`, `half` or `byte` values.

        Returns the operations done, two for each product. What a product can reach at most.
        """
        return self._lib.lk_work(("float", "half", "byte").index(unit), rounds)

    def read(self, memory: Tensor, threads: int) -> int:
        """Read a contiguous tensor in order, all of its whole MiB; returns the bytes read."""
        return self._lib.lk_read(memory.data_ptr(), memory.numel() * memory.element_size(), threads)
