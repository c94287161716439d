// Attention of one tile: a few consecutive tokens of one sequence with the query heads that share one key head.
//
// Keys are taken in chunks of kChunk, aligned at position 0. Each chunk gives a row its own maximum, sum and mix,
// computed from that chunk alone, and parts are folded in order of position. How many rows a tile has decides how
// scores and mixes are computed, but not in which order anything is added.
#pragma once
#include "words.h"

namespace llamakit::LEVEL {
namespace {

constexpr int64_t kChunk = 128;        // keys
constexpr int64_t kSpan = 8 * kChunk;  // keys
constexpr int kFewRows = 4;            // rows whose sums fit the registers beside the keys

// Part of an answer: for each row the highest score, the sum of 2^(score - top) and the values mixed by it.
struct Part {
    float *tops, *totals, *mixes;
};

// Sizes that hold for every tile of a call, in floats.
template <class Mode>
struct TileShape {
    int64_t rows, words, dim;  // as the products want them: rounded up
    explicit TileShape(const AttentionArgs& a)
        : rows(round_up(a.tile_tokens * (a.heads / a.kv_heads), 16)),
          words(round_up(ceil_div(a.dim, Mode::kPerWord), Mode::kSteps)),
          dim(round_up(a.dim, kLanes)) {}
    int64_t queries(int64_t rows_used) const { return round_up(rows_used, 16) * words; }
    int64_t work() const { return (words + dim + 2 * rows) * kChunk; }
    int64_t part(int64_t rows_used) const { return round_up(rows_used, 16) * (2 + dim); }
    Part cut(float* memory, int64_t rows_used) const {
        const int64_t r = round_up(rows_used, 16);
        return {memory, memory + r, memory + 2 * r};
    }
};

// A chunk of one sequence: where its keys lie, in slots of the pools.
struct Chunk {
    int64_t first = 0, count = 0;  // count 0: there is none
    int64_t slots[kChunk];

    void find(const AttentionArgs& a, const AttentionTile& tile, int64_t chunk) {
        first = chunk * kChunk;
        const int64_t left = keys_of(tile) - first;
        count = left < 0 ? 0 : left < kChunk ? left : kChunk;
        const int32_t* table = a.block_tables + tile.sequence * a.table_stride;
        int64_t block = first / a.block_tokens, inside = first % a.block_tokens;
        for (int64_t i = 0; i < count; ++block, inside = 0) {
            int64_t slot = table[block] * a.block_tokens + inside;
            for (; inside < a.block_tokens && i < count; ++inside) slots[i++] = slot++;
        }
    }
};

// Asks for memory that is needed soon, a few lines at a time: all at once would hold up the loads in between.
class Ahead {
  public:
    // Keys and values of the `part`-th of `parts` stretches of a chunk, `bytes` of each slot from `offset` on.
    Ahead(const AttentionArgs& a, const Chunk& chunk, int64_t part, int64_t parts, int64_t offset, int64_t bytes,
          int64_t slot_bytes)
        : chunk_(chunk), k_(static_cast<const char*>(a.k_pool) + offset), v_(static_cast<const char*>(a.v_pool) + offset),
          key_(chunk.count * part / parts), end_(chunk.count * (part + 1) / parts), bytes_(bytes), slot_bytes_(slot_bytes),
          step_(ceil_div((end_ - key_) * ceil_div(bytes, 64), kSteps)) {}

    // One of the kSteps steps in which everything is asked for.
    INLINE void step() {
        for (int64_t i = 0; i < step_ && key_ < end_; ++i) {
            const int64_t at = chunk_.slots[key_] * slot_bytes_ + line_;
            __builtin_prefetch(k_ + at, 0, 2);
            __builtin_prefetch(v_ + at, 0, 2);
            if ((line_ += 64) >= bytes_) {
                line_ = 0;
                ++key_;
            }
        }
    }
    static constexpr int64_t kSteps = 16, kKeys = 16;  // twice a chunk's keys, kKeys at a time

  private:
    const Chunk& chunk_;
    const char *k_, *v_;
    int64_t key_;
    const int64_t end_, bytes_, slot_bytes_, step_;
    int64_t line_ = 0;
};

// A tile of one key head. `memory`, of shape.work() floats, may be shared by tiles that are worked on in turn;
// `queries` is its own.
template <class Mode, class Q, class P>
class TileWork {
    static constexpr int kPer = Mode::kPerWord;
    static constexpr bool kScaled = sizeof(P) == 1;  // integers with a scale for each key and head

