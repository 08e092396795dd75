// The launchers of csrc/cpu on lanes that only tests use, as tables of kernels.
#pragma once

#include <atomic>
#include <map>

#include "../cpu/kernels.h"

namespace hotnas::testing {

/// Kernels whose lanes are that many threads, 0 for SerialGroup: of every width that is linked.
inline std::map<int, const Kernels*>& lane_kernels() {
  static std::map<int, const Kernels*> tables;
  return tables;
}

/// Byte that fills the work space of every item before it is used: a result that depends on what the core
/// never wrote changes with it. Negative leaves the work space as the allocator hands it out.
inline std::atomic<int> workspace_fill{-1};

/// Atoms that FGW keeps apart, at least 2; 0 for its own choice, which is so large that atoms hardly ever
/// need to be merged.
inline std::atomic<int> atom_slots{0};

}  // namespace hotnas::testing
