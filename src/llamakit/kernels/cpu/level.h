// What one instruction-set level offers: a table of kernels, filled by level.cpp once per level.
//
// Every kernel splits its own work over threads and treats each row alone, so a row has the same bits whatever
// stands beside it and however many threads run. Pointers are trusted here; api.cpp has checked the arguments.
#pragma once
#include "types.h"

namespace llamakit {

enum class Kind : int { kDense = 0, kBytes = 1, kNibbles = 2, kGrouped = 3 };

// A weight [columns n][depth k]. Dense: rows of the activations' type, `stride` values apart. Packed: integers in the
// layout that `kernels/packed.py` defines, standing for scale[n] * byte or scale[n] * multiplier[n][k / 32] * nibble.
// Grouped: integers as `kernels/grouped.py` says, standing for half[n][k / 32] * code - minimum[n][k / 32].
struct Matrix {
    Kind kind;
    const void* dense;
    int64_t stride;
    const uint8_t* codes;
    const int8_t* multipliers;  // nibbles: [n / 16][k / 32][16]
    const float* scales;        // [columns, rounded up to 16]
    int64_t columns, depth;
    int64_t rotation;  // packed: block of the Hadamard rotation the weight was packed with; 0 for none
    const uint16_t* halves;  // grouped: IEEE halves [n / 16][k / 32][16]
    const uint16_t* minima;  // grouped: the same; null for none
    int bits;                // grouped: 4 or 8
};

// A vocabulary: the same rows in nibbles, and in bytes that each lie together (plus 128, zeros up to a multiple of 64)
// with one scale a row; both under the rotation of the nibbles.
struct Table {
    Matrix coarse;
    const uint8_t* rows;
    const float* scales;
};

// Row by row what a product with a packed matrix needs of its activations.
struct Activations {
    int8_t* codes;    // at row * row_stride + k / 64 * step_stride + k % 64, zeros up to a multiple of 64
    float* scales;    // [rows]: value = scale * code
    int32_t* sums;    // [rows][depth / 64 rounded up * 2]: of each group of 32 codes; null where nothing reads them
    int32_t* totals;  // [rows]
    int64_t rows, steps, row_stride, step_stride, block_stride;  // block_stride: from 16 rows to the next
};

// The first half of a decoder layer: norm, the three projections, rotary positions.
struct AttentionInputs {
    Dtype dtype;
    const void* x;     // [tokens][depth of q]
    const void* gain;  // of the norm
    float eps;
    Matrix q, k, v;           // of one kind and rotation
    const float *cos, *sin;   // [tokens][dim / 2]
    void *q_out, *k_out, *v_out;
    int64_t tokens, dim;  // dim: of a head
};

// The second half: out = y + down(silu(gate(n)) * up(n)), y = x + o(mixed), n = norm(y).
struct FeedForward {
    Dtype dtype;
    const void* x;      // [tokens][columns of o]
    const void* mixed;  // [tokens][depth of o]
    const void* gain;
    float eps;
    Matrix o, gate, up, down;  // gate and up of one kind and rotation
    void* out;
    int64_t tokens;
};

// A few consecutive tokens of one sequence: the unit of attention work, times the key heads.
struct AttentionTile {
    int64_t sequence, first_token, tokens;
    int64_t position;  // of the first token
};
// Keys that the last token of a tile sees.
static inline int64_t keys_of(const AttentionTile& tile) { return tile.position + tile.tokens; }
constexpr int64_t kTileRows = 256;  // tokens of a tile * query heads of a key head, about

// Flat queries [N, heads, dim] against pools [blocks, block_tokens, kv_heads, dim]; see kernels/attention.py.
struct AttentionArgs {
    const void* q;
    const void* k_pool;
    const void* v_pool;
    void* out;
    const int32_t* block_tables;  // [sequences][table_stride]
    int64_t table_stride, block_tokens;
    int64_t heads, kv_heads, dim;
    Dtype q_dtype, pool_dtype;
    const float *k_scales, *v_scales;  // [blocks, block_tokens, kv_heads] of integer pools; null for floats
    float scale;
    const AttentionTile* tiles;
    int64_t num_tiles, tile_tokens;
};

// What `work` multiplies with: float32, the best unit for bf16, the best unit for bytes.
enum class Unit : int { kFloat = 0, kHalf = 1, kBytes = 2 };

struct Level {
    const char* name;
    bool (*supported)();
    // out[rows][columns] = x[rows][depth] * weight^T, sums in float32 or exact.
    void (*linear)(Dtype dtype, const void* x, const Matrix& weight, void* out, int64_t rows, int threads);
    void (*attention_inputs)(const AttentionInputs& args, int threads);
    void (*feed_forward)(const FeedForward& args, int threads);
    // Fills what a packed matrix points at from float rows.
    void (*pack)(Dtype dtype, const void* weight, int64_t stride, const Matrix& to, int threads);
    // Rows of a packed matrix as the floats they stand for.
    void (*unpack_rows)(Dtype dtype, const Matrix& weight, const int64_t* rows, int64_t count, void* out, int threads);
    // The table from float rows; out[rows][columns], the scores of x[rows][depth]; rows by id.
    void (*table_pack)(Dtype dtype, const void* from, int64_t stride, const Table& to, int threads);
    void (*table_scores)(const Table& table, const float* x, float* out, int64_t rows, int threads);
    void (*table_rows)(Dtype dtype, const Table& table, const int64_t* ids, int64_t count, void* out, int threads);
    void (*rms_norm)(Dtype dtype, const void* x, const void* weight, void* out, int64_t rows, int64_t dim, float eps,
                     int threads);
    void (*rotate)(Dtype dtype, const void* x, const float* cos, const float* sin, void* out, int64_t tokens,
                   int64_t heads, int64_t dim, int threads);
    void (*swiglu)(Dtype dtype, const void* gate, const void* up, void* out, int64_t rows, int64_t dim,
                   int64_t gate_stride, int64_t up_stride, int threads);
    void (*write_kv)(Dtype from, Dtype to, const void* rows, void* pool, const int64_t* slots, int64_t tokens,
                     int64_t width, int threads);
    // Rows [tokens, heads, dim] as bytes with a scale for each token and head.
    void (*write_kv_int8)(Dtype from, const void* rows, int8_t* pool, float* scales, const int64_t* slots,
                          int64_t tokens, int64_t heads, int64_t dim, int threads);
    void (*attention)(const AttentionArgs& args, int threads);
    int64_t (*work)(Unit unit, int64_t rounds);
    int64_t (*read_all)(const void* from, int64_t bytes, int threads);
};

}  // namespace llamakit