  public:
    TileWork(const AttentionArgs& args, const TileShape<Mode>& shape, const AttentionTile& tile, int64_t kv_head,
             float* memory, float* queries)
        : a_(args), shape_(shape), tile_(tile), kv_head_(kv_head), group_(args.heads / args.kv_heads),
          rows_(tile.tokens * group_), queries_(queries) {
        keys_ = memory;
        values_ = keys_ + shape.words * kChunk;
        scores_ = values_ + shape.dim * kChunk;
        weights_ = scores_ + shape.rows * kChunk;
    }

    // Adds the part of later keys, which begin at `position`.
    void fold(int64_t position, const Part& sum, const Part& part) const {
        alignas(64) float shrink[kLanes], grow[kLanes];
        for (int64_t first = 0; first < rows_; first += kLanes) {
            const Vec old_top = load(sum.tops + first), new_top = load(part.tops + first);
            const Vec top = max(old_top, new_top);
            const Vec s = exp2(sub(old_top, top)), g = exp2(sub(new_top, top));
            store(sum.tops + first, top);
            store(sum.totals + first, fma(load(part.totals + first), g, mul(load(sum.totals + first), s)));
            store(shrink, s);
            store(grow, g);
            const int64_t end = rows_ - first < kLanes ? rows_ - first : kLanes;
            for (int64_t i = 0; i < end; ++i) {
                // Rows that end before these keys are not touched: their bits are those of a shorter past.
                if (visible(first + i, position, 1) == 0) continue;
                float* to = sum.mixes + (first + i) * shape_.dim;
                const float* from = part.mixes + (first + i) * shape_.dim;
                for (int64_t d = 0; d < shape_.dim; d += kLanes)
                    store(to + d, fma(load(from + d), set1(grow[i]), mul(load(to + d), set1(shrink[i]))));
            }
        }
    }

    void finish(const Part& sum) const {
        for (int64_t r = 0; r < rows_; ++r) {
            const Vec total = set1(sum.totals[r]);
            Q* to = static_cast<Q*>(a_.out) + row_offset(r);
            const float* mix = sum.mixes + r * shape_.dim;
            for (int64_t d = 0; d < a_.dim; d += kLanes) {
                const Vec x = div(load(mix + d), total);
                if (a_.dim - d >= kLanes) store(to + d, x);
                else store_part(to + d, x, a_.dim - d);
            }
        }
    }

    // Queries as `attend` wants them: whole rows, or tiles of 16 rows with words down and rows across.
    void read_queries() {
        const Q* q = static_cast<const Q*>(a_.q);
        for (int64_t first = 0; first < rows_; first += kLanes) {
            for (int64_t w = 0; w < shape_.words; w += kLanes) {
                Vec block[kLanes];
                for (int i = 0; i < kLanes; ++i)
                    block[i] = first + i < rows_ ? row_words(q + row_offset(first + i), w) : zero();
                if constexpr (Mode::kTiles) {
                    transpose(block);
                    for (int i = 0; i < kLanes; ++i) store(queries_ + first * shape_.words + (w + i) * kLanes, block[i]);
                } else {
                    const int64_t end = shape_.words - w < kLanes ? shape_.words - w : kLanes;
                    for (int i = 0; i < kLanes && first + i < rows_; ++i) {
                        float* to = queries_ + (first + i) * shape_.words + w;
                        if (end == kLanes) store(to, block[i]);
                        else store_part(to, block[i], end);
                    }
                }
            }
        }
    }

    // What the keys of a chunk contribute.
    void attend(const Chunk& chunk, Ahead ahead, const Part& to) {
        if constexpr (kScaled) read_scales(chunk);
        if constexpr (Mode::kTiles) {
            attend_on_tiles(chunk, ahead, to);
        } else if (rows_ <= kFewRows) {
            switch (rows_) {
                case 1: return attend_few<1>(chunk, ahead, to);
                case 2: return attend_few<2>(chunk, ahead, to);
                case 3: return attend_few<3>(chunk, ahead, to);
                default: return attend_few<4>(chunk, ahead, to);
            }
        } else {
            attend_many(chunk, ahead, to);
        }
    }

