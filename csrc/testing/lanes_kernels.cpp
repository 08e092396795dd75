// The kernels on HOTNAS_LANES threads per problem (0: SerialGroup); compiled once per width.
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../cpu/launch.h"
#include "group_threads.h"
#include "lanes.h"

namespace hotnas {
namespace HOTNAS_ISA {
namespace {

struct SerialTeam {
  using Group = SerialGroup;
  template <class F>
  void run(F f) const {
    f(Group{});
  }
};

/// Every item gets memory of its own, of exactly the size asked for, so that whoever watches allocations sees
/// each read of what was never written, and each read beyond the end.
template <class Team>
class TestLanes {
 public:
  explicit TestLanes(Watch&) {}
  void* memory(std::size_t bytes) {
    memory_.reset(std::aligned_alloc(64, bytes));
    const int fill = testing::workspace_fill;
    if (memory_ && fill >= 0) std::memset(memory_.get(), fill, bytes);
    return memory_.get();
  }
  template <class T, class F>
  auto choose(int, F f) {
    return f(team_);
  }
  int atom_slots(const Shape& s) const {
    const int slots = testing::atom_slots;
    return slots > 0 ? slots : HOTNAS_ISA::atom_slots(s);
  }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  Team team_;
};

#if HOTNAS_LANES == 0
using Lanes = TestLanes<SerialTeam>;
#else
using Lanes = TestLanes<ThreadTeam<HOTNAS_LANES> >;
#endif

constexpr Kernels kernels = {-1, kernels_on<Lanes, float>(), kernels_on<Lanes, double>()};

[[maybe_unused]] const bool listed = testing::lane_kernels().emplace(HOTNAS_LANES, &kernels).second;

}  // namespace
}  // namespace HOTNAS_ISA
}  // namespace hotnas
