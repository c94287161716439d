"""The machine's ceilings: plausible numbers, in the dtype and with the threads that were asked about."""

from __future__ import annotations

import pytest
import torch

from llamakit.kernels import machine


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_limits_are_positive_and_labelled(dtype: torch.dtype) -> None:
    limits = machine.measure_limits(dtype, buffer_bytes=8 << 20, side=64, repeats=2)
    assert limits.read_bytes_per_s > 1e6 and limits.flops_per_s > 1e6
    assert limits.dtype == str(dtype).removeprefix("torch.") and limits.device == "cpu"
    assert limits.threads == torch.get_num_threads()


def test_figures_are_work_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_median_s", lambda work, device, repeats: 0.5)
    limits = machine.measure_limits(torch.float32, buffer_bytes=1 << 20, side=100)
    assert limits.read_bytes_per_s == 2 * (1 << 20)
    assert limits.flops_per_s == 2 * 2 * 100**3


def test_the_fastest_way_of_reading_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([3.0, 1.0, 2.0, 1.0])
    monkeypatch.setattr(machine, "_median_s", lambda work, device, repeats: next(times))
    assert machine.measure_limits(torch.float32, buffer_bytes=1 << 20, side=8).read_bytes_per_s == 1 << 20
