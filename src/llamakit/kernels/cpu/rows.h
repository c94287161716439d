// Operations on one row at a time: norm, rotary positions, the feed-forward gate, and storing keys and values.
#pragma once
#include "level.h"
#include "pool.h"
#include "vec.h"

namespace llamakit::LEVEL {
namespace {

// Rows a thread takes at a time, so that a task has some thousands of values; few values run on the caller.
inline int64_t rows_per_task(int64_t width) {
    const int64_t rows = 16384 / (width + 1);
    return rows < 1 ? 1 : rows;
}

template <class Body>
inline void for_rows(int threads, int64_t rows, int64_t width, Body&& body) {
    const int64_t group = rows_per_task(width);
    for_each(threads, ceil_div(rows, group), [&](int64_t task) {
        const int64_t end = (task + 1) * group < rows ? (task + 1) * group : rows;
        for (int64_t r = task * group; r < end; ++r) body(r);
    });
}

// body(offset, count) over a row: whole vectors, then the rest.
template <class Body>
INLINE void for_lanes(int64_t width, Body&& body) {
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes) body(i, kLanes);
    if (i < width) body(i, static_cast<int>(width - i));
}

template <class T>
INLINE Vec get(const T* p, int count) {
    return count == kLanes ? load(p) : load_part(p, count);
}
template <class T>
INLINE void set(T* p, Vec x, int count) {
    if (count == kLanes) store(p, x);
    else store_part(p, x, count);
}

// To the precision of T and back.
INLINE Vec rounded(Vec x, const float*) { return x; }
INLINE Vec rounded(Vec x, const bf16*) { return rounded_to_bf16(x); }

// 1 / sqrt(mean(x^2) + eps). Four accumulators, folded in order.
template <class T>
inline float norm_scale(const T* x, int64_t dim, float eps) {
    Vec squares[4] = {zero(), zero(), zero(), zero()};
    int64_t i = 0;
    for (; i + 4 * kLanes <= dim; i += 4 * kLanes)
        for (int j = 0; j < 4; ++j) {
            const Vec v = load(x + i + j * kLanes);
            squares[j] = fma(v, v, squares[j]);
        }
    for (int j = 0; i < dim; i += kLanes, ++j) {
        const Vec v = get(x + i, dim - i < kLanes ? static_cast<int>(dim - i) : kLanes);
        squares[j] = fma(v, v, squares[j]);
    }
    const float total = sum(add(add(squares[0], squares[1]), add(squares[2], squares[3])));
    return 1.0f / __builtin_sqrtf(total / static_cast<float>(dim) + eps);
}

template <class T>
void rms_norm_rows(const T* x, const T* weight, T* out, int64_t rows, int64_t dim, float eps, int threads) {
    for_rows(threads, rows, dim, [&](int64_t r) {
        const T* from = x + r * dim;
        T* to = out + r * dim;
        const Vec scale = set1(norm_scale(from, dim, eps));
        for_lanes(dim, [&](int64_t i, int count) {
            // Meta's order: normalise, round to the stream's type, then gain.
            const Vec normal = rounded(mul(get(from + i, count), scale), from);
            set(to + i, mul(normal, get(weight + i, count)), count);
        });
    });
}

// Heads of one token; `out` may be `x`.
template <class T>
INLINE void rotate_row(const T* x, const float* cos, const float* sin, T* out, int64_t heads, int64_t dim) {
    const int64_t half = dim / 2;
    for (int64_t h = 0; h < heads; ++h, x += dim, out += dim)
        for_lanes(half, [&](int64_t i, int count) {
            const Vec a = get(x + i, count), b = get(x + half + i, count);
            const Vec c = get(cos + i, count), s = get(sin + i, count);
            // The products are rounded before they are subtracted, as in the reference.
            set(out + i, sub(mul(a, c), mul(b, s)), count);
            set(out + half + i, add(mul(b, c), mul(a, s)), count);
        });
}

template <class T>
void rotate_rows(const T* x, const float* cos, const float* sin, T* out, int64_t tokens, int64_t heads, int64_t dim,
                 int threads) {
    const int64_t half = dim / 2;
    for_rows(threads, tokens, heads * dim, [&](int64_t n) {
        const int64_t first = n * heads * dim;
        rotate_row(x + first, cos + n * half, sin + n * half, out + first, heads, dim);
    });
}

// silu(gate) * up; `out` may be either.
template <class T>
INLINE void gate_row(const T* gate, const T* up, T* out, int64_t width) {
    for_lanes(width, [&](int64_t i, int count) {
        const Vec x = get(gate + i, count);
        const Vec silu = mul(x, reciprocal(add(set1(1.0f), exp(sub(zero(), x), gate))));
        set(out + i, mul(rounded(silu, gate), get(up + i, count)), count);
    });
}

template <class T>
void swiglu_rows(const T* gate, const T* up, T* out, int64_t rows, int64_t dim, int64_t gate_stride,
                 int64_t up_stride, int threads) {
    // A column block of a row is a task's unit: one row of a large model is already worth two threads.
    const int64_t width = 4096, blocks = ceil_div(dim, width);
    for_rows(threads, rows * blocks, dim < width ? dim : width, [&](int64_t unit) {
        const int64_t r = unit / blocks, first = unit % blocks * width;
        const int64_t count = dim - first < width ? dim - first : width;
        gate_row(gate + r * gate_stride + first, up + r * up_stride + first, out + r * dim + first, count);
    });
}

template <class From, class To>
void write_rows(const From* rows, To* pool, const int64_t* slots, int64_t tokens, int64_t width, int threads) {
    for_rows(threads, tokens, width, [&](int64_t n) {
        const From* from = rows + n * width;
        To* to = pool + slots[n] * width;
        for_lanes(width, [&](int64_t i, int count) { set(to + i, get(from + i, count), count); });
    });
}

void rms_norm(Dtype dtype, const void* x, const void* weight, void* out, int64_t rows, int64_t dim, float eps,
              int threads) {
    if (dtype == kF32)
        rms_norm_rows(static_cast<const float*>(x), static_cast<const float*>(weight), static_cast<float*>(out), rows,
                      dim, eps, threads);
    else
        rms_norm_rows(static_cast<const bf16*>(x), static_cast<const bf16*>(weight), static_cast<bf16*>(out), rows,
                      dim, eps, threads);
}

void rotate(Dtype dtype, const void* x, const float* cos, const float* sin, void* out, int64_t tokens, int64_t heads,
            int64_t dim, int threads) {
    if (dtype == kF32)
        rotate_rows(static_cast<const float*>(x), cos, sin, static_cast<float*>(out), tokens, heads, dim, threads);
    else
        rotate_rows(static_cast<const bf16*>(x), cos, sin, static_cast<bf16*>(out), tokens, heads, dim, threads);
}

void swiglu(Dtype dtype, const void* gate, const void* up, void* out, int64_t rows, int64_t dim, int64_t gate_stride,
            int64_t up_stride, int threads) {
    if (dtype == kF32)
        swiglu_rows(static_cast<const float*>(gate), static_cast<const float*>(up), static_cast<float*>(out), rows,
                    dim, gate_stride, up_stride, threads);
    else
        swiglu_rows(static_cast<const bf16*>(gate), static_cast<const bf16*>(up), static_cast<bf16*>(out), rows, dim,
                    gate_stride, up_stride, threads);
}

void write_kv(Dtype from, Dtype to, const void* rows, void* pool, const int64_t* slots, int64_t tokens, int64_t width,
              int threads) {
    const float* wide = static_cast<const float*>(rows);
    const bf16* narrow = static_cast<const bf16*>(rows);
    if (from == kF32 && to == kF32) write_rows(wide, static_cast<float*>(pool), slots, tokens, width, threads);
    else if (from == kF32) write_rows(wide, static_cast<bf16*>(pool), slots, tokens, width, threads);
    else if (to == kF32) write_rows(narrow, static_cast<float*>(pool), slots, tokens, width, threads);
    else write_rows(narrow, static_cast<bf16*>(pool), slots, tokens, width, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
