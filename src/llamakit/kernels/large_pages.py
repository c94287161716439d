"""Weights in large pages: fewer missing addresses for the processor, about a tenth more tokens a second.

Done beside the first answers, so that a start does not wait for it, and a while after it, so that it does not compete
with the first step. Until then the small pages of a mapped file are put in place, many in one call, instead of one
fault for each. Knows tensors, not models; what is moved must not be written any more.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from llamakit.kernels import native

_SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SMALLEST = 4 << 20
"""Bytes of a stretch below which moving it is not worth a system call."""
# Linux 5.14 and later. In pieces: nothing else of the process can be mapped while one lasts.
_MADV_POPULATE_READ, _PIECE, _PAGE = 22, 32 << 20, 4096
_NEIGHBOURS = 64
"""Bytes between two tensors of one file, which aligns them to so many."""


def are_granted() -> bool:
    """Whether this system gives large pages to programs that ask."""
    try:
        return "[never]" not in _SWITCH.read_text()
    except OSError:
        return False


def settle(tensors: Iterable[Tensor], *, after_s: float = 0.0) -> threading.Thread | None:
    """Move the memory of CPU tensors into large pages, in a thread of its own that keeps them alive; None without.

    Its small pages are put in place at once, and moved after `after_s` seconds.
    """
    kept = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.is_contiguous()]
    library = native.library()
    stretches = [stretch for stretch in _stretches(kept) if stretch[1] - stretch[0] >= _SMALLEST]
    if library is None or not stretches or not are_granted():
        return None

    def move(alive: list[Tensor] = kept) -> None:
        _put_in_place(stretches)
        time.sleep(after_s)
        for start, end in stretches:
            if library.settle(start, end - start) == 0:
                return  # The system has none left.
        alive.clear()

    thread = threading.Thread(target=move, name="large pages", daemon=True)
    thread.start()
    return thread


def _put_in_place(stretches: list[tuple[int, int]]) -> None:
    """Map pages that are in memory anyway; a hint, which any system may refuse."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise  # Foreign, so the interpreter goes on meanwhile.
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start, end in stretches:
        for at in range(start // _PAGE * _PAGE, end, _PIECE):
            if advise(at, min(_PIECE, end - at), _MADV_POPULATE_READ):
                return


def _stretches(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    """Addresses from and to, those that lie side by side as one."""
    places = sorted((t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in tensors if t.numel())
    made: list[tuple[int, int]] = []
    for start, end in places:
        if made and start - made[-1][1] <= _NEIGHBOURS:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made
