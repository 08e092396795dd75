// Workspace hand-out. One layout function per solver serves two purposes: run on a null arena it
// counts the bytes, run on a real one it places the arrays.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "group.h"

namespace hotnas::HOTNAS_ISA {

class Arena {
 public:
  HN_HD explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  HN_HD T* take(std::size_t count) {
    const std::size_t at = used_, bytes = count * sizeof(T);
    used_ += (bytes + 63) / 64 * 64;  // cache lines: no array shares one
#if defined(__SANITIZE_ADDRESS__)
    // AddressSanitizer sees one block: close what lies between this array and the next
    used_ += 64;
    if (base_) {
      __asan_unpoison_memory_region(base_ + at, bytes);
      __asan_poison_memory_region(base_ + at + bytes, used_ - at - bytes);
    }
#endif
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  HN_HD std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
