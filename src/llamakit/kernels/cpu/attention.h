// Attention of flat queries over their own paged keys and values.
//
// Keys are taken in chunks of kChunk, aligned at position 0. Each chunk gives a row its own maximum, sum and mix,
// computed from that chunk alone; these parts are folded in order of position. So a query has the same bits in a
// decode step, in a batch and in any cut of a prompt, and the parts of one query may be made by different threads.
//
// A tile is a few consecutive tokens of one sequence with the query heads that share one key head: every key and
// value is read once for all its rows. Scores and mixes are the same product C[r][.] = sum_s A[r][s] * B[s][.], with
// A broadcast word by word; a word is a float32, or a pair of bf16 where the machine multiplies those.
#pragma once
#include "dense.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kChunk = 128;  // keys

// How one 4-byte word of A meets a vector of words of B.
struct WideWords {
    using Element = float;
    static constexpr int kPerWord = 1;
    static INLINE Vec add(Vec sum, float a, Vec b) { return fma(set1(a), b, sum); }
};
#if defined(__AVX512BF16__)
struct PairWords {
    using Element = bf16;
    static constexpr int kPerWord = 2;
    static INLINE Vec add(Vec sum, float a, Vec b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(bits_of(a))), (__m512bh)bits(b));
    }
    // Widened bf16 has its bits in the upper half of a word: those of the first value move to the lower.
    static INLINE Vec pair(Vec first, Vec second) {
        return from_bits(_mm512_or_si512(_mm512_srli_epi32(bits(first), 16), bits(second)));
    }
    static INLINE uint32_t bits_of(float a) {
        uint32_t b;
        memcpy(&b, &a, sizeof b);
        return b;
    }
};
#endif

template <class Mode, int kRows, int kVectors>
INLINE void product_block(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                          int64_t c_stride, int64_t steps) {
    Vec sums[kRows][kVectors];
    for (auto& row : sums)
        for (Vec& s : row) s = zero();
    for (int64_t s = 0; s < steps; ++s) {
        Vec right[kVectors];
        for (int j = 0; j < kVectors; ++j) right[j] = load(b + s * b_stride + j * kLanes);
        for (int i = 0; i < kRows; ++i)
            for (int j = 0; j < kVectors; ++j) sums[i][j] = Mode::add(sums[i][j], a[i * a_stride + s], right[j]);
    }
    for (int i = 0; i < kRows; ++i)
        for (int j = 0; j < kVectors; ++j) store(c + i * c_stride + j * kLanes, sums[i][j]);
}

template <class Mode, int kVectors>
INLINE void product_rows(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                         int64_t c_stride, int64_t rows, int64_t steps) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4)
        product_block<Mode, 4, kVectors>(a + i * a_stride, a_stride, b, b_stride, c + i * c_stride, c_stride, steps);
    for (; i < rows; ++i)
        product_block<Mode, 1, kVectors>(a + i * a_stride, a_stride, b, b_stride, c + i * c_stride, c_stride, steps);
}

// C[rows][vectors * kLanes] = A[rows][steps] * B[steps][vectors * kLanes], in words.
template <class Mode>
void product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
             int64_t rows, int64_t steps, int64_t vectors) {
    constexpr int kWide = kManyRegisters ? 4 : 2;
    int64_t v = 0;
    for (; v + kWide <= vectors; v += kWide)
        product_rows<Mode, kWide>(a, a_stride, b + v * kLanes, b_stride, c + v * kLanes, c_stride, rows, steps);
    for (; v < vectors; ++v)
        product_rows<Mode, 1>(a, a_stride, b + v * kLanes, b_stride, c + v * kLanes, c_stride, rows, steps);
}

// A tile of one key head, and the memory its task works in.
template <class Mode, class Q, class P>
class TileWork {
    static constexpr int kPer = Mode::kPerWord;

  public:
    // Part of the answer: for each row the highest score, the sum of exp(score - top) and the values mixed by it.
    struct Part {
        float *tops, *totals, *mixes;
    };

