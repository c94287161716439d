#include "api.h"

#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "level.h"
#include "pool.h"

namespace llamakit {

#define LK_LEVEL(name) extern const Level level_##name;
LK_LEVELS
#undef LK_LEVEL

namespace {

#define LK_LEVEL(name) &level_##name,
const Level* const kBuilt[] = {LK_LEVELS};  // best first
#undef LK_LEVEL

const std::vector<const Level*>& usable() {
    static const std::vector<const Level*> levels = [] {
        std::vector<const Level*> found;
        for (const Level* level : kBuilt)
            if (level->supported()) found.push_back(level);
        return found;
    }();
    return levels;
}

std::atomic<const Level*> chosen{nullptr};

const Level& level() {
    const Level* now = chosen.load(std::memory_order_relaxed);
    if (now) return *now;
    now = usable().front();
    chosen.store(now, std::memory_order_relaxed);
    return *now;
}

Matrix matrix(const lk_matrix& m) {
    const Kind kind = m.dense ? Kind::kDense : m.halves ? Kind::kGrouped : m.multipliers ? Kind::kNibbles : Kind::kBytes;
    return {kind,      m.dense, m.stride,   m.codes,  m.multipliers, m.scales,
            m.columns, m.depth, m.rotation, m.halves, m.minima,      m.bits};
}

Table table(const lk_table& t) { return {matrix(t.coarse), t.rows, t.scales}; }

}  // namespace
}  // namespace llamakit

using namespace llamakit;

int lk_abi(void) { return LK_ABI; }

const char* lk_levels(void) {
    static const std::string names = [] {
        std::string joined;
        for (const Level* level : usable()) joined += (joined.empty() ? "" : " ") + std::string(level->name);
        return joined;
    }();
    return names.c_str();
}

int lk_select(const char* name) {
    for (const Level* level : usable())
        if (std::strcmp(level->name, name) == 0) {
            chosen.store(level, std::memory_order_relaxed);
            return 1;
        }
    return 0;
}

void lk_pin_threads(void) { pin_threads(); }

void lk_linear(int dtype, const void* x, const lk_matrix* weight, void* out, int64_t rows, int threads) {
    if (rows == 0 || weight->columns == 0) return;
    if (weight->depth == 0) {
        std::memset(out, 0, static_cast<size_t>(rows * weight->columns) * (dtype == kF32 ? 4 : 2));
        return;
    }
    level().linear(static_cast<Dtype>(dtype), x, matrix(*weight), out, rows, threads);
}

void lk_attention_inputs(int dtype, const void* x, const void* gain, float eps, const lk_matrix* q, const lk_matrix* k,
                         const lk_matrix* v, const float* cos, const float* sin, void* q_out, void* k_out, void* v_out,
                         int64_t tokens, int64_t dim, int threads) {
    if (tokens == 0) return;
    level().attention_inputs({static_cast<Dtype>(dtype), x, gain, eps, matrix(*q), matrix(*k), matrix(*v), cos, sin,
                              q_out, k_out, v_out, tokens, dim},
                             threads);
}

void lk_feed_forward(int dtype, const void* x, const void* mixed, const void* gain, float eps, const lk_matrix* o,
                     const lk_matrix* gate, const lk_matrix* up, const lk_matrix* down, void* out, int64_t tokens,
                     int threads) {
    if (tokens == 0) return;
    level().feed_forward({static_cast<Dtype>(dtype), x, mixed, gain, eps, matrix(*o), matrix(*gate), matrix(*up),
                          matrix(*down), out, tokens},
                         threads);
}

void lk_pack(int dtype, const void* weight, int64_t stride, const lk_matrix* to, int threads) {
    level().pack(static_cast<Dtype>(dtype), weight, stride, matrix(*to), threads);
}

int lk_unpack_rows(int dtype, const lk_matrix* weight, const int64_t* rows, int64_t count, void* out, int threads) {
    for (int64_t i = 0; i < count; ++i)
        if (rows[i] < 0 || rows[i] >= weight->columns) return LK_BAD_ROW;
    level().unpack_rows(static_cast<Dtype>(dtype), matrix(*weight), rows, count, out, threads);
    return LK_OK;
}

void lk_table_pack(int dtype, const void* from, int64_t stride, const lk_table* to, int threads) {
    level().table_pack(static_cast<Dtype>(dtype), from, stride, table(*to), threads);
}

void lk_table_scores(const lk_table* from, const float* x, float* out, int64_t rows, int threads) {
    if (rows > 0) level().table_scores(table(*from), x, out, rows, threads);
}