  private:
    void attend_many(const Chunk& chunk, Ahead& ahead, const Part& to) {
        read_keys(chunk, ahead);
        product<Mode>(queries_, shape_.words, keys_, kChunk, scores_, kChunk, rows_, shape_.words,
                      ceil_div(chunk.count, kLanes));
        for (int64_t r = 0; r < rows_; ++r) weigh(r, visible(r, chunk.first, chunk.count), chunk.count, to);
        read_values(chunk, ahead);
        product<Mode>(weights_, kChunk / kPer, values_, shape_.dim, to.mixes, shape_.dim, rows_,
                      ceil_div(chunk.count, kPer), shape_.dim / kLanes);
    }

    // Keys and values go from the pools into the sums without being stored in between.
    template <int kRows>
    void attend_few(const Chunk& chunk, Ahead& ahead, const Part& to) {
        for (int64_t key = 0; key < chunk.count; key += kLanes) {
            if (key % Ahead::kKeys == 0) ahead.step();
            Vec sums[kRows];
            UNROLL for (int r = 0; r < kRows; ++r) sums[r] = zero();
            for (int64_t w = 0; w < shape_.words; w += kLanes) {
                Vec block[kLanes];
                key_words(chunk, key, w, block);
                transpose(block);
                const float* q = queries_ + w;
                if (shape_.words - w >= kLanes) {
                    UNROLL for (int i = 0; i < kLanes; ++i)
                        UNROLL for (int r = 0; r < kRows; ++r) sums[r] = Mode::add(sums[r], q[r * shape_.words + i], block[i]);
                } else {
                    for (int64_t i = 0; i < shape_.words - w; ++i)
                        for (int r = 0; r < kRows; ++r) sums[r] = Mode::add(sums[r], q[r * shape_.words + i], block[i]);
                }
            }
            UNROLL for (int r = 0; r < kRows; ++r) store(scores_ + r * kChunk + key, sums[r]);
        }
        for (int64_t r = 0; r < kRows; ++r) weigh(r, visible(r, chunk.first, chunk.count), chunk.count, to);
        constexpr int kWide = kManyRegisters ? 4 : 2;
        int64_t d = 0;
        for (; d + kWide * kLanes <= shape_.dim; d += kWide * kLanes) mix_few<kRows, kWide>(chunk, ahead, d, to);
        for (; d < shape_.dim; d += kLanes) mix_few<kRows, 1>(chunk, ahead, d, to);
    }

    template <int kRows, int kVectors>
    INLINE void mix_few(const Chunk& chunk, Ahead& ahead, int64_t d, const Part& to) {
        Vec sums[kRows][kVectors];
        UNROLL for (int r = 0; r < kRows; ++r)
            UNROLL for (int j = 0; j < kVectors; ++j) sums[r][j] = zero();
        for (int64_t word = 0; word * kPer < chunk.count; ++word) {
            if (word * kPer % Ahead::kKeys == 0) ahead.step();
            Vec values[kVectors];
            UNROLL for (int j = 0; j < kVectors; ++j) values[j] = value_words(chunk, word, d + j * kLanes);
            UNROLL for (int r = 0; r < kRows; ++r)
                UNROLL for (int j = 0; j < kVectors; ++j)
                    sums[r][j] = Mode::add(sums[r][j], weights_[r * (kChunk / kPer) + word], values[j]);
        }
        UNROLL for (int r = 0; r < kRows; ++r)
            UNROLL for (int j = 0; j < kVectors; ++j) store(to.mixes + r * shape_.dim + d + j * kLanes, sums[r][j]);
    }

    // Keys of [first, first + count) that row r may see.
    int64_t visible(int64_t r, int64_t first, int64_t count) const {
        const int64_t seen = tile_.position + r / group_ + 1 - first;
        return seen < 0 ? 0 : seen < count ? seen : count;
    }

    int64_t row_offset(int64_t r) const {
        return ((tile_.first_token + r / group_) * a_.heads + kv_head_ * group_ + r % group_) * a_.dim;
    }

    INLINE const P* in_pool(const void* pool, int64_t slot) const {
        return static_cast<const P*>(pool) + (slot * a_.kv_heads + kv_head_) * a_.dim;
    }

