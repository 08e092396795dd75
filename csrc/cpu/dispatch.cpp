// The widest instruction set of this processor, for all operators.
#include <initializer_list>

#include "kernels.h"

namespace hotnas {

const Kernels& kernels() {
  static const Kernels& widest = []() -> const Kernels& {
    for (const int isa : {2, 1})
      if (const Kernels* found = instruction_kernels(isa)) return *found;
    return *instruction_kernels(0);
  }();
  return widest;
}

}  // namespace hotnas
