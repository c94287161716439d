// The kernels of grouped.h for one level. Compiled once per instruction set, like level.cpp and under the same rule.
#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-function"  // the headers have more than is wanted here
#endif
#include "grouped_product.h"

#include "processor.h"

namespace llamakit {

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

extern const GroupedLevel JOIN(grouped_level_, LEVEL);
const GroupedLevel JOIN(grouped_level_, LEVEL) = {
    TEXT(LEVEL),
    JOIN(has_, LEVEL),
    LEVEL::grouped_linear,
    LEVEL::grouped_unpack,
};

}  // namespace llamakit
