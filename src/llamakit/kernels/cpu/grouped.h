// Products of byte activations with weights that have a scale, and perhaps a minimum, for every 32 values.
//
// Activations get a scale for every 32 values, too. The sum over a group is an exact integer; groups are added in
// float32 from the first to the last, so a row has the same bits whatever stands beside it and however many threads run.
#pragma once
#include "activations.h"
#include "ints.h"

namespace llamakit::LEVEL {
namespace {

// Rows as the product reads them: the values of a group lie together, and the groups of a row, or, where matrix tiles
// read them, those of 16 rows.
struct GroupedRows {
    int8_t* codes;    // [place][32]
    float* scales;    // [place]: value = scale * code
    float* offsets;   // [place]: -scale * sum of the codes, what a minimum is multiplied with
    int32_t* starts[2];  // [place]: what the sum of products starts from, see `kWholeBits`; of nibbles, of bytes
    int64_t rows, groups;
    int64_t row_stride, group_stride;  // in places; inside a block of 16 rows
    int64_t block_stride;

    INLINE int64_t place(int64_t row, int64_t group) const {
        return row / 16 * block_stride + row % 16 * row_stride + group * group_stride;
    }
};

// A sum between -2^22 and 2^22 that starts from these bits is, read as a float, that many more than kWhole: so the
// exact product of the sum with a half, rounded once, is a single fused operation.
constexpr int32_t kWholeBits = 0x4b400000;
constexpr float kWhole = 12582912.0f;  // 1.5 * 2^23

constexpr int64_t kGroupColumns = 16;
constexpr int kVectors16 = kGroupColumns / kLanes;  // float vectors that cover a block
constexpr int kInts16 = kGroupColumns / kIntLanes;
constexpr int kWordsOfGroup = kGroup / 4;
constexpr int kGroupedBlocks = 4;          // runs of blocks that a patch reads side by side
constexpr int64_t kGroupedAhead = 2048;  // bytes that few rows ask for ahead
constexpr int64_t kGroupedRows = 128;    // rows of a patch: their codes stay in the second-level cache
constexpr int64_t kTileGroups = 4;       // groups that matrix tiles work on at a time; tiled rows are padded to them

// A number of rows as a type.
template <int kCount>
struct RowCount {
    static constexpr int count = kCount;
};

#if defined(__AMX_INT8__)
// From this many rows on, tiles are faster than vector units.
INLINE bool groups_in_tiles(int64_t rows) { return rows >= 24; }
#else
INLINE bool groups_in_tiles(int64_t) { return false; }
#endif

inline int64_t grouped_places(int64_t rows, int64_t depth, bool tiled) {
    const int64_t groups = depth / kGroup;
    return tiled ? round_up(rows, 16) * round_up(groups, kTileGroups) : rows * groups;
}

inline size_t grouped_bytes(int64_t rows, int64_t depth, bool tiled) {
    return static_cast<size_t>(grouped_places(rows, depth, tiled) * (kGroup + 16)) + 64;
}

inline GroupedRows cut_grouped(void* memory, int64_t rows, int64_t depth, bool tiled) {
    const int64_t places = grouped_places(rows, depth, tiled);
    GroupedRows x;
    x.rows = rows;
    x.groups = depth / kGroup;
    x.codes = static_cast<int8_t*>(memory);
    x.scales = reinterpret_cast<float*>(x.codes + places * kGroup);
    x.offsets = x.scales + places;
    x.starts[0] = reinterpret_cast<int32_t*>(x.offsets + places);
    x.starts[1] = x.starts[0] + places;
    x.row_stride = tiled ? 1 : x.groups;
    x.group_stride = tiled ? 16 : 1;
    x.block_stride = 16 * (tiled ? round_up(x.groups, kTileGroups) : x.groups);
    return x;
}

// The bits of a grouped matrix and whether it has minima, as a type.
template <int kBitsOf, bool kHasMinima>
struct GroupedForm {
    static constexpr int kBits = kBitsOf;
    static constexpr bool kMinima = kHasMinima;
    // What is taken off a code in memory to get the one that counts.
    static constexpr int32_t kZero = kBits == 8 ? 128 : kMinima ? 0 : 8;
};

template <class Body>
INLINE void of_form(const Matrix& w, Body&& body) {
    if (w.bits == 8 && w.minima) body(GroupedForm<8, true>{});
    else if (w.bits == 8) body(GroupedForm<8, false>{});
    else if (w.minima) body(GroupedForm<4, true>{});
    else body(GroupedForm<4, false>{});
}

// 16 halves as floats.
INLINE void load_halves(const uint16_t* p, Vec (&to)[kVectors16]) {
#if defined(__AVX512F__)
    to[0] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
    for (int i = 0; i < 2; ++i) to[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + i * 8)));
#else
    for (int i = 0; i < kVectors16; ++i) {
        // Exponent and fraction moved into place stand for the value over 2^112, also below the normal range.
        const Words wide = {p[i * 4], p[i * 4 + 1], p[i * 4 + 2], p[i * 4 + 3]};
        const Vec size = from_bits((wide & 0x7fff) << 13);
        to[i] = from_bits(bits(mul(size, set1(5.192296858534828e33f))) | ((wide & 0x8000) << 16));
    }
#endif
}

