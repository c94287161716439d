"""What a level can do at best: it says how much it did, and the numbers are no smaller than a product's."""

from __future__ import annotations

import pytest
import torch

from llamakit.kernels import native
from llamakit.kernels.cpu.library import Library


@pytest.mark.parametrize("unit", ["float", "half", "byte"])
def test_work_grows_with_its_rounds(level: Library, unit: str) -> None:
    few = level.work(unit, 10)
    assert few > 0
    assert level.work(unit, 1000) == 100 * few


def test_reading_covers_whole_mebibytes(level: Library) -> None:
    memory = torch.zeros((5 << 20) + 7, dtype=torch.uint8)
    for threads in (1, 3):
        with native.using(level.level, threads=threads):
            assert level.read(memory, threads) == 5 << 20
