// Activations to bytes: an optional Hadamard rotation, then one scale a row.
//
// The rotation spreads outliers over its block, so that one scale fits the whole row; the weights were packed with the
// same rotation, and the products stay what they were.
#pragma once
#include "ints.h"
#include "level.h"
#include "pool.h"
#include "rows.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kStep = 64;   // k values that packed weights keep together
constexpr int64_t kGroup = 32;  // k values that share a multiplier
constexpr float kSmallest = 1e-30f;  // rows of nothing larger are zero: 127 / x stays finite

// x <- H x for every block; H is the Hadamard matrix of +-1 in natural order. `block` is a power of two of at least 16.
// Every stage is one addition or subtraction of the same two values on all levels, so the bits are the same, too.
// Values a, b at `distance` from each other become a + b, a - b, in 1, 2 or 3 stages at once: fewer passes over the row.
template <int kStages>
INLINE void rotate_stages(float* x, int64_t size, int64_t distance) {
    constexpr int kCount = 1 << kStages;
    for (int64_t base = 0; base < size; base += distance * kCount)
        for (int64_t i = base; i < base + distance; i += kLanes) {
            Vec v[kCount];
            UNROLL for (int j = 0; j < kCount; ++j) v[j] = load(x + i + j * distance);
            UNROLL for (int stage = 1; stage < kCount; stage *= 2)
                UNROLL for (int j = 0; j < kCount; ++j)
                    if (!(j & stage)) {
                        const Vec a = v[j], b = v[j | stage];
                        v[j] = add(a, b);
                        v[j | stage] = sub(a, b);
                    }
            UNROLL for (int j = 0; j < kCount; ++j) store(x + i + j * distance, v[j]);
        }
}

inline void rotate_blocks(float* x, int64_t size, int64_t block) {
    for (int64_t i = 0; i < size; i += kLanes) {
        Vec v = butterfly<2>(butterfly<1>(load(x + i)));
        if constexpr (kLanes >= 8) v = butterfly<4>(v);
        if constexpr (kLanes >= 16) v = butterfly<8>(v);
        store(x + i, v);
    }
    int64_t distance = kLanes;
    for (; distance * 8 <= block; distance *= 8) rotate_stages<3>(x, size, distance);
    if (distance * 4 <= block) {
        rotate_stages<2>(x, size, distance);
        distance *= 4;
    }
    if (distance * 2 <= block) rotate_stages<1>(x, size, distance);
}

// The largest magnitude of whole steps of values; whether all are finite.
inline bool highest_magnitude(const float* x, int64_t size, float* high) {
    Vec most[2] = {zero(), zero()};
    for (int64_t i = 0; i < size; i += 2 * kLanes)
        for (int j = 0; j < 2; ++j) most[j] = max_magnitude(most[j], load(x + i + j * kLanes));
    float lanes[kLanes];
    store(lanes, max_magnitude(most[0], most[1]));
    bool finite = true;
    *high = 0.0f;
    for (const float lane : lanes) {
        finite = finite && lane <= __FLT_MAX__;
        *high = lane > *high ? lane : *high;
    }
    return finite;
}

// One row of float32, zero-padded to whole steps, to bytes. A row with a NaN or an infinity gets a NaN scale.
inline void quantize_row(const float* x, const Activations& to, int64_t row) {
    float high;
    const bool finite = highest_magnitude(x, to.steps * kStep, &high);
    to.scales[row] = finite ? high / 127.0f : __builtin_nanf("");
    const Vec factor = set1(high > kSmallest ? 127.0f / high : 0.0f);
    int8_t* codes = to.codes + row / 16 * to.block_stride + row % 16 * to.row_stride;
    int32_t total = 0;
    if (to.sums) {
        int32_t* sums = to.sums + row * to.steps * 2;
        for (int64_t step = 0; step < to.steps; ++step) {
            int8_t* piece = codes + step * to.step_stride;
            if (finite) store_bytes(piece, x + step * kStep, factor);
            else memset(piece, 0, kStep);
            sum_bytes(piece, sums + step * 2);
            total += sums[step * 2] + sums[step * 2 + 1];
        }
    } else {
        ByteTotal sum;
        for (int64_t step = 0; step < to.steps; ++step) {
            int8_t* piece = codes + step * to.step_stride;
            if (finite) store_bytes(piece, x + step * kStep, factor);
            else memset(piece, 0, kStep);
            sum.add(piece);
        }
        total = sum.get();
    }
    to.totals[row] = total;
}