// 32 values times `factor`, rounded to integers in [-127, 127], as bytes; their sum.
INLINE int32_t store_group(int8_t* p, const float* x, Vec factor) {
#if defined(__AVX512F__)
    const __m512i low = _mm512_cvtps_epi32(mul(load(x), factor)), high = _mm512_cvtps_epi32(mul(load(x + 16), factor));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(high));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
#else
    float whole[kGroup];
    for (int64_t i = 0; i < kGroup; i += kLanes) store(whole + i, round(mul(load(x + i), factor)));
    int32_t total = 0;
    for (int64_t i = 0; i < kGroup; ++i) {
        p[i] = static_cast<int8_t>(whole[i]);
        total += p[i];
    }
    return total;
#endif
}

// One group of 32 floats to bytes; a group with a NaN or an infinity gets a NaN scale.
INLINE void quantize_group(const float* x, const GroupedRows& to, int64_t place) {
    Vec most = zero();
    for (int64_t i = 0; i < kGroup; i += kLanes) most = max_magnitude(most, load(x + i));
    float high = 0.0f;
#if defined(__AVX512F__)
    const int32_t highest_bits = _mm512_reduce_max_epi32(bits(most));
    memcpy(&high, &highest_bits, sizeof high);
    const bool finite = high <= __FLT_MAX__;
#else
    float lanes[kLanes];
    store(lanes, most);
    bool finite = true;
    for (const float lane : lanes) {
        finite = finite && lane <= __FLT_MAX__;
        high = lane > high ? lane : high;
    }
#endif
    const float scale = finite ? high / 127.0f : __builtin_nanf("");
    const Vec factor = set1(finite && high > kSmallest ? 127.0f / high : 0.0f);
    int8_t* codes = to.codes + place * kGroup;
    const int32_t total = finite ? store_group(codes, x, factor) : 0;
    if (!finite) memset(codes, 0, kGroup);
    to.scales[place] = scale;
    to.offsets[place] = -scale * static_cast<float>(total);
    to.starts[0][place] = kWholeBits - GroupedForm<4, false>::kZero * total;
    to.starts[1][place] = kWholeBits - kWeightOffset * total;
}

// One row of float32, which may be overwritten.
inline void put_grouped_row(float* x, int64_t rotation, const GroupedRows& to, int64_t row) {
    const int64_t depth = to.groups * kGroup;
    if (rotation) {
        const Vec factor = set1(1.0f / __builtin_sqrtf(static_cast<float>(rotation)));
        rotate_blocks(x, depth, rotation);
        for (int64_t i = 0; i < depth; i += kLanes) store(x + i, mul(load(x + i), factor));
    }
    for (int64_t g = 0; g < to.groups; ++g) quantize_group(x + g * kGroup, to, to.place(row, g));
}

// Zeros where tiles read more rows or groups than there are.
inline void pad_grouped_rows(const GroupedRows& to) {
    if (to.group_stride == 1) return;
    const int64_t groups = to.block_stride / 16;
    const auto clear = [&](int64_t place) {
        memset(to.codes + place * kGroup, 0, kGroup);
        to.scales[place] = to.offsets[place] = 0.0f;
    };
    for (int64_t row = 0; row < round_up(to.rows, 16); ++row)
        for (int64_t g = row < to.rows ? to.groups : 0; g < groups; ++g) clear(to.place(row, g));
}

INLINE Ints grouped_broadcast(const int8_t* p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    return ints(word);
}

// Products of bytes where a weight may be -128, which files can hold and `dot_bytes` does not take on every level.
INLINE Ints dot_any_bytes(Ints sum, Ints w, Ints x) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
    const __m256i plain = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(plain), _mm256_sign_epi8(x, plain));
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#else
    return dot_bytes(sum, w, x);
#endif
}