    // kLanes words of a row from word `w` on, zeros behind its end.
    template <class T>
    INLINE Vec row_words(const T* row, int64_t w) const {
        const int64_t left = a_.dim - w * kPer;
        if (left <= 0) return zero();
        if (left >= kLanes * kPer) return Mode::words(row + w * kPer);
        T part[kLanes * kPer] = {};
        memcpy(part, row + w * kPer, static_cast<size_t>(left) * sizeof(T));
        return Mode::words(static_cast<const T*>(part));
    }

    // Words [w, w + kLanes) of kLanes keys; zeros from the end of the chunk on, whatever the pool holds.
    INLINE void key_words(const Chunk& chunk, int64_t key, int64_t w, Vec (&block)[kLanes]) const {
        if (key + kLanes <= chunk.count && (w + kLanes) * kPer <= a_.dim) {
            UNROLL for (int i = 0; i < kLanes; ++i)
                block[i] = Mode::words(in_pool(a_.k_pool, chunk.slots[key + i]) + w * kPer);
            return;
        }
        for (int i = 0; i < kLanes; ++i)
            block[i] = key + i < chunk.count ? row_words(in_pool(a_.k_pool, chunk.slots[key + i]), w) : zero();
    }

    // Keys transposed to [word][key].
    void read_keys(const Chunk& chunk, Ahead& ahead) {
        for (int64_t key = 0; key < chunk.count; key += kLanes) {
            if (key % Ahead::kKeys == 0) ahead.step();
            for (int64_t w = 0; w < shape_.words; w += kLanes) {
                Vec block[kLanes];
                key_words(chunk, key, w, block);
                transpose(block);
                const int64_t end = shape_.words - w < kLanes ? shape_.words - w : kLanes;
                for (int64_t i = 0; i < end; ++i) store(keys_ + (w + i) * kChunk + key, block[i]);
            }
        }
    }

    // Values as [key / per word][dim]; zeros from the end of the chunk on.
    void read_values(const Chunk& chunk, Ahead& ahead) {
        int64_t word = 0;
        for (; word * kPer < chunk.count; ++word) {
            if (word * kPer % Ahead::kKeys == 0) ahead.step();
            for (int64_t d = 0; d < a_.dim; d += kLanes) store(values_ + word * shape_.dim + d, value_words(chunk, word, d));
        }
        for (; word % Mode::kSteps; ++word)
            for (int64_t d = 0; d < shape_.dim; d += kLanes) store(values_ + word * shape_.dim + d, zero());
    }

    INLINE Vec value_words(const Chunk& chunk, int64_t word, int64_t d) const {
        const int64_t left = a_.dim - d, key = word * kPer;
        const P* row = in_pool(a_.v_pool, chunk.slots[key]) + d;
        if constexpr (kPer == 1) {
            return left >= kLanes ? load(row) : load_part(row, left);
        } else {
            if (left >= kLanes && key + 1 < chunk.count)
                return Mode::pair(row, in_pool(a_.v_pool, chunk.slots[key + 1]) + d);
            P first[kLanes] = {}, second[kLanes] = {};
            const size_t bytes = static_cast<size_t>(left < kLanes ? left : kLanes) * sizeof(P);
            memcpy(first, row, bytes);
            if (key + 1 < chunk.count) memcpy(second, in_pool(a_.v_pool, chunk.slots[key + 1]) + d, bytes);
            return Mode::pair(static_cast<const P*>(first), static_cast<const P*>(second));
        }
    }

    void read_scales(const Chunk& chunk) {
        for (int64_t i = 0; i < kChunk; ++i) {
            const int64_t at = i < chunk.count ? chunk.slots[i] * a_.kv_heads + kv_head_ : 0;
            key_scales_[i] = i < chunk.count ? a_.k_scales[at] * factor() : 0.0f;
            value_scales_[i] = i < chunk.count ? a_.v_scales[at] : 0.0f;
        }
    }

    // Scores are taken in units of ln 2.
    float factor() const { return a_.scale * 1.44269504f; }
    INLINE Vec factors(int64_t key) const {
        if constexpr (kScaled) return load(key_scales_ + key);
        else return set1(factor());
    }

