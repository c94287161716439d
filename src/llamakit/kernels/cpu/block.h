// The two halves of a decoder layer around attention, each one call.
//
// They do what the separate kernels do, rounding where those round, so their results have the same bits; what is saved
// is passes over memory, work on a row that three products share, and calls.
#pragma once
#include "product.h"

namespace llamakit::LEVEL {
namespace {

// Normalised and scaled values of a row, rounded as rms_norm rounds them.
template <class T>
INLINE void norm_row(const T* x, const T* gain, int64_t dim, float eps, float* to) {
    const Vec scale = set1(norm_scale(x, dim, eps));
    for_lanes(dim, [&](int64_t i, int count) {
        const Vec normal = rounded(mul(get(x + i, count), scale), x);
        set(to + i, rounded(mul(normal, get(gain + i, count)), x), count);
    });
}

// The products of several weights with one operand, shared out together.
template <class T>
void multiply_together(const Product<T>* products, T* const* outs, const int64_t* strides, int count, int threads) {
    int64_t total = 0;
    for (int i = 0; i < count; ++i) total += products[i].patches();
    for_each(threads, total, [&](int64_t index) {
        int i = 0;
        for (; index >= products[i].patches(); ++i) index -= products[i].patches();
        const Patch p = products[i].patch(index);
        products[i].run(p, outs[i] + p.row * strides[i] + p.column, strides[i]);
    });
}

// A piece of memory cut from the front.
class Cut {
  public:
    explicit Cut(void* memory) : next_(static_cast<char*>(memory)) {}
    template <class T>
    T* take(size_t count) {
        T* here = reinterpret_cast<T*>(next_);
        next_ += bytes<T>(count);
        return here;
    }
    template <class T>
    static size_t bytes(size_t count) {
        return (count * sizeof(T) + 63) / 64 * 64;
    }

  private:
    char* next_;
};

template <class T>
void attention_inputs_of(const AttentionInputs& a, int threads) {
    const int64_t n = a.tokens, width = a.q.depth;
    OperandMaker<T> maker(a.q, n, scratch(kShared, OperandMaker<T>::bytes(a.q.kind, n, width)));
    maker.share(a.k);
    maker.share(a.v);
    const T *x = static_cast<const T*>(a.x), *gain = static_cast<const T*>(a.gain);
    for_rows(threads, n, width * 4, [&](int64_t r) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(maker.buffer_floats()) * sizeof(float)));
        norm_row(x + r * width, gain, width, a.eps, row);
        maker.put(r, row);
    });
    const Operand<T>& operand = maker.done(threads);
    const Product<T> products[] = {{a.q, operand, threads}, {a.k, operand, threads}, {a.v, operand, threads}};
    T* const outs[] = {static_cast<T*>(a.q_out), static_cast<T*>(a.k_out), static_cast<T*>(a.v_out)};
    const int64_t strides[] = {a.q.columns, a.k.columns, a.v.columns};
    multiply_together(products, outs, strides, 3, threads);
    for_rows(threads, n, a.q.columns + a.k.columns, [&](int64_t r) {
        const int64_t half = a.dim / 2;
        rotate_row(outs[0] + r * strides[0], a.cos + r * half, a.sin + r * half, outs[0] + r * strides[0], strides[0] / a.dim, a.dim);
        rotate_row(outs[1] + r * strides[1], a.cos + r * half, a.sin + r * half, outs[1] + r * strides[1], strides[1] / a.dim, a.dim);
    });
}

template <class T>
INLINE void add_row(const T* a, const T* b, T* to, int64_t width) {
    for_lanes(width, [&](int64_t i, int count) { set(to + i, add(get(a + i, count), get(b + i, count)), count); });
}

// silu(gate) * up of a patch, one after the other into `gate`'s place.
template <class T>
INLINE void gate_patch(const Patch& p, const T* gate, const T* up, T* out, int64_t out_stride) {
    for (int64_t r = 0; r < p.rows; ++r)
        gate_row(gate + r * p.columns, up + r * p.columns, out + r * out_stride, p.columns);
}

template <class T>
void feed_forward_of(const FeedForward& a, int threads) {
    const int64_t n = a.tokens, width = a.o.columns, inner = a.gate.columns;
    using Maker = OperandMaker<T>;
    const size_t mixed_bytes = Maker::bytes(a.o.kind, n, a.o.depth), norm_bytes = Maker::bytes(a.gate.kind, n, width);
    const size_t inner_bytes = Maker::bytes(a.down.kind, n, inner);
    const size_t values = static_cast<size_t>(n);
    Cut cut(scratch(kShared, Cut::bytes<char>(mixed_bytes) + Cut::bytes<char>(norm_bytes) + Cut::bytes<char>(inner_bytes) +
                                 2 * Cut::bytes<T>(values * width) + Cut::bytes<T>(values * inner)));
    T *added = cut.take<T>(values * width), *stream = cut.take<T>(values * width), *gated = cut.take<T>(values * inner);

    Maker mixed(a.o, n, cut.take<char>(mixed_bytes));
    mixed.put_all(static_cast<const T*>(a.mixed), threads);
    const Product<T> o(a.o, mixed.done(threads), threads);
    multiply_together(&o, &added, &width, 1, threads);

    Maker norm(a.gate, n, cut.take<char>(norm_bytes));
    const T *x = static_cast<const T*>(a.x), *gain = static_cast<const T*>(a.gain);
    for_rows(threads, n, width * 4, [&](int64_t r) {
        float* row = static_cast<float*>(scratch(kPerTask, static_cast<size_t>(norm.buffer_floats()) * sizeof(float)));
        add_row(x + r * width, added + r * width, stream + r * width, width);
        norm_row(stream + r * width, gain, width, a.eps, row);
        norm.put(r, row);
    });
    const Operand<T>& normed = norm.done(threads);
    const Product<T> gate(a.gate, normed, threads), up(a.up, normed, threads);
    for_each(threads, gate.patches(), [&](int64_t index) {
        const Patch p = gate.patch(index);
        const size_t size = static_cast<size_t>(gate.patch_size());
        T* gates = static_cast<T*>(scratch(kPerTask, 2 * size * sizeof(T)));
        gate.run(p, gates, p.columns);
        up.run(p, gates + size, p.columns);
        gate_patch(p, gates, gates + size, gated + p.row * inner + p.column, inner);
    });

    Maker gated_rows(a.down, n, cut.take<char>(inner_bytes));
    gated_rows.put_all(gated, threads);
    const Product<T> down(a.down, gated_rows.done(threads), threads);
    multiply_together(&down, &added, &width, 1, threads);
    T* out = static_cast<T*>(a.out);
    for_rows(threads, n, width, [&](int64_t r) { add_row(stream + r * width, added + r * width, out + r * width, width); });
}

void attention_inputs(const AttentionInputs& a, int threads) {
    if (a.dtype == kF32) attention_inputs_of<float>(a, threads);
    else attention_inputs_of<bf16>(a, threads);
}

void feed_forward(const FeedForward& a, int threads) {
    if (a.dtype == kF32) feed_forward_of<float>(a, threads);
    else feed_forward_of<bf16>(a, threads);
}

}  // namespace
}  // namespace llamakit::LEVEL
