// What register.cpp asks of one instruction set: the operators on a range of items. Nothing here depends on
// torch, and nothing in kernels.cpp may be emitted outside its namespace.
#pragma once

#include <cstdint>

#include "../core/arguments.h"
#include "../operators_list.h"
#include "watch.h"

namespace hotnas {

/// Every function works on items [begin, end) and returns false when memory ran out; it throws Stopped when the
/// watch says so.
template <class T>
struct KernelsOf {
#define HOTNAS_KERNEL(name, Name, schema) \
  bool (*name)(const Name##Args<T>&, std::int64_t, std::int64_t, Watch&);
  HOTNAS_OPERATORS(HOTNAS_KERNEL)
#undef HOTNAS_KERNEL
};

struct Kernels {
  int isa;  // 0 baseline, 1 avx2, 2 avx512; -1 other lanes than a vector register's
  KernelsOf<float> f32;
  KernelsOf<double> f64;
};

/// The kernels that the operators run: in the library, those of the processor's widest instruction set.
const Kernels& kernels();

/// The kernels of one instruction set, or null where this processor or this build has none.
const Kernels* instruction_kernels(int isa);

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace hotnas