    TileWork(const AttentionArgs& args, const AttentionTile& tile, int64_t kv_head, float* memory)
        : a_(args), tile_(tile), kv_head_(kv_head), group_(args.heads / args.kv_heads), rows_(tile.tokens * group_) {
        const Shape shape(args);
        dim_padded_ = shape.dim_padded;
        words_ = shape.words;
        part_rows_ = shape.rows;
        keys_ = memory;
        values_ = keys_ + words_ * kChunk;
        scores_ = values_ + dim_padded_ * kChunk;
        weights_ = scores_ + shape.rows * kChunk;
        queries_ = weights_ + shape.rows * kChunk;
        read_queries();
    }

    // Sizes that hold for every tile of a call, in floats.
    struct Shape {
        int64_t rows, words, dim_padded;
        explicit Shape(const AttentionArgs& a)
            : rows(round_up(a.tile_tokens * (a.heads / a.kv_heads), kLanes)),
              words(ceil_div(a.dim, kPer)),
              dim_padded(round_up(a.dim, kLanes)) {}
        int64_t work() const { return (words + dim_padded + 2 * rows) * kChunk + rows * words; }
        int64_t part() const { return rows * (2 + dim_padded); }
    };

    Part part(float* memory) const { return {memory, memory + part_rows_, memory + 2 * part_rows_}; }

    // What the keys of one chunk contribute.
    void attend(int64_t chunk, const Part& to) {
        const int64_t first = chunk * kChunk;
        const int64_t count = keys_of(tile_) - first < kChunk ? keys_of(tile_) - first : kChunk;
        read_chunk(first, count);
        product<Mode>(queries_, words_, keys_, kChunk, scores_, kChunk, rows_, words_, ceil_div(count, kLanes));
        for (int64_t r = 0; r < rows_; ++r) weigh(r, visible(r, first, count), count, to);
        product<Mode>(weights_, kChunk / kPer, values_, dim_padded_, to.mixes, dim_padded_, rows_,
                      ceil_div(count, kPer), dim_padded_ / kLanes);
    }

    // Adds the part of a later chunk.
    void fold(int64_t chunk, const Part& sum, const Part& part) const {
        alignas(64) float shrink[kLanes], grow[kLanes];
        for (int64_t first = 0; first < rows_; first += kLanes) {
            const Vec old_top = load(sum.tops + first), new_top = load(part.tops + first);
            const Vec top = max(old_top, new_top);
            const Vec s = exp(sub(old_top, top)), g = exp(sub(new_top, top));
            store(sum.tops + first, top);
            store(sum.totals + first, fma(load(part.totals + first), g, mul(load(sum.totals + first), s)));
            store(shrink, s);
            store(grow, g);
            const int64_t end = rows_ - first < kLanes ? rows_ - first : kLanes;
            for (int64_t i = 0; i < end; ++i) {
                // Rows that end before this chunk are not touched: their bits are those of a shorter past.
                if (visible(first + i, chunk * kChunk, kChunk) == 0) continue;
                float* to = sum.mixes + (first + i) * dim_padded_;
                const float* from = part.mixes + (first + i) * dim_padded_;
                for (int64_t d = 0; d < dim_padded_; d += kLanes)
                    store(to + d, fma(load(from + d), set1(grow[i]), mul(load(to + d), set1(shrink[i]))));
            }
        }
    }

    void finish(const Part& sum) const {
        for (int64_t r = 0; r < rows_; ++r) {
            const Vec total = set1(sum.totals[r]);
            Q* to = static_cast<Q*>(a_.out) + row_offset(r);
            const float* mix = sum.mixes + r * dim_padded_;
            for (int64_t d = 0; d < a_.dim; d += kLanes) {
                const Vec x = div(load(mix + d), total);
                if (a_.dim - d >= kLanes) store(to + d, x);
                else store_part(to + d, x, a_.dim - d);
            }
        }
    }

  private:
    // Keys of [first, first + count) that row r may see.
    int64_t visible(int64_t r, int64_t first, int64_t count) const {
        const int64_t seen = tile_.position + r / group_ + 1 - first;
        return seen < 0 ? 0 : seen < count ? seen : count;
    }

    int64_t row_offset(int64_t r) const {
        return ((tile_.first_token + r / group_) * a_.heads + kv_head_ * group_ + r % group_) * a_.dim;
    }

