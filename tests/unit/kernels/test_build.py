"""The developer's build, and the kernels under the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamakit.kernels.cpu import build

HERE = Path(__file__).parent
needs_compiler = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which(os.environ.get("CXX", "c++")) is None,
    reason="needs cmake and a C++ compiler",
)


def test_without_cmake_it_says_what_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"cmake 3\.18 or newer and a C\+\+17 compiler"):
        build.build(tmp_path)
    assert list(tmp_path.iterdir()) == []


RUN = """
import pathlib, sys
import pytest
from llamakit.kernels import native
native.HERE = pathlib.Path(sys.argv[1])
assert native.library() is not None
raise SystemExit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.slow
@needs_compiler
@pytest.mark.timeout(1800)
def test_no_kernel_leaves_its_memory_or_defined_behaviour(tmp_path: Path) -> None:
    build.build(tmp_path, sanitize=True)
    compiler = os.environ.get("CXX", "c++")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], check=True, capture_output=True, text=True)
    runtime = Path(found.stdout.strip())
    if not runtime.is_absolute():
        pytest.skip(f"{compiler} has no libasan.so to preload")
    # The interpreter and PyTorch keep memory until the end: leaks are not the question here.
    environ = os.environ | {
        "LD_PRELOAD": str(runtime),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1",
    }
    names = ("matmul", "attention", "int8_pool", "packed", "grouped", "rows", "table")
    tests = [str(HERE / f"test_{name}.py") for name in names]
    tests += [str(HERE.parent / "quant" / f"test_{name}.py") for name in ("fused", "fused_paged")]
    subprocess.run([sys.executable, "-c", RUN, str(tmp_path), *tests], check=True, env=environ, cwd=HERE.parents[2])
