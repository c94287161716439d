// Weights to packed integers, and rows of them back: what happens once, when a model is quantized or an id looked up.
#pragma once
#include "grouped.h"
#include "packed.h"

namespace llamakit::LEVEL {
namespace {

// A row of T as float32, rotated so that a product with rotated activations is the product of the plain ones.
template <class T>
void weight_row(const T* w, int64_t depth, int64_t padded, int64_t rotation, float* to) {
    // H is its own inverse up to the block size.
    const Vec factor = set1(rotation ? 1.0f / static_cast<float>(rotation) : 1.0f);
    for_lanes(depth, [&](int64_t i, int count) { set(to + i, mul(get(w + i, count), factor), count); });
    for (int64_t i = depth; i < padded; ++i) to[i] = 0.0f;
    if (rotation) rotate_blocks(to, depth, rotation);
}

inline float highest_of(const float* x, int64_t size) {
    Vec most = zero();
    for (int64_t i = 0; i < size; i += kLanes) most = max(most, abs(load(x + i)));
    return highest(most);
}

// Where k lies inside a block of bytes, column 0.
INLINE int64_t byte_place(int64_t k) { return k / 4 * 64 + k % 4; }
// Where the byte of k's nibble lies inside a block of nibbles, column 0.
INLINE int64_t nibble_place(int64_t k) { return k / kGroup * 256 + k % 16 / 4 * 64 + k % 4; }
INLINE bool nibble_is_high(int64_t k) { return k % kGroup >= 16; }

inline void pack_byte_row(const float* row, int64_t padded, uint8_t* codes, float* scale) {
    const float high = highest_of(row, padded), inverse = high > kSmallest ? 127.0f / high : 0.0f;
    *scale = high / 127.0f;
    int8_t part[kStep];
    for (int64_t k = 0; k < padded; k += kStep) {
        store_bytes(part, row + k, set1(inverse));
        for (int64_t i = 0; i < kStep; ++i) codes[byte_place(k + i)] = static_cast<uint8_t>(part[i] + 128);
    }
}

// Squared error of a group rounded to multiples -8 .. 7 of `step`.
inline float group_error(const float* x, float step) {
    const Vec s = set1(step), inverse = set1(1.0f / step);
    Vec errors = zero();
    for (int64_t i = 0; i < kGroup; i += kLanes) {
        const Vec v = load(x + i);
        const Vec q = min(set1(7.0f), max(set1(-8.0f), round(mul(v, inverse))));
        const Vec e = sub(v, mul(q, s));
        errors = fma(e, e, errors);
    }
    return sum(errors);
}

// The multiplier of least error for a group under one channel scale. Its sign gives the larger end of the range, -8,
// to the side where the group reaches farther.
inline float group_multiplier(const float* x, float scale, int8_t* best) {
    float high = 0.0f;
    for (int64_t i = 0; i < kGroup; ++i)
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(high)) high = x[i];
    const float sign = high > 0.0f ? -1.0f : 1.0f;
    const int widest = static_cast<int>(__builtin_fabsf(high) / (8.0f * scale) + 1.0f);
    float least = __builtin_inff();
    *best = 1;
    for (int size = widest + 1 < 15 ? widest + 1 : 15; size >= 1 && size >= widest - 2; --size) {
        const float error = group_error(x, sign * static_cast<float>(size) * scale);
        if (error < least) {
            least = error;
            *best = static_cast<int8_t>(sign * static_cast<float>(size));
        }
    }
    return least;
}

// `multipliers` [groups][16]: this column's are 16 apart; `trial` holds one for each group.
inline void pack_nibble_row(const float* row, int64_t padded, int8_t* trial, uint8_t* codes, int8_t* multipliers,
                            float* scale) {
    const int64_t groups = padded / kGroup;
    const float high = highest_of(row, padded);
    *scale = high / (8.0f * 15.0f);
    float least = __builtin_inff();
    if (high > kSmallest) {
        // A scale below the one that reaches the highest weight clips it a little and rounds all others finer.
        const float full = *scale;
        constexpr float kFactors[] = {1.0f, 0.94f, 0.88f, 0.82f};
        for (const float factor : kFactors) {
            float error = 0.0f;
            for (int64_t g = 0; g < groups; ++g) error += group_multiplier(row + g * kGroup, full * factor, trial + g);
            if (error < least) {
                least = error;
                *scale = full * factor;
                for (int64_t g = 0; g < groups; ++g) multipliers[g * 16] = trial[g];
            }
        }
    } else {
        for (int64_t g = 0; g < groups; ++g) multipliers[g * 16] = 1;
    }
    for (int64_t k = 0; k < padded; ++k) {
        const float step = *scale * static_cast<float>(multipliers[k / kGroup * 16]);
        const float q = high > kSmallest ? __builtin_rintf(row[k] / step) : 0.0f;
        const int code = static_cast<int>(q < -8.0f ? -8.0f : q > 7.0f ? 7.0f : q) + 8;
        uint8_t* byte = codes + nibble_place(k);
        *byte = static_cast<uint8_t>(nibble_is_high(k) ? (*byte & 15) | code << 4 : (*byte & 240) | code);
    }
}

template <class T>
void pack_of(const T* w, int64_t stride, const Matrix& to, int threads) {
    const int64_t steps = ceil_div(to.depth, kStep), padded = steps * kStep, groups = steps * 2;
    for_each(threads, ceil_div(to.columns, 16), [&](int64_t block) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(padded * 4 + groups)));
        int8_t* trial = reinterpret_cast<int8_t*>(row + padded);
        for (int64_t n = 0; n < 16; ++n) {
            const int64_t column = block * 16 + n;
            if (column < to.columns) weight_row(w + column * stride, to.depth, padded, to.rotation, row);
            else memset(row, 0, static_cast<size_t>(padded * 4));
            float* scale = const_cast<float*>(to.scales) + column;
            uint8_t* codes = const_cast<uint8_t*>(to.codes);
            if (to.kind == Kind::kNibbles)
                pack_nibble_row(row, padded, trial, codes + block * steps * kNibbleBytes + n * 4,
                                const_cast<int8_t*>(to.multipliers) + block * groups * 16 + n, scale);
            else
                pack_byte_row(row, padded, codes + block * steps * kBlockBytes + n * 4, scale);
        }
    });
}

