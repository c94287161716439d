"""The kernels as registered operations: fake tensors, torch.compile, meta."""

from __future__ import annotations

import pytest
import torch
from tests.unit.kernels.paged import paged
from torch._subclasses.fake_tensor import FakeTensorMode

from llamakit.kernels.activation import swiglu
from llamakit.kernels.matmul import linear
from llamakit.kernels.norm import rms_norm

CHECKS = ("test_schema", "test_faketensor")


@torch.no_grad()
def test_operations_keep_their_schema_and_shapes() -> None:
    x, weight = torch.randn(3, 8), torch.randn(4, 8)
    torch.library.opcheck(torch.ops.llamakit.linear, (x, weight), test_utils=CHECKS)
    torch.library.opcheck(torch.ops.llamakit.rms_norm, (x, weight[0], 1e-5), test_utils=CHECKS)
    torch.library.opcheck(torch.ops.llamakit.swiglu, (x, x + 1), test_utils=CHECKS)
    q, angles = torch.randn(3, 2, 8), torch.randn(3, 1, 4)
    torch.library.opcheck(torch.ops.llamakit.rotate, (q, angles, angles + 1), test_utils=CHECKS)
    case = paged([(2, 5)], heads=2, kv_heads=1, dim=8, block_tokens=4)
    torch.library.opcheck(
        torch.ops.llamakit.paged_attention,
        (case.q_NHD, case.k_pool.nan_to_num(), case.v_pool.nan_to_num(), *case.batch.tables, case.scale),
        test_utils=CHECKS,
    )
    pool = torch.zeros(2, 4, 1, 8)
    rows = torch.randn(2, 1, 8)
    torch.library.opcheck(
        torch.ops.llamakit.write_kv, (pool, pool.clone(), torch.tensor([1, 6]), rows, rows + 1), test_utils=CHECKS
    )


@torch.no_grad()
def test_fake_and_meta_tensors_need_no_kernel() -> None:
    with FakeTensorMode():
        assert linear(torch.empty(5, 8), torch.empty(4, 8)).shape == (5, 4)
        assert rms_norm(torch.empty(5, 8), torch.empty(8), 1e-5).shape == (5, 8)
    assert linear(torch.empty(5, 8, device="meta"), torch.empty(4, 8, device="meta")).shape == (5, 4)


@pytest.mark.slow
@torch.no_grad()
def test_compiled_graphs_call_the_kernels() -> None:
    def block(x: torch.Tensor, gain: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        x = rms_norm(x, gain, 1e-5)
        return swiglu(linear(x, gate), linear(x, up))

    arguments = torch.randn(3, 16), torch.rand(16), torch.randn(24, 16), torch.randn(24, 16)
    assert torch.equal(torch.compile(block, fullgraph=True)(*arguments), block(*arguments))
