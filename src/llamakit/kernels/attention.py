"""Attention over a paged KV cache, and plain causal attention for training.

The paged reference is batch-invariant on CPU: every query tile has `TILE_QUERIES` tokens of one
sequence, every product has one shape, keys come in chunks of `CHUNK_KEYS` aligned at position 0 and
are folded in order by an online softmax (Milakov & Gimelshein, 2018). So a query's bits depend on
its own keys only: not on its batch mates, nor on how its prompt was cut. Arithmetic is float32.
The compiled kernel (`cpu/attention.h`) makes the same promise with its own order of additions.

Legend: N flat tokens, H query heads, K key/value heads, G = H / K, D head dim, R rows of a query tile
(TILE_QUERIES * G), A active tiles, C keys of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from llamakit.kernels import native
from llamakit.kernels.int8_pool import Int8Pool, round_heads

TILE_QUERIES = 8
CHUNK_KEYS = 128


class AttentionBatch:
    """Which flat tokens belong to which sequence and where the keys of each sequence lie.

    Made once a step and shared by all layers. Sequence s owns the flat tokens
    `query_starts[s] : query_starts[s + 1]`; the last of them sees `context_lens[s]` keys, the one
    before sees one less, and so on. Key position p of s lies in block `block_tables[s, p // block_tokens]`.
    """

    def __init__(
        self, query_starts: Sequence[int], context_lens: Sequence[int], block_tables: Tensor, block_tokens: int
    ) -> None:
        if CHUNK_KEYS % block_tokens:
            raise ValueError(f"block_tokens must divide {CHUNK_KEYS}, got {block_tokens}")
        self.query_starts = list(query_starts)
        self.context_lens = list(context_lens)
        self.block_tables = block_tables
        self.block_tokens = block_tokens
        self._tiles: _Tiles | None = None
        self._tables: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def tiles(self) -> _Tiles:
        """The query tiles of the reference kernel, computed when first asked for."""
        if self._tiles is None:
            self._tiles = _Tiles(self)
        return self._tiles

    @property
    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query starts, context lengths and block tables as the compiled kernel reads them: contiguous int32."""
        if self._tables is None:
            starts = torch.tensor(self.query_starts, dtype=torch.int32)
            contexts = torch.tensor(self.context_lens, dtype=torch.int32)
            self._tables = (starts, contexts, self.block_tables.to(torch.int32).contiguous())
        return self._tables


