// The kernels of one level. Compiled once per instruction set, with LEVEL its name and SUPPORTED its test.
//
// Only headers without code of their own may be included here: an inline function of the standard library compiled
// with AVX-512 could be the copy the linker keeps for everybody.
#include "attention.h"
#include "block.h"
#include "level.h"
#include "limits.h"
#include "pack.h"
#include "processor.h"
#include "product.h"
#include "rows.h"
#include "table.h"

namespace llamakit {

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

extern const Level JOIN(level_, LEVEL);
const Level JOIN(level_, LEVEL) = {
    TEXT(LEVEL),
    JOIN(has_, LEVEL),
    LEVEL::linear,
    LEVEL::attention_inputs,
    LEVEL::feed_forward,
    LEVEL::pack,
    LEVEL::unpack_rows,
    LEVEL::table_pack,
    LEVEL::table_scores,
    LEVEL::table_rows,
    LEVEL::rms_norm,
    LEVEL::rotate,
    LEVEL::swiglu,
    LEVEL::write_kv,
    LEVEL::write_kv_int8,
    LEVEL::attention,
    LEVEL::work,
    LEVEL::read_all,
};

}  // namespace llamakit
