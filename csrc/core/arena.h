// Workspace hand-out. One layout function per solver serves two purposes: run on a null arena it
// counts the bytes, run on a real one it places the arrays.
//
// take() is for what the inner loops touch all the time, take_far() for what is large or seldom read. On a
// CPU both come from one block; on a GPU the first lie in shared memory, of which a problem that wants many
// neighbours must not ask much, and the others in global memory.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "group.h"

namespace hotnas::HOTNAS_ISA {

/// Cache lines on a CPU, where no two arrays share one; on a GPU what the widest load needs.
#if defined(__CUDACC__)
constexpr std::size_t array_alignment = 16;
#else
constexpr std::size_t array_alignment = 64;
#endif

class Arena {
 public:
  /// One block for all arrays.
  HN_HD explicit Arena(void* base) : near_{static_cast<char*>(base), 0}, together_(true) {}
  /// A block for those that are taken, another for those that are taken far.
  HN_HD Arena(void* near, void* far)
      : near_{static_cast<char*>(near), 0}, far_{static_cast<char*>(far), 0} {}

  template <class T>
  HN_HD T* take(std::size_t count) {
    return from<T>(near_, count);
  }
  template <class T>
  HN_HD T* take_far(std::size_t count) {
    if (together_) return from<T>(near_, count);
    return from<T>(far_, count);
  }
  HN_HD std::size_t used() const { return near_.used; }
  HN_HD std::size_t used_far() const { return far_.used; }

 private:
  struct Block {
    char* base;
    std::size_t used;
  };

  template <class T>
  HN_HD static T* from(Block& block, std::size_t count) {
    const std::size_t at = block.used, bytes = count * sizeof(T);
    block.used += (bytes + array_alignment - 1) / array_alignment * array_alignment;
#if defined(__SANITIZE_ADDRESS__)
    // AddressSanitizer sees one block: close what lies between this array and the next
    block.used += 64;
    if (block.base) {
      __asan_unpoison_memory_region(block.base + at, bytes);
      __asan_poison_memory_region(block.base + at + bytes, block.used - at - bytes);
    }
#endif
#if defined(__CUDA_ARCH__)
    return reinterpret_cast<T*>(block.base + at);  // always memory: with no test, a constant offset
#else
    return block.base ? reinterpret_cast<T*>(block.base + at) : nullptr;
#endif
  }

  Block near_, far_{nullptr, 0};
  bool together_ = false;
};

}  // namespace hotnas::HOTNAS_ISA