// The sums of a block, each kWhole too much, as floats.
INLINE void sums_to_floats(const Ints (&sums)[kInts16], Vec (&to)[kVectors16]) {
    if constexpr (kIntLanes == kLanes) {
        for (int v = 0; v < kVectors16; ++v) memcpy(&to[v], &sums[v], sizeof to[v]);
    } else {
        alignas(64) int32_t stored[kGroupColumns];
        for (int h = 0; h < kInts16; ++h) store_ints(stored + h * kIntLanes, sums[h]);
        for (int v = 0; v < kVectors16; ++v) memcpy(&to[v], stored + v * kLanes, sizeof to[v]);
    }
}

#if defined(__AVX2__) || defined(__aarch64__)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

// (whole - kWhole) * scale, rounded once; `least` is -kWhole * scale.
INLINE Vec scaled_sum(Vec whole, Vec scale, Vec least) {
    return kFused ? fma(whole, scale, least) : mul(sub(whole, set1(kWhole)), scale);
}

// Where some blocks of a matrix lie, each as far behind the one before: a core gets more from memory that is read in
// several places.
struct GroupedRuns {
    const uint8_t* codes;
    const uint16_t *halves, *minima;
    int64_t apart;  // in groups of a block
};

// kRows rows by kBlocks blocks of 16 columns. A group's words lie in order of k: word c holds k = 4 c .. 4 c + 3; of
// nibbles the low halves are words 0-3 and the high halves words 4-7.
template <class Form, int kRows, int kBlocks>
INLINE void grouped_tile(const GroupedRuns& w, const GroupedRows& x, int64_t row, Vec (&acc)[kBlocks][kRows][kVectors16]) {
    constexpr int kBits = Form::kBits;
    constexpr bool kMinima = Form::kMinima;
    constexpr int64_t kBytes = kGroupColumns * kGroup * kBits / 8;
    const int32_t* starts = x.starts[kBits == 8];
    UNROLL for (int b = 0; b < kBlocks; ++b)
        UNROLL for (int i = 0; i < kRows; ++i)
            UNROLL for (int v = 0; v < kVectors16; ++v) acc[b][i][v] = zero();
    int64_t place = x.place(row, 0);
    for (int64_t g = 0; g < x.groups; ++g, place += x.group_stride) {
        const int8_t* a = x.codes + place * kGroup;
        UNROLL for (int b = 0; b < kBlocks; ++b) {
            const int64_t group = b * w.apart + g;
            const uint8_t* codes = w.codes + group * kBytes;
            if constexpr (kRows < 4)
                for (int64_t line = 0; line < kBytes; line += 64) __builtin_prefetch(codes + line + kGroupedAhead);
            Ints sums[kRows][kInts16];
            UNROLL for (int h = 0; h < kInts16; ++h) {
                UNROLL for (int i = 0; i < kRows; ++i)
                    sums[i][h] = ints(kBits == 4 && kMinima ? kWholeBits : starts[place + i * x.row_stride]);
                UNROLL for (int c = 0; c < kWordsOfGroup; ++c) {
                    const Ints stored = load_ints(codes + (kBits == 4 ? c % 4 : c) * 64 + h * kIntLanes * 4);
                    const Ints word = kBits == 8 ? stored : c < 4 ? low_nibbles(stored) : high_nibbles(stored);
                    UNROLL for (int i = 0; i < kRows; ++i) {
                        const Ints four = grouped_broadcast(a + i * x.row_stride * kGroup + c * 4);
                        sums[i][h] = kBits == 4 ? dot_nibbles(sums[i][h], word, four) : dot_any_bytes(sums[i][h], word, four);
                    }
                }
            }
            Vec scale[kVectors16], whole_scale[kVectors16], least[kVectors16];
            load_halves(w.halves + group * kGroupColumns, scale);
            UNROLL for (int v = 0; v < kVectors16; ++v) whole_scale[v] = mul(scale[v], set1(-kWhole));
            if constexpr (kMinima) load_halves(w.minima + group * kGroupColumns, least);
            UNROLL for (int i = 0; i < kRows; ++i) {
                const int64_t at = place + i * x.row_stride;
                Vec whole[kVectors16];
                sums_to_floats(sums[i], whole);
                UNROLL for (int v = 0; v < kVectors16; ++v) {
                    Vec& sum = acc[b][i][v];
                    sum = fma(scaled_sum(whole[v], scale[v], whole_scale[v]), set1(x.scales[at]), sum);
                    if constexpr (kMinima) sum = fma(least[v], set1(x.offsets[at]), sum);
                }
            }
        }
    }
}

