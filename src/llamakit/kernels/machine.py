"""What this machine can do at best: bytes read per second and floating-point operations per second.

The two ceilings of inference: decoding reads every weight for one token (bandwidth), a long prompt multiplies
them by many rows (compute). Measured, not looked up; medians over repeats, in the dtype and threads asked about.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

DEFAULT_BUFFER_BYTES = 512 << 20
"""Larger than any cache, so that every pass comes from memory."""
DEFAULT_SIDE = 1024
_WARM_UP = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Measured ceilings."""

    read_bytes_per_s: float
    """Best median over the ways of reading that were tried."""
    flops_per_s: float
    """Multiply and add counted as two."""
    dtype: str
    device: str
    threads: int


def measure_limits(
    dtype: torch.dtype,
    *,
    device: torch.device | str = "cpu",
    buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    side: int = DEFAULT_SIDE,
    repeats: int = 7,
) -> Limits:
    """Measure with the threads torch is set to; takes about a second and `buffer_bytes` of memory."""
    place = torch.device(device)
    return Limits(
        read_bytes_per_s=_read_bandwidth(place, buffer_bytes, repeats),
        flops_per_s=_matmul_flops(dtype, place, side, repeats),
        dtype=str(dtype).removeprefix("torch."),
        device=str(place),
        threads=torch.get_num_threads(),
    )


def _read_bandwidth(device: torch.device, buffer_bytes: int, repeats: int) -> float:
    """Bytes per second of the fastest of three plain reads: a sum, a maximum, a matrix times a vector."""
    columns = 4096
    rows = max(buffer_bytes // (4 * columns), 1)
    matrix = torch.ones(rows, columns, device=device)
    vector = torch.ones(columns, device=device)
    flat = matrix.view(-1)
    reads: tuple[Callable[[], object], ...] = (lambda: flat.sum(), lambda: flat.amax(), lambda: matrix @ vector)
    return matrix.nbytes / min(_median_s(read, device, repeats) for read in reads)


def _matmul_flops(dtype: torch.dtype, device: torch.device, side: int, repeats: int) -> float:
    """Operations per second of a square matrix product, the shape in which nothing but arithmetic counts."""
    left = torch.full((side, side), 0.5, dtype=dtype, device=device)
    right = torch.full((side, side), 0.25, dtype=dtype, device=device)
    return 2 * side**3 / _median_s(lambda: left @ right, device, repeats)


def _median_s(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    for _ in range(_WARM_UP):
        work()
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
