#include "grouped_api.h"

#include <cstring>

#include "grouped_level.h"

namespace llamakit {

#define LK_LEVEL(name) extern const GroupedLevel grouped_level_##name;
LK_LEVELS
#undef LK_LEVEL

namespace {

#define LK_LEVEL(name) &grouped_level_##name,
const GroupedLevel* const kGroupedLevels[] = {LK_LEVELS};
#undef LK_LEVEL

GroupedMatrix matrix(const lk_grouped& m) {
    return {m.codes, m.scales, m.minima, m.columns, m.depth, m.rotation, m.bits};
}

}  // namespace
}  // namespace llamakit

using namespace llamakit;

int lk_grouped_level(const char* name) {
    int index = 0;
    for (const GroupedLevel* level : kGroupedLevels) {
        if (std::strcmp(level->name, name) == 0) return level->supported() ? index : -1;
        ++index;
    }
    return -1;
}

void lk_grouped_linear(int level, int dtype, const void* x, const lk_grouped* weight, void* out, int64_t rows,
                       int threads) {
    if (rows == 0 || weight->columns == 0) return;
    kGroupedLevels[level]->linear(static_cast<Dtype>(dtype), x, matrix(*weight), out, rows, threads);
}

int lk_grouped_rows(int level, int dtype, const lk_grouped* weight, const int64_t* rows, int64_t count, void* out,
                    int threads) {
    for (int64_t i = 0; i < count; ++i)
        if (rows[i] < 0 || rows[i] >= weight->columns) return LK_BAD_ROW;
    kGroupedLevels[level]->rows(static_cast<Dtype>(dtype), matrix(*weight), rows, count, out, threads);
    return LK_OK;
}