class _Tiles:
    """Query tiles sorted by how many key chunks they see, most first, so that active tiles are a prefix."""

    def __init__(self, batch: AttentionBatch) -> None:
        rows: list[tuple[int, int, int, int, int]] = []  # chunks, sequence, first token, tokens, position of the first
        for s, context in enumerate(batch.context_lens):
            start, end = batch.query_starts[s], batch.query_starts[s + 1]
            for first in range(start, end, TILE_QUERIES):
                tokens = min(TILE_QUERIES, end - first)
                position = context - (end - first)
                rows.append((-(-(position + tokens) // CHUNK_KEYS), s, first, tokens, position))
        rows.sort(key=lambda row: -row[0])
        device = batch.block_tables.device
        offsets = torch.arange(TILE_QUERIES)
        first = torch.tensor([row[2] for row in rows], dtype=torch.int64)
        tokens = torch.tensor([row[3] for row in rows], dtype=torch.int64)
        position = torch.tensor([row[4] for row in rows], dtype=torch.int64)
        # A tile that is not full repeats its last token; the repeats are computed and never read.
        local = torch.minimum(offsets[None, :], tokens[:, None] - 1)
        self.query_index = (first[:, None] + local).to(device)  # [A, TILE_QUERIES]
        self.query_position = (position[:, None] + local).to(device)
        self.sequence = torch.tensor([row[1] for row in rows], dtype=torch.int64, device=device)
        filled = offsets[None, :] < tokens[:, None]
        self.filled = filled.to(device)
        counts = [row[0] for row in rows]
        self.active = [sum(count > c for count in counts) for c in range(counts[0] if counts else 0)]


Pool = Tensor | Int8Pool
"""Keys or values of a cache: `[blocks, block_tokens, K, D]` of floats, or integers with scales."""


def write_kv(k_pool: Pool, v_pool: Pool, slots_N: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> None:
    """Store keys and values at `slots_N` (block * block_tokens + offset) of two pools of one kind."""
    if isinstance(k_pool, Int8Pool) and isinstance(v_pool, Int8Pool):
        write = torch.ops.llamakit.write_kv_int8 if native.is_traced(k_NKD) else _write_kv_int8
        write(*k_pool, *v_pool, slots_N, k_NKD, v_NKD)
    elif isinstance(k_pool, Tensor) and isinstance(v_pool, Tensor):
        write = torch.ops.llamakit.write_kv if native.is_traced(k_NKD) else _write_kv
        write(k_pool, v_pool, slots_N, k_NKD, v_NKD)
    else:
        raise TypeError("keys and values want pools of one kind, got one of floats and one of integers")


def _write_kv(k_pool: Tensor, v_pool: Tensor, slots_N: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> None:
    library = native.library() if k_pool.device.type == "cpu" and not torch.is_grad_enabled() else None
    if library is not None and _in_reach(k_pool, v_pool, k_NKD, v_NKD) and slots_N.dtype == torch.int64:
        library.write_kv(k_pool, slots_N, k_NKD, native.num_threads())
        library.write_kv(v_pool, slots_N, v_NKD, native.num_threads())
        return
    k_pool.view(-1, *k_pool.shape[2:]).index_copy_(0, slots_N, k_NKD.to(k_pool.dtype))
    v_pool.view(-1, *v_pool.shape[2:]).index_copy_(0, slots_N, v_NKD.to(v_pool.dtype))


def _write_kv_int8(
    k_codes: Tensor,
    k_scales: Tensor,
    v_codes: Tensor,
    v_scales: Tensor,
    slots_N: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
) -> None:
    library = native.library() if k_codes.device.type == "cpu" and not torch.is_grad_enabled() else None
    for codes, scales, rows_NKD in ((k_codes, k_scales, k_NKD), (v_codes, v_scales, v_NKD)):
        whole = codes.is_contiguous() and scales.is_contiguous() and slots_N.dtype == torch.int64
        if library is not None and native.takes(rows_NKD) and whole:
            library.write_kv_int8(codes, scales, slots_N, rows_NKD, native.num_threads())
            continue
        rounded, own_scales = round_heads(rows_NKD)
        codes.view(-1, *codes.shape[2:]).index_copy_(0, slots_N, rounded)
        scales.view(-1, scales.shape[2]).index_copy_(0, slots_N, own_scales)


def _in_reach(k_pool: Tensor, v_pool: Tensor, *rows: Tensor) -> bool:
    """Whether the compiled kernels read these pools and rows."""
    return native.takes(k_pool, v_pool) and native.takes(*rows) and _alike(k_pool, v_pool)


def _alike(k_pool: Tensor, v_pool: Tensor) -> bool:
    return k_pool.is_contiguous() and v_pool.is_contiguous() and k_pool.shape == v_pool.shape


def paged_attention(q_NHD: Tensor, k_pool: Pool, v_pool: Pool, batch: AttentionBatch, scale: float) -> Tensor:
    """Causal grouped-query attention of flat queries over their own cached keys -> `[N, H, D]`.

    The keys of the queries themselves must already be in the pools (`write_kv`).
    """
    library = native.library() if q_NHD.device.type == "cpu" and not torch.is_grad_enabled() else None
    if isinstance(k_pool, Int8Pool) and isinstance(v_pool, Int8Pool):
        if native.is_traced(q_NHD):
            return torch.ops.llamakit.paged_attention_int8(q_NHD, *k_pool, *v_pool, *batch.tables, scale)
        if library is not None and native.takes(q_NHD) and _alike(k_pool.codes, v_pool.codes):
            scales = k_pool.scales.contiguous(), v_pool.scales.contiguous()
            pools = k_pool.codes, v_pool.codes
            return library.attention(q_NHD, *pools, *batch.tables, scale, native.num_threads(), scales)
    elif isinstance(k_pool, Tensor) and isinstance(v_pool, Tensor):
        if native.is_traced(q_NHD):
            return torch.ops.llamakit.paged_attention(q_NHD, k_pool, v_pool, *batch.tables, scale)
        if library is not None and _in_reach(k_pool, v_pool, q_NHD):
            return library.attention(q_NHD, k_pool, v_pool, *batch.tables, scale, native.num_threads())
    return _reference(q_NHD, k_pool, v_pool, batch, scale)


def _reference(q_NHD: Tensor, k_pool: Pool, v_pool: Pool, batch: AttentionBatch, scale: float) -> Tensor:
    num_tokens, num_heads, head_dim = q_NHD.shape
    num_kv = (k_pool.codes if isinstance(k_pool, Int8Pool) else k_pool).shape[2]
    group = num_heads // num_kv
    tiles = batch.tiles
    num_tiles = tiles.query_index.shape[0]
    rows = TILE_QUERIES * group
    blocks_per_chunk = CHUNK_KEYS // batch.block_tokens

    # [A, TQ, H, D] -> [A, K, TQ * G, D]
    q = q_NHD.float()[tiles.query_index].view(num_tiles, TILE_QUERIES, num_kv, group, head_dim)
    q = (q * scale).transpose(1, 2).reshape(num_tiles * num_kv, rows, head_dim)
    row_position = tiles.query_position.repeat_interleave(group, dim=1)[:, None, :, None]  # [A, 1, R, 1]
    top = q.new_full((num_tiles, num_kv, rows, 1), -torch.inf)
    total = q.new_zeros(num_tiles, num_kv, rows, 1)
    out = q.new_zeros(num_tiles, num_kv, rows, head_dim)
    key_offset = torch.arange(CHUNK_KEYS, device=q.device)

    tables = batch.block_tables
    short = -tables.shape[1] % blocks_per_chunk
    if short:
        tables = F.pad(tables, (0, short))
    for chunk, active in enumerate(tiles.active):
        blocks = tables[tiles.sequence[:active], chunk * blocks_per_chunk : (chunk + 1) * blocks_per_chunk]
        keys = _gather(k_pool, blocks, num_kv, head_dim)  # [A * K, C, D]
        values = _gather(v_pool, blocks, num_kv, head_dim)
        scores = torch.bmm(q[: active * num_kv], keys.transpose(1, 2)).view(active, num_kv, rows, CHUNK_KEYS)
        hidden = chunk * CHUNK_KEYS + key_offset > row_position[:active]
        scores.masked_fill_(hidden, -torch.inf)
        # Values behind the mask may be stale; 0 * NaN would poison the sum.
        past = chunk * CHUNK_KEYS + key_offset > tiles.query_position[:active, -1:]
        values = values.view(active, num_kv, CHUNK_KEYS, head_dim).masked_fill(past[:, None, :, None], 0.0)
        higher = torch.maximum(top[:active], scores.amax(-1, keepdim=True))
        weights = torch.exp(scores - higher)
        shrink = torch.exp(top[:active] - higher)
        total[:active] = total[:active] * shrink + weights.sum(-1, keepdim=True)
        mixed = torch.bmm(
            weights.view(active * num_kv, rows, CHUNK_KEYS), values.reshape(active * num_kv, CHUNK_KEYS, head_dim)
        )
        out[:active] = out[:active] * shrink + mixed.view(active, num_kv, rows, head_dim)
        top[:active] = higher
    out = (out / total).view(num_tiles, num_kv, TILE_QUERIES, group, head_dim).transpose(1, 2)
    out = out.reshape(num_tiles, TILE_QUERIES, num_heads, head_dim)
    result = q_NHD.new_empty(num_tokens, num_heads, head_dim)
    result[tiles.query_index[tiles.filled]] = out[tiles.filled].to(q_NHD.dtype)
    return result


def _gather(pool: Pool, blocks: Tensor, num_kv: int, head_dim: int) -> Tensor:
    """Chunk of keys or values of each tile, `[A * K, C, D]` float32."""
    values = pool.floats(blocks) if isinstance(pool, Int8Pool) else pool[blocks].float()
    return values.view(-1, CHUNK_KEYS, num_kv, head_dim).transpose(1, 2).reshape(-1, CHUNK_KEYS, head_dim)


def causal_attention(q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: Tensor | None = None) -> Tensor:
    """Grouped-query attention inside each row -> `[B, T, H, D]`; causal, or by a boolean `mask [B, 1, T, T]`."""
    out = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        k_BTKD.transpose(1, 2),
        v_BTKD.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=True,
    )
    return out.transpose(1, 2)


@torch.library.custom_op("llamakit::write_kv", mutates_args=("k_pool", "v_pool"))
def _write_kv_op(k_pool: Tensor, v_pool: Tensor, slots_N: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> None:
    _write_kv(k_pool, v_pool, slots_N, k_NKD, v_NKD)


@torch.library.custom_op("llamakit::paged_attention", mutates_args=())
def _paged_attention_op(
    q_NHD: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    scale: float,
) -> Tensor:
    batch = AttentionBatch(query_starts.tolist(), context_lens.tolist(), block_tables, k_pool.shape[1])
    return paged_attention(q_NHD, k_pool, v_pool, batch, scale)


@torch.library.register_fake("llamakit::paged_attention")
def _(
    q_NHD: Tensor,
    k_pool: Tensor,
    v_pool: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    scale: float,
) -> Tensor:
    return torch.empty_like(q_NHD)


@torch.library.custom_op("llamakit::write_kv_int8", mutates_args=("k_codes", "k_scales", "v_codes", "v_scales"))
def _write_kv_int8_op(
    k_codes: Tensor,
    k_scales: Tensor,
    v_codes: Tensor,
    v_scales: Tensor,
    slots_N: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
) -> None:
    _write_kv_int8(k_codes, k_scales, v_codes, v_scales, slots_N, k_NKD, v_NKD)


@torch.library.custom_op("llamakit::paged_attention_int8", mutates_args=())
def _paged_attention_int8_op(
    q_NHD: Tensor,
    k_codes: Tensor,
    k_scales: Tensor,
    v_codes: Tensor,
    v_scales: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    scale: float,
) -> Tensor:
    batch = AttentionBatch(query_starts.tolist(), context_lens.tolist(), block_tables, k_codes.shape[1])
    return paged_attention(q_NHD, Int8Pool(k_codes, k_scales), Int8Pool(v_codes, v_scales), batch, scale)


@torch.library.register_fake("llamakit::paged_attention_int8")
def _(
    q_NHD: Tensor,
    k_codes: Tensor,
    k_scales: Tensor,
    v_codes: Tensor,
    v_scales: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    block_tables: Tensor,
    scale: float,
) -> Tensor:
    return torch.empty_like(q_NHD)