    // Scores of a row to weights; those from `seen` on are zero.
    void weigh(int64_t r, int64_t seen, int64_t count, const Part& to) {
        float* scores = scores_ + r * kChunk;
        float* weights = weights_ + r * (kChunk / kPer);
        const int64_t end = round_up(count, kLanes);
        for (int64_t i = seen; i < end; ++i) scores[i] = -__builtin_inff();
        Vec top = set1(-__builtin_inff()), total = zero();
        for (int64_t i = 0; i < end; i += kLanes) {
            Vec x = mul(load(scores + i), factors(i));
            // Behind the end a scale is 0, and 0 times infinity is none.
            if (kScaled && seen - i < kLanes) x = keep_first(x, seen - i);
            store(scores + i, x);
            top = max(top, x);
        }
        const float highest_score = highest(top);
        to.tops[r] = highest_score;
        const Vec shift = set1(seen ? highest_score : 0.0f);
        int64_t i = 0;
        for (; i < end; i += kLanes) {
            Vec w = Mode::weight(sub(load(scores + i), shift));
            total = add(total, w);
            if constexpr (kScaled) w = mul(w, load(value_scales_ + i));
            Mode::put_weights(weights + i / kPer, w);
        }
        for (; i / kPer % Mode::kSteps; i += kLanes) Mode::put_weights(weights + i / kPer, zero());
        to.totals[r] = sum(total);
    }

    // The first n values, minus infinity behind them.
    INLINE Vec keep_first(Vec x, int64_t n) const {
        float part[kLanes];
        store(part, x);
        for (int64_t i = n > 0 ? n : 0; i < kLanes; ++i) part[i] = -__builtin_inff();
        return load(part);
    }

#if defined(__AMX_BF16__)
    // Keys are left operands as they lie in the pool, so that scores come as [key][16 rows]: a row is a lane.
    void attend_on_tiles(const Chunk& chunk, Ahead& ahead, const Part& to) {
        const int64_t key_blocks = ceil_div(chunk.count, 16);
        const bool in_place = sizeof(P) == 2 && a_.dim % 32 == 0 && a_.block_tokens % 16 == 0;
        const char* blocks[kChunk / 16];
        const int64_t stride = in_place ? a_.kv_heads * a_.dim * 2 : shape_.words * 4;
        if (!in_place) copy_keys(chunk);
        for (int64_t b = 0; b < kChunk / 16; ++b) {
            const int64_t key = (b < key_blocks ? b : key_blocks - 1) * 16;  // missing blocks repeat the last
            blocks[b] = in_place ? reinterpret_cast<const char*>(in_pool(a_.k_pool, chunk.slots[key]))
                                 : reinterpret_cast<const char*>(keys_ + key * shape_.words);
        }
        read_values(chunk, ahead);
        for (int64_t first = 0; first < rows_; first += 32) {
            const int64_t end = first + 32 < rows_ ? first + 32 : rows_;
            const int64_t seen = visible(end - 1, chunk.first, chunk.count);
            for (int64_t r = first; r < end; r += 16) {
                score_keys(queries_ + r * shape_.words, blocks, stride, ceil_div(seen, 16), r == 0 ? &ahead : nullptr);
                weigh_lanes(r, chunk, seen, to);
            }
            if (first == 0) ahead.step();
            settle_stores();
            if (seen)
                product_tiles(weights_, kChunk / 2, values_, shape_.dim, to.mixes + first * shape_.dim, shape_.dim,
                              round_up(end - first, 16), round_up(ceil_div(seen, 2), 16), shape_.dim / 16);
        }
    }

    // Scores [key][16 rows] of blocks of 16 keys, four at a time.
    void score_keys(const float* q, const char* const* blocks, int64_t stride, int64_t count, Ahead* ahead) {
        for (int64_t b = 0; b < count; b += 4) {
            if (ahead) ahead->step(), ahead->step();
            zero_sums();
            for (int64_t s = 0; s < shape_.words / 16; ++s) {
                _tile_loadd(6, q + s * 256, 64);
                _tile_loadd(4, blocks[b] + s * 64, stride);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, blocks[b + 1] + s * 64, stride);
                _tile_dpbf16ps(1, 5, 6);
                _tile_loadd(4, blocks[b + 2] + s * 64, stride);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(5, blocks[b + 3] + s * 64, stride);
                _tile_dpbf16ps(3, 5, 6);
            }
            store_sums(scores_ + b * 256);
            settle_stores();
        }
    }