int lk_table_rows(int dtype, const lk_table* from, const int64_t* ids, int64_t count, void* out, int threads) {
    for (int64_t i = 0; i < count; ++i)
        if (ids[i] < 0 || ids[i] >= from->coarse.columns) return LK_BAD_ROW;
    level().table_rows(static_cast<Dtype>(dtype), table(*from), ids, count, out, threads);
    return LK_OK;
}

void lk_rms_norm(int dtype, const void* x, const void* weight, void* out, int64_t rows, int64_t dim, float eps,
                 int threads) {
    level().rms_norm(static_cast<Dtype>(dtype), x, weight, out, rows, dim, eps, threads);
}

void lk_rotate(int dtype, const void* x, const float* cos, const float* sin, void* out, int64_t tokens, int64_t heads,
               int64_t dim, int threads) {
    level().rotate(static_cast<Dtype>(dtype), x, cos, sin, out, tokens, heads, dim, threads);
}

void lk_swiglu(int dtype, const void* gate, const void* up, void* out, int64_t rows, int64_t dim, int64_t gate_stride,
               int64_t up_stride, int threads) {
    level().swiglu(static_cast<Dtype>(dtype), gate, up, out, rows, dim, gate_stride, up_stride, threads);
}

static bool inside(const int64_t* slots, int64_t tokens, int64_t num_slots) {
    for (int64_t i = 0; i < tokens; ++i)
        if (slots[i] < 0 || slots[i] >= num_slots) return false;
    return true;
}

int lk_write_kv(int from, int to, const void* rows, void* pool, const int64_t* slots, int64_t tokens,
                int64_t num_slots, int64_t width, int threads) {
    if (!inside(slots, tokens, num_slots)) return LK_BAD_SLOT;
    level().write_kv(static_cast<Dtype>(from), static_cast<Dtype>(to), rows, pool, slots, tokens, width, threads);
    return LK_OK;
}

// Cuts the queries of all sequences into tiles and puts these into `args`.
static int cut_tiles(AttentionArgs& args, const int32_t* query_starts, const int32_t* context_lens, int64_t sequences,
                     int64_t num_blocks, std::vector<AttentionTile>& tiles) {
    const int64_t group = args.heads / args.kv_heads;
    const int64_t tile_tokens = group < kTileRows ? kTileRows / group : 1;
    for (int64_t s = 0; s < sequences; ++s) {
        const int64_t start = query_starts[s], end = query_starts[s + 1], context = context_lens[s];
        if (start == end) continue;
        const int64_t blocks = ceil_div(context, args.block_tokens);
        if (end < start || context < end - start || blocks > args.table_stride) return LK_BAD_BLOCK;
        for (int64_t b = 0; b < blocks; ++b) {
            const int32_t block = args.block_tables[s * args.table_stride + b];
            if (block < 0 || block >= num_blocks) return LK_BAD_BLOCK;
        }
        for (int64_t first = start; first < end; first += tile_tokens) {
            const int64_t tokens = end - first < tile_tokens ? end - first : tile_tokens;
            tiles.push_back({s, first, tokens, context - (end - first)});
        }
    }
    args.tiles = tiles.data();
    args.num_tiles = static_cast<int64_t>(tiles.size());
    args.tile_tokens = tile_tokens;
    return LK_OK;
}

static int run_attention(AttentionArgs args, const int32_t* query_starts, const int32_t* context_lens, int64_t sequences,
                         int64_t num_blocks, int threads) {
    std::vector<AttentionTile> tiles;
    const int code = cut_tiles(args, query_starts, context_lens, sequences, num_blocks, tiles);
    if (code == LK_OK) level().attention(args, threads);
    return code;
}

int lk_attention(int q_dtype, int pool_dtype, const void* q, const void* k_pool, const void* v_pool, void* out,
                 const int32_t* query_starts, const int32_t* context_lens, const int32_t* block_tables,
                 int64_t sequences, int64_t table_stride, int64_t num_blocks, int64_t block_tokens, int64_t heads,
                 int64_t kv_heads, int64_t dim, float scale, int threads) {
    const AttentionArgs args{q, k_pool, v_pool, out, block_tables, table_stride, block_tokens, heads, kv_heads, dim,
                             static_cast<Dtype>(q_dtype), static_cast<Dtype>(pool_dtype), nullptr, nullptr, scale,
                             nullptr, 0, 0};
    return run_attention(args, query_starts, context_lens, sequences, num_blocks, threads);
}

