// The threads the kernels share, and scratch memory for each of them.
//
// Results never depend on how many threads ran: a task computes its own outputs from start to end.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <type_traits>

namespace llamakit {

using Task = void (*)(void* context, int64_t index);

// Runs task(context, 0 .. count - 1) on up to `threads` threads and returns when all are done.
// The caller takes part. When another caller holds the threads, everything runs on the caller's own.
void parallel(int threads, int64_t count, Task task, void* context);

// Same with a callable: body(int64_t index).
template <class Body>
inline void for_each(int threads, int64_t count, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    parallel(threads, count, [](void* context, int64_t index) { (*static_cast<Plain*>(context))(index); }, &body);
}

// From now on a thread that is made stays on one processor of those it may use, each on another; on Linux, elsewhere
// nothing happens. Callers stay free.
void pin_threads();

// Memory of this thread that lives until its next call with the same slot; 64-byte aligned, uninitialised.
// kShared belongs to the caller of `parallel`, kPerTask to a task, kPerProduct to the products inside a task and kLayer
// to what lasts from one kernel of a layer to the next.
enum ScratchSlot { kShared = 0, kPerTask = 1, kPerProduct = 2, kLayer = 3, kScratchSlots = 4 };
void* scratch(ScratchSlot slot, size_t bytes);

}  // namespace llamakit
