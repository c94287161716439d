/* The C border of the kernels: what python's ctypes calls.
 *
 * Pointers are plain addresses of contiguous CPU memory unless a stride says otherwise; strides count elements.
 * dtype: 0 float32, 1 bfloat16. `threads` is an upper limit. Functions that check their input return 0 when they
 * have done their work, or a code below and have then changed nothing.
 */
#pragma once
#include <stdint.h>

#if defined(_WIN32)
#define LK_API extern "C" __declspec(dllexport)
#else
#define LK_API extern "C" __attribute__((visibility("default")))
#endif

/* Changes whenever a signature or the meaning of an argument does. */
#define LK_ABI 8

enum { LK_OK = 0, LK_BAD_SLOT = 1, LK_BAD_BLOCK = 2, LK_BAD_ROW = 3 };

LK_API int lk_abi(void);
/* The levels this build and this processor share, best first, as "amx avx512bf16 ... portable". */
LK_API const char* lk_levels(void);
/* Uses one of them from now on; 0 if it is not among them. */
LK_API int lk_select(const char* level);

/* Threads that are made from now on stay on a processor of their own. */
LK_API void lk_pin_threads(void);

/* A weight. Packed: kernels/packed.py describes codes, multipliers (null for bytes), scales and rotation, and `dense`
 * is null. Grouped: kernels/grouped.py describes codes, halves, minima (null for none) and rotation. Dense: rows of
 * `depth` values of the activations' dtype, `stride` apart. All others are null or 0. */
struct lk_matrix {
    const void* dense;
    int64_t stride;
    const uint8_t* codes;
    const int8_t* multipliers;
    const float* scales;
    int64_t columns, depth, rotation;
    const uint16_t *halves, *minima;
    int bits; /* of a grouped weight */
};
/* out[rows][columns] = x[rows][depth] * weight^T */
LK_API void lk_linear(int dtype, const void* x, const struct lk_matrix* weight, void* out, int64_t rows, int threads);
/* The halves of a decoder layer around attention, see AttentionInputs and FeedForward in level.h. q, k, v and gate, up
 * are each of one kind and rotation. */
LK_API void lk_attention_inputs(int dtype, const void* x, const void* gain, float eps, const struct lk_matrix* q,
                                const struct lk_matrix* k, const struct lk_matrix* v, const float* cos,
                                const float* sin, void* q_out, void* k_out, void* v_out, int64_t tokens, int64_t dim,
                                int threads);
LK_API void lk_feed_forward(int dtype, const void* x, const void* mixed, const void* gain, float eps,
                            const struct lk_matrix* o, const struct lk_matrix* gate, const struct lk_matrix* up,
                            const struct lk_matrix* down, void* out, int64_t tokens, int threads);
/* Fills the memory that `to` points at. */
LK_API void lk_pack(int dtype, const void* weight, int64_t stride, const struct lk_matrix* to, int threads);
/* LK_BAD_ROW unless 0 <= rows[i] < columns. */
LK_API int lk_unpack_rows(int dtype, const struct lk_matrix* weight, const int64_t* rows, int64_t count, void* out,
                          int threads);
/* A vocabulary of rows, see Table in level.h. */
struct lk_table {
    struct lk_matrix coarse;
    const uint8_t* rows;
    const float* scales;
};
/* Fills the memory that `to` points at. */
LK_API void lk_table_pack(int dtype, const void* from, int64_t stride, const struct lk_table* to, int threads);
/* out[rows][columns]: the score of each row of the table for x[rows][depth], see table.h. */
LK_API void lk_table_scores(const struct lk_table* table, const float* x, float* out, int64_t rows, int threads);
/* LK_BAD_ROW unless 0 <= ids[i] < columns. */
LK_API int lk_table_rows(int dtype, const struct lk_table* table, const int64_t* ids, int64_t count, void* out,
                         int threads);
LK_API void lk_rms_norm(int dtype, const void* x, const void* weight, void* out, int64_t rows, int64_t dim, float eps,
                        int threads);
LK_API void lk_rotate(int dtype, const void* x, const float* cos, const float* sin, void* out, int64_t tokens,
                      int64_t heads, int64_t dim, int threads);
LK_API void lk_swiglu(int dtype, const void* gate, const void* up, void* out, int64_t rows, int64_t dim,
                      int64_t gate_stride, int64_t up_stride, int threads);
/* Rows [tokens, width] to pool[slots[i]]; LK_BAD_SLOT unless 0 <= slot < num_slots. */
LK_API int lk_write_kv(int from, int to, const void* rows, void* pool, const int64_t* slots, int64_t tokens,
                       int64_t num_slots, int64_t width, int threads);
/* See AttentionArgs in level.h; LK_BAD_BLOCK when a table names a block outside the pool or is too short. */
LK_API int lk_attention(int q_dtype, int pool_dtype, const void* q, const void* k_pool, const void* v_pool, void* out,
                        const int32_t* query_starts, const int32_t* context_lens, const int32_t* block_tables,
                        int64_t sequences, int64_t table_stride, int64_t num_blocks, int64_t block_tokens,
                        int64_t heads, int64_t kv_heads, int64_t dim, float scale, int threads);
/* The same over pools of integers: value = scale * code, scales [blocks, block_tokens, kv_heads]. */
LK_API int lk_attention_int8(int q_dtype, const void* q, const int8_t* k_pool, const int8_t* v_pool,
                             const float* k_scales, const float* v_scales, void* out, const int32_t* query_starts,
                             const int32_t* context_lens, const int32_t* block_tables, int64_t sequences,
                             int64_t table_stride, int64_t num_blocks, int64_t block_tokens, int64_t heads,
                             int64_t kv_heads, int64_t dim, float scale, int threads);
/* Rows [tokens, heads, dim] rounded to such a pool, one scale for each token and head. */
LK_API int lk_write_kv_int8(int from, const void* rows, int8_t* pool, float* scales, const int64_t* slots,
                            int64_t tokens, int64_t num_slots, int64_t heads, int64_t dim, int threads);
/* A decoder layer, and what all layers of a step share. */
struct lk_layer {
    const void *attention_gain, *feed_forward_gain;
    float attention_eps, feed_forward_eps;
    struct lk_matrix q, k, v, o, gate, up, down;
    int64_t head_dim;
};
struct lk_step {
    int64_t tokens;
    const float *cos, *sin; /* [tokens][head_dim / 2] */
    const int64_t* slots;   /* where the keys and values of the tokens go */
    const int32_t *query_starts, *context_lens, *block_tables;
    int64_t sequences, table_stride, num_blocks, block_tokens;
    float scale;
};
/* What a layer keeps its keys and values in; the scales are null for floats. */
struct lk_pools {
    void *k, *v;
    float *k_scales, *v_scales;
};
/* out = x after `count` whole layers, each over its own pools of dtype `pool_dtype`, or of integers where there are
 * scales. Slots and tables, the same for all layers, are checked before anything is changed. */
LK_API int lk_run_layers(int dtype, int pool_dtype, const struct lk_layer* const* layers, const struct lk_pools* pools,
                         int64_t count, const struct lk_step* step, const void* x, void* out, int threads);
/* Moves the whole 2 MiB pages of memory that nobody writes into large ones; the bytes moved. */
LK_API int64_t lk_settle(void* memory, int64_t bytes);
/* The machine's limits at this level. Unit: 0 float32, 1 bf16, 2 bytes; the operations done, two for each product. */
LK_API int64_t lk_work(int unit, int64_t rounds);
/* Reads memory in order, a whole number of MiB; the bytes read. */
LK_API int64_t lk_read(const void* from, int64_t bytes, int threads);
