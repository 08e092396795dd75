// Declares every operator of operators_list.h.
#include <torch/csrc/stable/library.h>

#include <string>

#include "operators_list.h"

// Tests give the same schemas another name. The detour expands it.
#define HOTNAS_LIBRARY_NAMED(name, m) STABLE_TORCH_LIBRARY(name, m)

HOTNAS_LIBRARY_NAMED(HOTNAS_LIBRARY_NAME, m) {
  m.def("cpu_isa() -> int");
  // GPU architectures that the library has code for, such as "80,90,100"; empty without CUDA
  m.def("cuda_architectures() -> str");
#define HOTNAS_DECLARE(name, Name, schema) m.def(#name schema);
  HOTNAS_OPERATORS(HOTNAS_DECLARE)
#undef HOTNAS_DECLARE
}

namespace {
std::string cuda_architectures() { return HOTNAS_CUDA_CODE; }
}  // namespace

#define HOTNAS_LIBRARY_IMPL_NAMED(name, m) \
  STABLE_TORCH_LIBRARY_IMPL(name, CompositeExplicitAutograd, m)

HOTNAS_LIBRARY_IMPL_NAMED(HOTNAS_LIBRARY_NAME, m) {
  m.impl("cuda_architectures", TORCH_BOX(&cuda_architectures));
}
