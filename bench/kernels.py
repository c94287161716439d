"""How close are the CPU kernels to the processor, and to PyTorch's own operations?

Every kernel on the matrix and attention shapes of Llama 3.2 1B or 3B, at each dispatch level asked for, beside the
stock operation that does the same work: bfloat16 `F.linear`, oneDNN's prepacked products (bfloat16, and 8-bit with
unsigned activations), `scaled_dot_product_attention`. One thread, measured by its CPU time, so that other work on the
machine disturbs little; contenders take turns, the fastest round counts. Weights are rotated through more memory than
the caches hold. Rates stand beside the limits measured in the same run. Prints a table; `--json FILE` writes the rows.

    python bench/kernels.py                               # the 1B, AMX or the best level, and avx512vnni
    python bench/kernels.py --shape 3b --rows 1,8,512 --only int4,attention --levels avx2
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from llamakit.kernels import native
from llamakit.kernels.activation import swiglu
from llamakit.kernels.attention import AttentionBatch, paged_attention
from llamakit.kernels.grouped import GroupedWeight, grouped_linear
from llamakit.kernels.int8_pool import Int8Pool, pool_block_bytes, round_heads
from llamakit.kernels.matmul import linear
from llamakit.kernels.norm import rms_norm
from llamakit.kernels.packed import Bits, PackedWeight, activations, packed_linear, packed_shapes, rotation_block

GROUPED: dict[str, tuple[Bits, bool]] = {"q4_0": (4, False), "q4_k": (4, True), "q8_0": (8, False)}
"""Weights as files store them: bits, and whether groups have minima."""
KERNELS = ("int4", "int8", *GROUPED, "bf16", "attention", "rows")
UNITS = ("float", "half", "byte")
_ROTATE_BYTES = 256 << 20
_TARGET_S = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Sizes of a model."""

    dim: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Columns and depth of the products of a layer that differ in shape."""
        return {"q": (self.heads * self.head_dim, self.dim), "gate": (self.ffn, self.dim), "down": (self.dim, self.ffn)}


SHAPES = {
    "1b": Shape(dim=2048, ffn=8192, heads=32, kv_heads=8, head_dim=64),
    "3b": Shape(dim=3072, ffn=8192, heads=24, kv_heads=8, head_dim=128),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One contender in one case."""

    case: str
    rows: int
    who: str
    us: float
    gops: float
    gbytes_per_s: float
    share: float
    """Of the arithmetic or the bandwidth limit, whichever is nearer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Some work and everyone who does it; each contender gets the number of the call, to choose its weights."""

    name: str
    rows: int
    operations: float
    bytes: float
    unit: str
    """What the work multiplies with, as `Library.work` names it."""
    contenders: dict[str, Callable[[int], object]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """One thread's operations per second by level and unit, and bytes read per second."""

    gops: dict[str, dict[str, float]]
    gbytes_per_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--rows", default="1,2,4,8,32,128,512", help="rows of activations, separated by commas")
    parser.add_argument("--only", default=",".join(KERNELS), help=f"some of {', '.join(KERNELS)}")
    parser.add_argument("--levels", help="dispatch levels (default: the best one, and avx512vnni where there is one)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    library = native.library()
    if library is None:
        raise SystemExit(f"nothing to measure: {native.BUILD_HINT}")
    torch.set_num_threads(1)
    best = library.levels[0]
    chosen = args.levels.split(",") if args.levels else list(dict.fromkeys([best, "avx512vnni"]))
    levels = [level for level in chosen if level in library.levels]
    limits = measure_limits(levels)
    print_limits(limits)
    rows: list[Row] = []
    counts = [int(count) for count in args.rows.split(",")]
    for case in cases(SHAPES[args.shape], counts, args.only.split(","), levels, with_torch=not args.no_torch):
        for row in measure(case, limits, args.rounds):
            print(
                f"{row.case:24}{row.rows:5}  {row.who:22}{row.us:11.1f} us{row.gops:9.1f} GOPS"
                f"{row.gbytes_per_s:8.2f} GB/s{row.share:7.0%}",
                flush=True,
            )
            rows.append(row)
    if args.json:
        facts = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
        report = {"facts": facts, "shape": args.shape, "limits": asdict(limits), "rows": [asdict(r) for r in rows]}
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def measure_limits(levels: list[str]) -> Limits:
    library = native.library()
    assert library is not None
    work, memory = library.work, torch.ones(_ROTATE_BYTES // 4)
    gops: dict[str, dict[str, float]] = {}
    for level in levels:
        with native.using(level, threads=1):
            gops[level] = {unit: _rate(lambda unit=unit: work(unit, 100_000)) for unit in UNITS}
    return Limits(gops=gops, gbytes_per_s=_rate(lambda: library.read(memory, 1)))


def _rate(work: Callable[[], int], repeats: int = 5) -> float:
    best = 0.0
    for _ in range(repeats):
        start = time.thread_time()
        done = work()
        best = max(best, done / (time.thread_time() - start) / 1e9)
    return best


def print_limits(limits: Limits) -> None:
    for level, units in limits.gops.items():
        print(f"limit of {level}: " + ", ".join(f"{unit} {rate:.0f} GOPS" for unit, rate in units.items()))
    print(f"limit of memory: {limits.gbytes_per_s:.1f} GB/s read by one thread")


def measure(case: Case, limits: Limits, rounds: int) -> Iterator[Row]:
    times: dict[str, float] = {}
    repeats: dict[str, int] = {}
    for who, call in case.contenders.items():
        call(0)
        start = time.thread_time()
        call(1)
        repeats[who] = max(1, min(200, math.ceil(_TARGET_S / max(time.thread_time() - start, 1e-6))))
        times[who] = math.inf
    for number in range(rounds):
        for who, call in case.contenders.items():
            start = time.thread_time()
            for i in range(repeats[who]):
                call(number * repeats[who] + i)
            times[who] = min(times[who], (time.thread_time() - start) / repeats[who])
    for who, seconds in times.items():
        level = who.rpartition(" ")[2]
        peak = limits.gops.get(level, next(iter(limits.gops.values())))[case.unit]
        gops, gbytes = case.operations / seconds / 1e9, case.bytes / seconds / 1e9
        yield Row(
            case=case.name,
            rows=case.rows,
            who=who,
            us=seconds * 1e6,
            gops=gops,
            gbytes_per_s=gbytes,
            share=max(gops / peak, gbytes / limits.gbytes_per_s),
        )


def cases(shape: Shape, counts: list[int], only: list[str], levels: list[str], *, with_torch: bool) -> Iterator[Case]:
    for name, (columns, depth) in shape.matrices.items():
        for bits in (4, 8):
            if f"int{bits}" in only:
                yield from packed_cases(name, columns, depth, bits, counts, levels, with_torch=with_torch)
        for form in GROUPED:
            if form in only:
                yield from grouped_cases(name, columns, depth, form, counts, levels)
        if "bf16" in only:
            yield from dense_cases(name, columns, depth, counts, levels, with_torch=with_torch)
    if "attention" in only:
        yield from attention_cases(shape, levels, with_torch=with_torch)
    if "rows" in only:
        yield from row_cases(shape, counts, levels, with_torch=with_torch)


def at(level: str, call: Callable[[int], object]) -> Callable[[int], object]:
    """The call at a level, on one thread. Choosing the level costs a microsecond or two, which is measured with it."""
    library = native.library()
    assert library is not None

    def run(number: int) -> object:
        library.select(level)
        return call(number)

    return run


def random_packed(columns: int, depth: int, bits: Bits) -> PackedWeight:
    """A packed matrix of noise: rounding real ones would take minutes."""
    sizes = packed_shapes(columns, depth, bits)
    return PackedWeight(
        torch.randint(0, 256, (sizes["codes"],), dtype=torch.uint8),
        torch.randint(-15, 16, (sizes["multipliers"],), dtype=torch.int8) if bits == 4 else None,
        torch.rand(sizes["scales"]) * 1e-3,
        columns,
        depth,
        rotation_block(depth),
    )


def packed_cases(
    name: str, columns: int, depth: int, bits: Bits, counts: list[int], levels: list[str], *, with_torch: bool
) -> Iterator[Case]:
    first = random_packed(columns, depth, bits)
    copies = max(2, _ROTATE_BYTES // first.num_bytes)
    weights = [first] + [copy_of(first) for _ in range(copies - 1)]
    stock = None
    if with_torch:
        stock = [_prepack_bytes(columns, depth) for _ in range(max(2, _ROTATE_BYTES // (columns * depth)))]
    for rows in counts:
        x = torch.randn(rows, depth, dtype=torch.bfloat16)
        contenders = {
            f"ours {level}": at(level, lambda i, x=x: packed_linear(x, weights[i % copies])) for level in levels
        }
        if stock is not None:
            contenders["onednn qlinear"] = _stock_bytes(x, stock)
        yield Case(
            name=f"int{bits} {name} {columns}x{depth}",
            rows=rows,
            operations=2.0 * rows * columns * depth,
            bytes=first.num_bytes,
            unit="byte",
            contenders=contenders,
        )


def copy_of(weight: PackedWeight) -> PackedWeight:
    multipliers = None if weight.multipliers is None else weight.multipliers.clone()
    return PackedWeight(
        weight.codes.clone(), multipliers, weight.scales.clone(), weight.columns, weight.depth, weight.rotation
    )


def grouped_cases(
    name: str, columns: int, depth: int, form: str, counts: list[int], levels: list[str]
) -> Iterator[Case]:
    """Products with weights that have a scale for every 32 values, beside our own format of as many bits."""
    bits, minima = GROUPED[form]
    groups = columns * depth // 32
    codes = torch.randint(0, 256, (groups * 4 * bits,), dtype=torch.uint8)
    scales = (torch.rand(groups) * 1e-3).half()
    parts = codes, scales, scales if minima else None
    packed = random_packed(columns, depth, bits)
    copies = max(2, _ROTATE_BYTES // packed.num_bytes)
    weights = [
        GroupedWeight(*(None if t is None else t.clone() for t in parts), columns, depth, bits)  # type: ignore[arg-type]
        for _ in range(copies)
    ]
    own = [packed] + [copy_of(packed) for _ in range(copies - 1)]
    for rows in counts:
        x = torch.randn(rows, depth, dtype=torch.bfloat16)
        contenders = {
            f"ours {level}": at(level, lambda i, x=x: grouped_linear(x, weights[i % copies])) for level in levels
        }
        contenders |= {
            f"our int{bits} {level}": at(level, lambda i, x=x: packed_linear(x, own[i % copies])) for level in levels
        }
        yield Case(
            name=f"{form} {name} {columns}x{depth}",
            rows=rows,
            operations=2.0 * rows * columns * depth,
            bytes=weights[0].num_bytes,
            unit="byte",
            contenders=contenders,
        )


def _prepack_bytes(columns: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    weight = torch.randint(-127, 128, (columns, depth), dtype=torch.int8)
    return (
        torch.ops.onednn.qlinear_prepack(weight, None),
        torch.rand(columns) * 1e-3,
        torch.zeros(columns, dtype=torch.int64),
    )


def _stock_bytes(x: Tensor, weights: list[tuple[Tensor, Tensor, Tensor]]) -> Callable[[int], object]:
    """Unsigned activations with zero point 128 and per-row scales afterwards, quantized in eager PyTorch each call."""
    codes, _ = activations(x, 0)
    shifted = (codes.to(torch.int16) + 128).to(torch.uint8)

    def run(number: int) -> object:
        packed, scales, zeros = weights[number % len(weights)]
        return torch.ops.onednn.qlinear_pointwise(
            shifted, 1.0, 128, packed, scales, zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
        )

    return run


def dense_cases(
    name: str, columns: int, depth: int, counts: list[int], levels: list[str], *, with_torch: bool
) -> Iterator[Case]:
    copies = max(2, _ROTATE_BYTES // (2 * columns * depth))
    weights = [torch.randn(columns, depth, dtype=torch.bfloat16) for _ in range(copies)]
    prepacked = [torch.ops.mkldnn._reorder_linear_weight(w, None) for w in weights] if with_torch else []
    for rows in counts:
        x = torch.randn(rows, depth, dtype=torch.bfloat16)
        contenders = {f"ours {level}": at(level, lambda i, x=x: linear(x, weights[i % copies])) for level in levels}
        if with_torch:
            contenders["F.linear"] = lambda i, x=x: F.linear(x, weights[i % copies])
            contenders["onednn prepacked"] = lambda i, x=x: torch.ops.mkldnn._linear_pointwise(
                x, prepacked[i % copies], None, "none", [], ""
            )
        yield Case(
            name=f"bf16 {name} {columns}x{depth}",
            rows=rows,
            operations=2.0 * rows * columns * depth,
            bytes=2.0 * columns * depth,
            unit="half",
            contenders=contenders,
        )


def attention_cases(shape: Shape, levels: list[str], *, with_torch: bool) -> Iterator[Case]:
    """Sequences, new tokens of each and their context."""
    for sequences, tokens, context in ((1, 1, 512), (1, 1, 4096), (8, 1, 1024), (1, 512, 512), (1, 512, 2048)):
        yield from attention_case(shape, sequences, tokens, context, levels, with_torch=with_torch)


def attention_case(
    shape: Shape, sequences: int, tokens: int, context: int, levels: list[str], *, with_torch: bool
) -> Iterator[Case]:
    block, kv, dim = 16, shape.kv_heads, shape.head_dim
    per_sequence = -(-context // block)
    used = sequences * per_sequence
    pool_bytes = used * block * kv * dim * 2 * 2
    copies = max(2, min(64, _ROTATE_BYTES // pool_bytes)) if tokens == 1 else 2
    pools = [torch.randn(2, used, block, kv, dim).bfloat16() for _ in range(copies)]
    tables = torch.randperm(used).view(sequences, per_sequence)
    starts = [tokens * s for s in range(sequences + 1)]
    batch = AttentionBatch(starts, [context] * sequences, tables, block)
    q = torch.randn(sequences * tokens, shape.heads, dim, dtype=torch.bfloat16)
    contenders: dict[str, Callable[[int], object]] = {
        f"ours {level}": at(
            level, lambda i: paged_attention(q, pools[i % copies][0], pools[i % copies][1], batch, dim**-0.5)
        )
        for level in levels
    }
    if with_torch:
        dense = [
            pool.view(2, sequences, context, kv, dim).transpose(2, 3).contiguous() for pool in pools
        ]  # contiguous, as no paged cache is: stock attention's best case
        query = q.view(sequences, tokens, shape.heads, dim).transpose(1, 2)
        mask = torch.ones(tokens, context, dtype=torch.bool).tril(context - tokens)

        def stock(i: int) -> object:
            k, v = dense[i % copies]
            if tokens == context:
                return F.scaled_dot_product_attention(query, k, v, is_causal=True, enable_gqa=True)
            return F.scaled_dot_product_attention(query, k, v, attn_mask=None if tokens == 1 else mask, enable_gqa=True)

        contenders["torch sdpa"] = stock
    visible = tokens * (context - tokens) + tokens * (tokens + 1) / 2
    case = Case(
        name=f"attention {sequences}x{tokens} of {context}",
        rows=tokens,
        operations=4.0 * sequences * visible * shape.heads * dim,
        bytes=float(pool_bytes),
        unit="half",
        contenders=contenders,
    )
    yield case
    rounded = [(Int8Pool(*_rounded(keys)), Int8Pool(*_rounded(values))) for keys, values in pools]
    in_bytes = {
        f"ours {level}": at(level, lambda i: paged_attention(q, *rounded[i % copies], batch, dim**-0.5))
        for level in levels
    }
    each = pool_block_bytes(block, kv, dim, torch.int8)
    yield replace(case, name=f"{case.name}, int8", bytes=2.0 * used * each, contenders=in_bytes)


def _rounded(pool: Tensor) -> tuple[Tensor, Tensor]:
    codes, scales = round_heads(pool.flatten(0, 1))
    return codes.view(pool.shape), scales.view(pool.shape[:3])


def row_cases(shape: Shape, counts: list[int], levels: list[str], *, with_torch: bool) -> Iterator[Case]:
    gain = torch.ones(shape.dim, dtype=torch.bfloat16)
    for rows in counts:
        x = torch.randn(rows, shape.dim, dtype=torch.bfloat16)
        gate, up = (torch.randn(rows, shape.ffn, dtype=torch.bfloat16) for _ in range(2))
        norms = {f"ours {level}": at(level, lambda i, x=x: rms_norm(x, gain, 1e-5)) for level in levels}
        gates = {f"ours {level}": at(level, lambda i, g=gate, u=up: swiglu(g, u)) for level in levels}
        if with_torch:
            norms["torch"] = lambda i, x=x: F.rms_norm(x, (shape.dim,), gain, 1e-5)
            gates["torch"] = lambda i, g=gate, u=up: F.silu(g) * u
        yield Case(
            name="rms_norm", rows=rows, operations=4.0 * x.numel(), bytes=2.0 * x.nbytes, unit="float", contenders=norms
        )
        yield Case(
            name="swiglu",
            rows=rows,
            operations=10.0 * gate.numel(),
            bytes=3.0 * gate.nbytes,
            unit="float",
            contenders=gates,
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