int lk_attention_int8(int q_dtype, const void* q, const int8_t* k_pool, const int8_t* v_pool, const float* k_scales,
                      const float* v_scales, void* out, const int32_t* query_starts, const int32_t* context_lens,
                      const int32_t* block_tables, int64_t sequences, int64_t table_stride, int64_t num_blocks,
                      int64_t block_tokens, int64_t heads, int64_t kv_heads, int64_t dim, float scale, int threads) {
    const AttentionArgs args{q, k_pool, v_pool, out, block_tables, table_stride, block_tokens, heads, kv_heads, dim,
                             static_cast<Dtype>(q_dtype), kF32, k_scales, v_scales, scale, nullptr, 0, 0};
    return run_attention(args, query_starts, context_lens, sequences, num_blocks, threads);
}

int lk_write_kv_int8(int from, const void* rows, int8_t* pool, float* scales, const int64_t* slots, int64_t tokens,
                     int64_t num_slots, int64_t heads, int64_t dim, int threads) {
    if (!inside(slots, tokens, num_slots)) return LK_BAD_SLOT;
    level().write_kv_int8(static_cast<Dtype>(from), rows, pool, scales, slots, tokens, heads, dim, threads);
    return LK_OK;
}

static int run_layer(int dtype, int pool_dtype, const lk_layer* layer, const lk_pools& pools, const lk_step* step,
                     const void* x, void* out, int threads) {
    const int64_t tokens = step->tokens, dim = layer->head_dim;
    const int64_t heads = layer->q.columns / dim, kv_heads = layer->k.columns / dim;
    if (!inside(step->slots, tokens, step->num_blocks * step->block_tokens)) return LK_BAD_SLOT;
    const size_t bytes = dtype == kF32 ? 4 : 2;
    const size_t q_bytes = static_cast<size_t>(round_up(tokens * layer->q.columns, 64)) * bytes;
    const size_t kv_bytes = static_cast<size_t>(round_up(tokens * layer->k.columns, 64)) * bytes;
    char* q = static_cast<char*>(scratch(kLayer, 2 * (q_bytes + kv_bytes)));
    char *k = q + q_bytes, *v = k + kv_bytes, *mixed = v + kv_bytes;
    AttentionArgs args{q, pools.k, pools.v, mixed, step->block_tables, step->table_stride, step->block_tokens, heads,
                       kv_heads, dim, static_cast<Dtype>(dtype), static_cast<Dtype>(pool_dtype), pools.k_scales, pools.v_scales,
                       step->scale, nullptr, 0, 0};
    std::vector<AttentionTile> tiles;
    const int code =
        cut_tiles(args, step->query_starts, step->context_lens, step->sequences, step->num_blocks, tiles);
    if (code != LK_OK) return code;
    lk_attention_inputs(dtype, x, layer->attention_gain, layer->attention_eps, &layer->q, &layer->k, &layer->v, step->cos,
                        step->sin, q, k, v, tokens, dim, threads);
    const Dtype from = static_cast<Dtype>(dtype), to = static_cast<Dtype>(pool_dtype);
    if (pools.k_scales) {
        level().write_kv_int8(from, k, static_cast<int8_t*>(pools.k), pools.k_scales, step->slots, tokens, kv_heads, dim, threads);
        level().write_kv_int8(from, v, static_cast<int8_t*>(pools.v), pools.v_scales, step->slots, tokens, kv_heads, dim, threads);
    } else {
        level().write_kv(from, to, k, pools.k, step->slots, tokens, kv_heads * dim, threads);
        level().write_kv(from, to, v, pools.v, step->slots, tokens, kv_heads * dim, threads);
    }
    level().attention(args, threads);
    lk_feed_forward(dtype, x, mixed, layer->feed_forward_gain, layer->feed_forward_eps, &layer->o, &layer->gate,
                    &layer->up, &layer->down, out, tokens, threads);
    return LK_OK;
}

int lk_run_layers(int dtype, int pool_dtype, const lk_layer* const* layers, const lk_pools* pools, int64_t count,
                  const lk_step* step, const void* x, void* out, int threads) {
    if (step->tokens == 0) return LK_OK;
    for (int64_t i = 0; i < count; ++i) {
        // A layer reads its input for the last time before it writes its output, so both may be one.
        const int code = run_layer(dtype, pool_dtype, layers[i], pools[i], step, i ? out : x, out, threads);
        if (code != LK_OK) return code;
    }
    return LK_OK;
}

int64_t lk_work(int unit, int64_t rounds) { return level().work(static_cast<Unit>(unit), rounds); }

int64_t lk_read(const void* from, int64_t bytes, int threads) { return level().read_all(from, bytes, threads); }
