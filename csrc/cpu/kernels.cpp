// The CPU kernels of one instruction set: the launchers with the columns of a problem on the lanes of a
// vector register.
#include "kernels.h"

#include <cstdlib>

#include "bit_tree.h"
#include "launch.h"

namespace hotnas::HOTNAS_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int isa_code = 2;
constexpr int wide(float) { return 16; }
constexpr int wide(double) { return 8; }
#elif defined(__AVX2__)
constexpr int isa_code = 1;
constexpr int wide(float) { return 8; }
constexpr int wide(double) { return 4; }
#else
constexpr int isa_code = 0;
constexpr int wide(float) { return 4; }
constexpr int wide(double) { return 2; }
#endif

/// One thread's memory, grown to the largest item met so far.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }
  void* at_least(std::size_t bytes) {
    if (bytes > size_) {
      std::free(data_);
      size_ = (bytes + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(64, size_);
    }
    return data_;
  }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// All lanes are those of one thread.
template <int W>
struct SimdTeam {
  using Group = SimdGroup<W>;
  Watch* watch;
  template <class F>
  void run(F f) const {
    f(Group{watch});
  }
};

/// One thread's lanes.
class SimdLanes {
 public:
  explicit SimdLanes(Watch& watch) : watch_(&watch) {}
  void* memory(std::size_t bytes) { return buffer_.at_least(bytes); }
  int atom_slots(const Shape& s) const { return HOTNAS_ISA::atom_slots(s); }

  /// The lane group that wastes least on rows of m columns.
  template <class T, class F>
  auto choose(int m, F f) const {
    constexpr int full = wide(T(0));
    if constexpr (full * sizeof(T) == 64) {
      if (m <= full / 2) return f(SimdTeam<full / 2>{watch_});
    }
    (void)m;
    return f(SimdTeam<full>{watch_});
  }

 private:
  Watch* watch_;
  Buffer buffer_;
};

}  // namespace

extern const Kernels kernels = {isa_code, kernels_on<SimdLanes, float>(),
                                kernels_on<SimdLanes, double>()};

}  // namespace hotnas::HOTNAS_ISA