    // Where in the pools the rows of keys [first, first + count) of this head begin.
    void find_rows(int64_t first, int64_t count, int64_t* offsets) const {
        const int32_t* table = a_.block_tables + tile_.sequence * a_.table_stride;
        const int64_t step = a_.kv_heads * a_.dim;
        int64_t block = first / a_.block_tokens, inside = first % a_.block_tokens;
        for (int64_t i = 0; i < count; ++block, inside = 0) {
            int64_t offset = (table[block] * a_.block_tokens + inside) * step + kv_head_ * a_.dim;
            for (; inside < a_.block_tokens && i < count; ++inside, ++i, offset += step) offsets[i] = offset;
        }
    }

    // kLanes words of a row from word `w` on, zeros behind its end.
    template <class T>
    INLINE Vec row_words(const T* row, int64_t w) const {
        const int64_t left = words_ - w;
        if constexpr (kPer == 1) {
            return left >= kLanes ? load(row + w) : load_part(row + w, left);
        } else {
            const float* pairs = reinterpret_cast<const float*>(row) + w;
            return left >= kLanes ? load(pairs) : load_part(pairs, left);
        }
    }

    void read_queries() {
        const Q* q = static_cast<const Q*>(a_.q);
        for (int64_t r = 0; r < rows_; ++r)
            for (int64_t w = 0; w < words_; w += kLanes) {
                const Vec x = row_words(q + row_offset(r), w);
                if (words_ - w >= kLanes) store(queries_ + r * words_ + w, x);
                else store_part(queries_ + r * words_ + w, x, words_ - w);
            }
    }

