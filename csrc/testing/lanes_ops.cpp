// The operators of library.cpp as torch.ops.hotnas_testing, on lanes that tests choose. The choice holds for
// the process: tests make it before each call.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include "lanes.h"

namespace hotnas {
namespace {

std::atomic<const Kernels*> chosen{nullptr};

void use_lanes(std::int64_t width, std::int64_t fill, std::int64_t atoms) {
  const auto& tables = testing::lane_kernels();
  const auto found = tables.find(static_cast<int>(width));
  STD_TORCH_CHECK(found != tables.end(), "use_lanes: no lanes of width ", width);
  STD_TORCH_CHECK(atoms == 0 || atoms >= 2, "use_lanes: atoms must be 0 or at least 2, got ",
                  atoms);
  chosen = found->second;
  testing::workspace_fill = static_cast<int>(fill);
  testing::atom_slots = static_cast<int>(atoms);
}

bool use_instructions(std::int64_t isa) {
  const Kernels* found = instruction_kernels(static_cast<int>(isa));
  if (found != nullptr) chosen = found;
  return found != nullptr;
}

}  // namespace

const Kernels& kernels() {
  const Kernels* table = chosen;
  STD_TORCH_CHECK(table != nullptr, "hotnas_testing: call use_lanes or use_instructions first");
  return *table;
}

}  // namespace hotnas

STABLE_TORCH_LIBRARY_FRAGMENT(hotnas_testing, m) {
  // width: threads per problem, 0 for one plain lane; fill and atoms as in lanes.h
  m.def("use_lanes(int width, int fill=-1, int atoms=0) -> ()");
  // false where the processor lacks the instruction set (0 baseline, 1 avx2, 2 avx512)
  m.def("use_instructions(int isa) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(hotnas_testing, CompositeExplicitAutograd, m) {
  m.impl("use_lanes", TORCH_BOX(&hotnas::use_lanes));
  m.impl("use_instructions", TORCH_BOX(&hotnas::use_instructions));
}
