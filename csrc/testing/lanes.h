// The launchers of csrc/cpu on lanes that only tests use, as tables of kernels.
#pragma once

#include <atomic>
#include <cstring>
#include <map>
#include <source_location>
#include <string>

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

/// How often lanes solve an item before they meet, as a GPU's go from one item to the next.
inline std::atomic<int> repeats{1};

/// A sync() that lanes pass by, to see who notices; line 0 for none.
struct Site {
  std::string file;
  unsigned line = 0;
  bool is(const std::source_location& place) const {
    if (line != place.line()) return false;
    const std::size_t length = std::strlen(place.file_name());
    return length >= file.size() && file == place.file_name() + length - file.size();
  }
};
inline Site skipped;

}  // namespace hotnas::testing
