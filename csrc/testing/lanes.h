// The launchers of csrc/cpu on lanes that only tests use, as tables of kernels.
#pragma once

#include <atomic>

#include "../cpu/kernels.h"

namespace hotnas::testing {

/// Kernels whose lanes are Width threads; Width 0 is SerialGroup. One object file each.
template <int Width>
const Kernels& lane_kernels();
template <>
const Kernels& lane_kernels<0>();
template <>
const Kernels& lane_kernels<1>();
template <>
const Kernels& lane_kernels<2>();
template <>
const Kernels& lane_kernels<8>();
template <>
const Kernels& lane_kernels<16>();
template <>
const Kernels& lane_kernels<32>();

/// The table of a width, or null where there is none.
inline const Kernels* lane_kernels(int width) {
  switch (width) {
    case 0:
      return &lane_kernels<0>();
    case 1:
      return &lane_kernels<1>();
    case 2:
      return &lane_kernels<2>();
    case 8:
      return &lane_kernels<8>();
    case 16:
      return &lane_kernels<16>();
    case 32:
      return &lane_kernels<32>();
    default:
      return nullptr;
  }
}

/// Byte that fills the work space of every item before it is used: a result that depends on what the core
/// never wrote changes with it. Negative leaves the work space as the allocator hands it out.
inline std::atomic<int> workspace_fill{-1};

/// Atoms that FGW keeps apart, at least 2; 0 for its own choice, which is so large that atoms hardly ever
/// need to be merged.
inline std::atomic<int> atom_slots{0};

}  // namespace hotnas::testing
