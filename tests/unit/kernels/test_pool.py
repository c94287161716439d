"""The threads that kernels share: every index of a job runs exactly once, however late a thread wakes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llamakit.kernels.cpu import build

HERE = Path(__file__).parent
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.slow
@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("threads", [2, 6])
def test_every_index_runs_exactly_once(threads: int, tmp_path: Path) -> None:
    program, sources = tmp_path / "stress", [str(HERE / "pool_stress.cpp"), str(build.HERE / "pool.cpp")]
    flags = ["-std=c++17", "-O2", "-pthread", f"-I{build.HERE}"]
    subprocess.run([str(COMPILER), *flags, *sources, "-o", str(program)], check=True)
    done = subprocess.run([str(program), str(threads), "10"], check=True, capture_output=True, text=True)
    jobs, wrong = map(int, done.stdout.split())
    assert jobs > 1000
    assert wrong == 0