void pack(Dtype dtype, const void* w, int64_t stride, const Matrix& to, int threads) {
    if (dtype == kF32) pack_of(static_cast<const float*>(w), stride, to, threads);
    else pack_of(static_cast<const bf16*>(w), stride, to, threads);
}

// Row `column` of the packed matrix as the floats it stands for, the rotation undone.
inline void unpack_row(const Matrix& w, int64_t column, float* to) {
    if (w.kind == Kind::kGrouped) return unpack_grouped_row(w, column, to);
    const int64_t steps = ceil_div(w.depth, kStep), padded = steps * kStep, n = column % 16;
    const float scale = w.scales[column];
    if (w.kind == Kind::kNibbles) {
        const uint8_t* codes = w.codes + column / 16 * steps * kNibbleBytes + n * 4;
        const int8_t* multipliers = w.multipliers + column / 16 * steps * 32 + n;
        for (int64_t k = 0; k < padded; ++k) {
            const int both = codes[nibble_place(k)];
            const int q = (nibble_is_high(k) ? both >> 4 : both & 15) - 8;
            to[k] = static_cast<float>(q * multipliers[k / kGroup * 16]) * scale;
        }
    } else {
        const uint8_t* codes = w.codes + column / 16 * steps * kBlockBytes + n * 4;
        for (int64_t k = 0; k < padded; k += 4)
            for (int64_t i = 0; i < 4; ++i) to[k + i] = static_cast<float>(codes[k * 16 + i] - 128) * scale;
    }
    if (w.rotation) rotate_blocks(to, w.depth, w.rotation);
}

void unpack_rows(Dtype dtype, const Matrix& w, const int64_t* columns, int64_t count, void* out, int threads) {
    const int64_t padded = round_up(w.depth, kStep);
    for_rows(threads, count, w.depth * 4, [&](int64_t i) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(padded * 4)));
        unpack_row(w, columns[i], row);
        for_lanes(w.depth, [&](int64_t k, int lanes) {
            if (dtype == kF32) set(static_cast<float*>(out) + i * w.depth + k, get(row + k, lanes), lanes);
            else set(static_cast<bf16*>(out) + i * w.depth + k, get(row + k, lanes), lanes);
        });
    });
}

}  // namespace
}  // namespace llamakit::LEVEL
