"""Weights in large pages: fewer missing addresses for the processor, about a tenth more tokens a second.

Done beside the first answers, so that a start does not wait for it. Knows tensors, not models; what is moved must not
be written any more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from llamakit.kernels import native

_SWITCH = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SMALLEST = 4 << 20
"""Bytes of a stretch below which moving it is not worth a system call."""
_NEIGHBOURS = 64
"""Bytes between two tensors of one file, which aligns them to so many."""


def are_granted() -> bool:
    """Whether this system gives large pages to programs that ask."""
    try:
        return "[never]" not in _SWITCH.read_text()
    except OSError:
        return False


def settle(tensors: Iterable[Tensor]) -> threading.Thread | None:
    """Move the memory of CPU tensors into large pages, in a thread of its own that keeps them alive; None without."""
    kept = [tensor for tensor in tensors if tensor.device.type == "cpu" and tensor.is_contiguous()]
    library = native.library()
    stretches = [stretch for stretch in _stretches(kept) if stretch[1] - stretch[0] >= _SMALLEST]
    if library is None or not stretches or not are_granted():
        return None

    def move(alive: list[Tensor] = kept) -> None:
        for start, end in stretches:
            if library.settle(start, end - start) == 0:
                return  # The system has none left.
        alive.clear()

    thread = threading.Thread(target=move, name="large pages", daemon=True)
    thread.start()
    return thread


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