    // Keys transposed to [word][key], values as [key / per word][dim]; zeros from `count` on, whatever the pool holds.
    void read_chunk(int64_t first, int64_t count) {
        int64_t offsets[kChunk];
        find_rows(first, count, offsets);
        const P *k_pool = static_cast<const P*>(a_.k_pool), *v_pool = static_cast<const P*>(a_.v_pool);
        for (int64_t key = 0; key < count; key += kLanes) {
            for (int64_t w = 0; w < words_; w += kLanes) {
                Vec block[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    block[i] = key + i < count ? row_words(k_pool + offsets[key + i], w) : zero();
                transpose(block);
                const int64_t end = words_ - w < kLanes ? words_ - w : kLanes;
                for (int64_t i = 0; i < end; ++i) store(keys_ + (w + i) * kChunk + key, block[i]);
            }
        }
        for (int64_t key = 0; key < count; key += kPer) {
            const P* row = v_pool + offsets[key];
            const P* next = kPer == 2 && key + 1 < count ? v_pool + offsets[key + 1] : nullptr;
            float* to = values_ + key / kPer * dim_padded_;
            for (int64_t d = 0; d < a_.dim; d += kLanes) store(to + d, value_words(row, next, d));
        }
    }

    INLINE Vec value_words(const P* row, const P* next, int64_t d) const {
        const int64_t left = a_.dim - d;
        const Vec low = left >= kLanes ? load(row + d) : load_part(row + d, left);
        if constexpr (kPer == 1) {
            return low;
        } else {
            return Mode::pair(low, !next ? zero() : left >= kLanes ? load(next + d) : load_part(next + d, left));
        }
    }

    // Scores of a row to weights; those from `seen` on are zero.
    void weigh(int64_t r, int64_t seen, int64_t count, const Part& to) {
        using Element = typename Mode::Element;
        float* scores = scores_ + r * kChunk;
        Element* weights = reinterpret_cast<Element*>(weights_ + r * (kChunk / kPer));
        const Vec scale = set1(a_.scale);
        Vec top = set1(-__builtin_inff()), total = zero();
        for (int64_t i = 0; i < count; i += kLanes) {
            if (seen - i < kLanes)
                for (int64_t j = seen > i ? seen - i : 0; j < kLanes; ++j) scores[i + j] = -__builtin_inff();
            const Vec x = mul(load(scores + i), scale);
            store(scores + i, x);
            top = max(top, x);
        }
        const float highest_score = highest(top);
        to.tops[r] = highest_score;
        const Vec shift = set1(seen ? highest_score : 0.0f);
        for (int64_t i = 0; i < count; i += kLanes) {
            const Vec w = exp(sub(load(scores + i), shift));
            total = add(total, w);
            store(weights + i, w);
        }
        to.totals[r] = sum(total);
    }

    const AttentionArgs& a_;
    const AttentionTile& tile_;
    const int64_t kv_head_, group_, rows_;
    int64_t dim_padded_, words_, part_rows_;
    float *keys_, *values_, *scores_, *weights_, *queries_;
};

// Tiles alone: each folds its chunks as it goes.
template <class Work>
void attend_tiles(const AttentionArgs& a, int threads) {
    const typename Work::Shape shape(a);
    const int64_t tasks = a.num_tiles * a.kv_heads;
    for_each(threads, tasks, [&](int64_t task) {
        // The last tiles of a prompt see most keys: they go first, so that no thread ends with one of them alone.
        const int64_t unit = tasks - 1 - task;
        const AttentionTile& tile = a.tiles[unit / a.kv_heads];
        float* memory = static_cast<float*>(scratch(kPerTask, (shape.work() + 2 * shape.part()) * sizeof(float)));
        Work work(a, tile, unit % a.kv_heads, memory);
        const auto sum = work.part(memory + shape.work()), part = work.part(memory + shape.work() + shape.part());
        work.attend(0, sum);
        for (int64_t chunk = 1; chunk * kChunk < keys_of(tile); ++chunk) {
            work.attend(chunk, part);
            work.fold(chunk, sum, part);
        }
        work.finish(sum);
    });
}

// Few tiles over long pasts: the chunks of a tile are shared out and folded afterwards, in the same order.
template <class Work>
void attend_chunks(const AttentionArgs& a, int64_t chunks, int threads) {
    const typename Work::Shape shape(a);
    const int64_t units = a.num_tiles * a.kv_heads, size = shape.part();
    float* parts = static_cast<float*>(scratch(kShared, units * chunks * size * sizeof(float)));
    for_each(threads, units * chunks, [&](int64_t task) {
        const int64_t unit = task / chunks, chunk = task % chunks;
        const AttentionTile& tile = a.tiles[unit / a.kv_heads];
        if (chunk * kChunk >= keys_of(tile)) return;
        Work work(a, tile, unit % a.kv_heads, static_cast<float*>(scratch(kPerTask, shape.work() * sizeof(float))));
        work.attend(chunk, work.part(parts + task * size));
    });
    for_each(threads, units, [&](int64_t unit) {
        const AttentionTile& tile = a.tiles[unit / a.kv_heads];
        const Work work(a, tile, unit % a.kv_heads, static_cast<float*>(scratch(kPerTask, shape.work() * sizeof(float))));
        float* first = parts + unit * chunks * size;
        const auto sum = work.part(first);
        for (int64_t chunk = 1; chunk * kChunk < keys_of(tile); ++chunk)
            work.fold(chunk, sum, work.part(first + chunk * size));
        work.finish(sum);
    });
}

template <class Work>
void attend(const AttentionArgs& a, int threads) {
    int64_t chunks = 0;
    for (int64_t i = 0; i < a.num_tiles; ++i) {
        const int64_t needed = ceil_div(keys_of(a.tiles[i]), kChunk);
        chunks = needed > chunks ? needed : chunks;
    }
    if (threads > 1 && chunks > 4 && a.num_tiles * a.kv_heads < 4 * threads) attend_chunks<Work>(a, chunks, threads);
    else attend_tiles<Work>(a, threads);
}

void attention(const AttentionArgs& a, int threads) {
    const bool q32 = a.q_dtype == kF32, pool32 = a.pool_dtype == kF32;
    if (q32 && pool32) return attend<TileWork<WideWords, float, float>>(a, threads);
    if (q32) return attend<TileWork<WideWords, float, bf16>>(a, threads);
    if (pool32) return attend<TileWork<WideWords, bf16, float>>(a, threads);
#if defined(__AVX512BF16__)
    attend<TileWork<PairWords, bf16, bf16>>(a, threads);
#else
    attend<TileWork<WideWords, bf16, bf16>>(a, threads);
#endif
}

}  // namespace
}  // namespace llamakit::LEVEL