    // Keys as [key][word], zeros behind the end of a row; those behind the end of the chunk are never asked for.
    void copy_keys(const Chunk& chunk) {
        for (int64_t key = 0; key < chunk.count; ++key)
            for (int64_t w = 0; w < shape_.words; w += kLanes)
                store(keys_ + key * shape_.words + w, row_words(in_pool(a_.k_pool, chunk.slots[key]), w));
    }

    // Scores [key][row] of the 16 rows from `first` on to weights [row][pair of keys]; these rows and the next 16 see
    // `count` keys at most.
    void weigh_lanes(int64_t first, const Chunk& chunk, int64_t count, const Part& to) {
        int32_t seen[16];
        for (int64_t i = 0; i < 16; ++i)
            seen[i] = static_cast<int32_t>(visible(first + i < rows_ ? first + i : rows_ - 1, chunk.first, chunk.count));
        const __m512i limits = _mm512_loadu_si512(seen);
        const int64_t all = seen[0];  // seen by every row: later rows see more
        const auto scaled = [&](int64_t key) {
            const Vec f = kScaled ? set1(key_scales_[key]) : set1(factor());
            return mul(load(scores_ + key * 16), f);
        };
        const Vec none = set1(-__builtin_inff());
        Vec tops[4] = {none, none, none, none};
        int64_t key = 0;
        for (; key + 4 <= all; key += 4)
            UNROLL for (int j = 0; j < 4; ++j) tops[j] = max(tops[j], scaled(key + j));
        for (; key < count; ++key) {
            const __mmask16 mask = _mm512_cmplt_epi32_mask(_mm512_set1_epi32(static_cast<int32_t>(key)), limits);
            tops[0] = max(tops[0], _mm512_mask_mov_ps(none, mask, scaled(key)));
        }
        const Vec top = max(max(tops[0], tops[1]), max(tops[2], tops[3]));
        store(to.tops + first, top);
        const Vec shift = _mm512_mask_mov_ps(zero(), _mm512_cmplt_epi32_mask(_mm512_setzero_si512(), limits), top);
        Vec total = zero();
        const auto weight = [&](int64_t k) {
            if (k >= count) return zero();
            Vec w = Mode::weight(sub(scaled(k), shift));
            if (k >= all)
                w = _mm512_maskz_mov_ps(_mm512_cmplt_epi32_mask(_mm512_set1_epi32(static_cast<int32_t>(k)), limits), w);
            total = add(total, w);
            return kScaled ? mul(w, set1(value_scales_[k])) : w;
        };
        for (int64_t begin = 0; begin < count; begin += 32) {
            Vec words[16];
            if (begin + 32 <= all) {
                UNROLL for (int p = 0; p < 16; ++p) {
                    const Vec x = Mode::weight(sub(scaled(begin + 2 * p), shift));
                    const Vec y = Mode::weight(sub(scaled(begin + 2 * p + 1), shift));
                    total = add(add(total, x), y);
                    if constexpr (kScaled)
                        words[p] = Mode::join(mul(x, set1(value_scales_[begin + 2 * p])),
                                              mul(y, set1(value_scales_[begin + 2 * p + 1])));
                    else
                        words[p] = Mode::join(x, y);
                }
            } else {
                for (int p = 0; p < 16; ++p) {
                    const Vec x = weight(begin + 2 * p);
                    words[p] = Mode::join(x, weight(begin + 2 * p + 1));
                }
            }
            transpose(words);
            UNROLL for (int i = 0; i < 16; ++i) store(weights_ + (first % 32 + i) * (kChunk / 2) + begin / 2, words[i]);
        }
        store(to.totals + first, total);
    }
#else
    void attend_on_tiles(const Chunk&, Ahead&, const Part&) {}
#endif

    const AttentionArgs& a_;
    const TileShape<Mode>& shape_;
    const AttentionTile& tile_;
    const int64_t kv_head_, group_, rows_;
    float *keys_, *values_, *scores_, *weights_;
    float* const queries_;
    alignas(64) float key_scales_[kScaled ? kChunk : kLanes], value_scales_[kScaled ? kChunk : kLanes];
};

}  // namespace
}  // namespace llamakit::LEVEL