// How much memory `cut_activations` hands out for these sizes; `rows` are rounded up to whole tiles.
inline size_t activation_bytes(int64_t rows, int64_t depth) {
    const int64_t steps = ceil_div(depth, kStep), padded = round_up(rows, 16);
    return static_cast<size_t>(padded * (steps * kStep + steps * 8 + 8) + 64);
}

// `tiled`: 16 rows of one step lie together, as matrix tiles want them; else rows lie whole. `grouped`: with the sum of
// each group of 32, for nibbles that are multiplied as they are.
inline Activations cut_activations(void* memory, int64_t rows, int64_t depth, bool tiled, bool grouped) {
    Activations a;
    a.rows = rows;
    a.steps = ceil_div(depth, kStep);
    a.row_stride = tiled ? kStep : a.steps * kStep;
    a.step_stride = tiled ? 16 * kStep : kStep;
    a.block_stride = 16 * a.steps * kStep;
    const int64_t padded = round_up(rows, 16);
    a.codes = static_cast<int8_t*>(memory);
    int32_t* sums = reinterpret_cast<int32_t*>(a.codes + padded * a.steps * kStep);
    a.sums = grouped ? sums : nullptr;
    a.totals = sums + padded * a.steps * 2;
    a.scales = reinterpret_cast<float*>(a.totals + padded);
    return a;
}

// A row of T as float32.
template <class T>
INLINE void widen_row(const T* x, int64_t depth, float* to) {
    for_lanes(depth, [&](int64_t i, int count) { set(to + i, get(x + i, count), count); });
}

// Heads of a row to bytes, one scale each; a head with a NaN or an infinity gets a NaN scale.
template <class T>
void write_heads(const T* rows, int8_t* pool, float* scales, const int64_t* slots, int64_t tokens, int64_t heads,
                 int64_t dim, int threads) {
    const int64_t padded = round_up(dim, kStep);
    for_rows(threads, tokens, heads * dim, [&](int64_t n) {
        float* values = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(padded * 5)));
        int8_t* codes = reinterpret_cast<int8_t*>(values + padded);
        for (int64_t i = dim; i < padded; ++i) values[i] = 0.0f;
        for (int64_t h = 0; h < heads; ++h) {
            widen_row(rows + (n * heads + h) * dim, dim, values);
            float high;
            const bool finite = highest_magnitude(values, padded, &high);
            const Vec factor = set1(high > kSmallest ? 127.0f / high : 0.0f);
            for (int64_t i = 0; i < padded; i += kStep) {
                if (finite) store_bytes(codes + i, values + i, factor);
                else memset(codes + i, 0, kStep);
            }
            memcpy(pool + (slots[n] * heads + h) * dim, codes, static_cast<size_t>(dim));
            scales[slots[n] * heads + h] = finite ? high / 127.0f : __builtin_nanf("");
        }
    });
}

void write_kv_int8(Dtype from, const void* rows, int8_t* pool, float* scales, const int64_t* slots, int64_t tokens,
                   int64_t heads, int64_t dim, int threads) {
    if (from == kF32) write_heads(static_cast<const float*>(rows), pool, scales, slots, tokens, heads, dim, threads);
    else write_heads(static_cast<const bf16*>(rows), pool, scales, slots, tokens, heads, dim, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
