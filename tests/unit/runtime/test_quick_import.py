from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys, threading
from llamakit.runtime import opening
from llamakit.runtime.quick_import import link_torch, unswept
assert "torch" not in sys.modules, "opening imports PyTorch before it knows what to open"
link_torch()
link_torch()
names = [thread.name for thread in threading.enumerate()]
assert names.count("linking torch") == (sys.platform == "linux"), names
with unswept():
    assert not gc.isenabled()
    import torch
assert gc.isenabled() and gc.get_freeze_count() > 0
assert torch.ones(3).sum() == 3
frozen = gc.get_freeze_count()
link_torch()
with unswept():
    assert gc.isenabled()
assert gc.get_freeze_count() == frozen
"""
FAILING = """
import gc
from llamakit.runtime.quick_import import unswept
try:
    with unswept():
        raise ImportError("no such thing")
except ImportError:
    pass
assert gc.isenabled() and gc.get_freeze_count() == 0
gc.disable()
with unswept():
    pass
assert not gc.isenabled()
"""


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_pytorch_is_linked_once_and_imported_without_sweeping() -> None:
    run(SCRIPT)


def test_sweeping_goes_on_after_a_failure_and_stays_off_where_it_was_off() -> None:
    run(FAILING)