// kRows rows by kBlocks blocks from `block` on, `apart` blocks from each other.
template <class Form, int kRows, int kBlocks, class T>
void grouped_rows(const Matrix& w, const GroupedRows& x, int64_t row, int64_t block, int64_t apart, T* out,
                  int64_t out_stride) {
    const int64_t group = block * x.groups;
    const GroupedRuns runs{w.codes + group * kGroupColumns * kGroup * Form::kBits / 8, w.halves + group * kGroupColumns,
                           Form::kMinima ? w.minima + group * kGroupColumns : nullptr, apart * x.groups};
    Vec acc[kBlocks][kRows][kVectors16];
    grouped_tile<Form, kRows, kBlocks>(runs, x, row, acc);
    UNROLL for (int b = 0; b < kBlocks; ++b)
        UNROLL for (int i = 0; i < kRows; ++i)
            UNROLL for (int v = 0; v < kVectors16; ++v) {
                const int64_t left = w.columns - (block + b * apart) * kGroupColumns - v * kLanes;
                T* to = out + i * out_stride + b * apart * kGroupColumns + v * kLanes;
                if (left > 0) set(to, acc[b][i][v], left < kLanes ? static_cast<int>(left) : kLanes);
            }
}

// All rows from `row` on by kBlocks blocks, few rows by more blocks at a time.
template <class Form, int kBlocks, class T>
void grouped_blocks(const Matrix& w, const GroupedRows& x, int64_t row, int64_t rows, int64_t block, int64_t apart, T* out,
                    int64_t out_stride) {
    int64_t done = 0;
    const auto run = [&](auto size) {
        constexpr int kRows = decltype(size)::count, kTogether = kRows == 1 ? kBlocks : kRows == 2 && kBlocks > 1 ? 2 : 1;
        for (; done + kRows <= rows; done += kRows)
            for (int64_t b = 0; b < kBlocks; b += kTogether)
                grouped_rows<Form, kRows, kTogether>(w, x, row + done, block + b * apart, apart,
                                                     out + done * out_stride + b * apart * kGroupColumns, out_stride);
    };
    if constexpr (kIntLanes == 16) run(RowCount<8>{});
    run(RowCount<4>{});
    run(RowCount<2>{});
    run(RowCount<1>{});
}

// Rows from `row` on by `count` blocks of columns, in kGroupedBlocks runs side by side; `out` points at the first one.
template <class Form, class T>
void grouped_patch(const Matrix& w, const GroupedRows& x, int64_t row, int64_t rows, int64_t first, int64_t count, T* out,
                   int64_t out_stride) {
    const int64_t run = count / kGroupedBlocks;
    for (int64_t b = 0; b < run; ++b)
        grouped_blocks<Form, kGroupedBlocks>(w, x, row, rows, first + b, run, out + b * kGroupColumns, out_stride);
    for (int64_t b = run * kGroupedBlocks; b < count; ++b)
        grouped_blocks<Form, 1>(w, x, row, rows, first + b, 0, out + b * kGroupColumns, out_stride);
}

// Row `column` of the matrix as the floats it stands for; a rotation is left as it is.
inline void unpack_grouped_row(const Matrix& w, int64_t column, float* to) {
    const int64_t groups = w.depth / kGroup, n = column % kGroupColumns;
    const int64_t block = column / kGroupColumns * groups * kGroupColumns;
    const uint8_t* codes = w.codes + block * kGroup * w.bits / 8 + n * 4;
    const int zero = w.bits == 8 ? 128 : w.minima ? 0 : 8;
    for (int64_t g = 0; g < groups; ++g, codes += kGroupColumns * kGroup * w.bits / 8, to += kGroup) {
        Vec found[kVectors16];
        float scales[kGroupColumns], minima[kGroupColumns] = {};
        const int64_t at = block + g * kGroupColumns;
        load_halves(w.halves + at, found);
        for (int v = 0; v < kVectors16; ++v) store(scales + v * kLanes, found[v]);
        if (w.minima) {
            load_halves(w.minima + at, found);
            for (int v = 0; v < kVectors16; ++v) store(minima + v * kLanes, found[v]);
        }
        for (int64_t k = 0; k < kGroup; ++k) {
            const int64_t place = (w.bits == 4 ? k % 16 : k) / 4 * 64 + k % 4;
            const int code = w.bits == 8 ? codes[place] : k < 16 ? codes[place] & 15 : codes[place] >> 4;
            to[k] = static_cast<float>(code - zero) * scales[n] - minima[n];
        }
    }
}

}  // namespace
}  // namespace llamakit::LEVEL
