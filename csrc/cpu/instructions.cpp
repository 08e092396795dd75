// Which instruction sets this processor has.
#include "kernels.h"

namespace hotnas {

const Kernels* instruction_kernels(int isa) {
  if (isa == 0) return &baseline::kernels;
#if HOTNAS_HAS_AVX
  __builtin_cpu_init();
  if (isa == 1 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return &avx2::kernels;
  if (isa == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return &avx512::kernels;
#endif
  return nullptr;
}

}  // namespace hotnas
