"""Importing PyTorch in less time: a quarter of it is linking one library, which needs no interpreter.

Knows where PyTorch keeps its libraries, and changes nothing of it: what is linked here is what its own import asks for
a moment later, with the same flags, and then finds done.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# In the order, and with the visibility, of `torch/__init__.py`.
_LIBRARIES = (("libtorch_global_deps.so", "RTLD_GLOBAL"), ("libtorch_cpu.so", "RTLD_LOCAL"))
# Modules of the standard library, in Python alone, that PyTorch imports; the others wait for the linker themselves.
_MEANWHILE = (
    "argparse", "calendar", "concurrent.futures", "glob", "http", "locale", "platform", "pprint", "signal", "textwrap",
    "unittest",
)  # fmt: skip
_state: list[threading.Thread] = []


def link_torch() -> None:
    """Begin to link PyTorch's library in a thread, beside whatever is imported meanwhile; Linux only, and only once."""
    if _state or "torch" in sys.modules or sys.platform != "linux":
        return
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "lib"
    _state.append(threading.Thread(target=_link, args=(folder,), name="linking torch", daemon=True))
    _state[0].start()


def _link(folder: Path) -> None:
    # `ctypes.CDLL` would hold the interpreter while it links; a foreign function lets go of it.
    link = ctypes.CDLL(None).dlopen
    link.argtypes, link.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
    for name, visibility in _LIBRARIES:
        # What cannot be linked here, PyTorch tries again and explains.
        if not link(os.fsencode(folder / name), os.RTLD_NOW | getattr(os, visibility)):
            return


@contextmanager
def unswept() -> Iterator[None]:
    """Import without the garbage collector, which would look at all that PyTorch makes several times over.

    What is there afterwards is taken to stay; does nothing where PyTorch is imported already.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        for name in _MEANWHILE if _state else ():
            importlib.import_module(name)
        yield
        gc.freeze()
    finally:
        gc.enable()
