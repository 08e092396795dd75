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

#if defined(__CUDACC__)
/// An array of the work space. A thread of a GPU would hold the addresses of all arrays in registers over the whole
/// solver, and have none left; so each use computes its address anew, from where the work space begins and a
/// distance that is part of the instruction.
template <class T>
class Array {
 public:
  Array() = default;
  /// begin: an address within shared memory where the array is near, else within global memory.
  HN_HD Array(std::size_t begin, std::size_t distance, bool near)
      : begin_(begin), distance_(distance), near_(near) {}

  HN_HD operator T*() const { return reinterpret_cast<T*>(first() + distance_); }
  HN_HD T* operator->() const { return *this; }
  HN_HD friend Array part(const Array& whole, std::size_t from) {
    return {whole.begin_ + from * sizeof(T), whole.distance_, whole.near_};
  }

 private:
  HN_HD char* first() const {
#if defined(__CUDA_ARCH__)
    // the assembly is empty, but the compiler cannot know that the address stays the same
    if (near_) {
      unsigned begin = static_cast<unsigned>(begin_);
      asm volatile("" : "+r"(begin));
      return static_cast<char*>(__cvta_shared_to_generic(begin));
    }
    std::size_t begin = begin_;
    asm volatile("" : "+l"(begin));
    return static_cast<char*>(__cvta_global_to_generic(begin));
#else
    return nullptr;  // only counted there
#endif
  }

  std::size_t begin_, distance_;
  bool near_;
};
#else
template <class T>
using Array = T*;

/// The array from element `from` on.
template <class T>
T* part(T* whole, std::size_t from) {
  return whole + from;
}
#endif

class Arena {
 public:
  /// One block for all arrays.
  HN_HD explicit Arena(void* base) : near_{static_cast<char*>(base), 0}, together_(true) {}
  /// A block for those that are taken, another for those that are taken far.
  HN_HD Arena(void* near, void* far)
      : near_{static_cast<char*>(near), 0}, far_{static_cast<char*>(far), 0} {}

  template <class T>
  HN_HD Array<T> take(std::size_t count) {
    return from<T>(near_, count, !together_);
  }
  template <class T>
  HN_HD Array<T> take_far(std::size_t count) {
    return together_ ? from<T>(near_, count, false) : from<T>(far_, count, false);
  }
  HN_HD std::size_t used() const { return near_.used; }
  HN_HD std::size_t used_far() const { return far_.used; }

 private:
  struct Block {
    char* base;
    std::size_t used;
  };

  template <class T>
  HN_HD static Array<T> from(Block& block, std::size_t count, [[maybe_unused]] bool near) {
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
    return {near ? __cvta_generic_to_shared(block.base) : __cvta_generic_to_global(block.base), at,
            near};
#elif defined(__CUDACC__)
    return {0, at, near};
#else
    return block.base ? reinterpret_cast<T*>(block.base + at) : nullptr;
#endif
  }

  Block near_, far_{nullptr, 0};
  bool together_ = false;
};

}  // namespace hotnas::HOTNAS_ISA
