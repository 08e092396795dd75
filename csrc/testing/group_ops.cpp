// What every lane of a ThreadGroup receives from the collectives, for tests of the group itself.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include "group_threads.h"

namespace hotnas::HOTNAS_ISA {
namespace {

using torch::stable::Tensor;

/// Calls f with the team of `width` threads.
template <class F>
void with_team(std::int64_t width, F f) {
  const auto run = [&]<int W>() {
    ThreadTeam<W> team;
    f(team);
  };
  if (width == 1)
    run.template operator()<1>();
  else if (width == 2)
    run.template operator()<2>();
  else if (width == 8)
    run.template operator()<8>();
  else if (width == 16)
    run.template operator()<16>();
  else if (width == 32)
    run.template operator()<32>();
  else
    STD_TORCH_CHECK(false, "expected a width of 1, 2, 8, 16 or 32, got ", width);
}

/// values (problems, width) float64 -> (problems, width, 6 + width): per lane sum, max, min, its lane, the
/// lowest of the minima's keys (width - lane), the count of values above 0; then the list of their lanes.
Tensor collectives(const Tensor& values_) {
  const Tensor values = torch::stable::contiguous(values_);
  const std::int64_t problems = values.size(0), width = values.size(1), row = 6 + width;
  Tensor out = torch::stable::new_zeros(values, {problems, width, row});
  const double* in = static_cast<const double*>(values.const_data_ptr());
  double* results = static_cast<double*>(out.mutable_data_ptr());
  with_team(width, [&](auto& team) {
    using G = typename std::remove_cvref_t<decltype(team)>::Group;
    for (std::int64_t problem = 0; problem < problems; ++problem) {
      int list[G::width] = {};
      team.run([&](const G& g) {
        const double value = g.load(in + problem * width);
        double* mine = results + (problem * width + g.begin()) * row;
        mine[0] = g.sum(value);
        mine[1] = g.max_of(value);
        const MinAt<double> least = g.template min_at<double>(value);
        mine[2] = least.value;
        mine[3] = least.index;
        mine[4] = g.template min_at<double>(value, G::width - g.begin()).index;
        mine[5] = g.template append<double>(value > 0, 0, list, 0);
        g.sync();
        for (int lane = 0; lane < G::width; ++lane) mine[6 + lane] = list[lane];
      });
    }
  });
  return out;
}

/// Lets one lane take another branch than the others.
void diverge(std::int64_t width) {
  with_team(width, [&](auto& team) {
    using G = typename std::remove_cvref_t<decltype(team)>::Group;
    team.run([](const G& g) {
      if (g.begin() == 1)
        g.sum(1.0);
      else
        g.sync();
    });
  });
}

}  // namespace
}  // namespace hotnas::HOTNAS_ISA

STABLE_TORCH_LIBRARY_FRAGMENT(hotnas_testing, m) {
  m.def("collectives(Tensor values) -> Tensor");
  m.def("diverge(int width) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(hotnas_testing, CompositeExplicitAutograd, m) {
  m.impl("collectives", TORCH_BOX(&hotnas::HOTNAS_ISA::collectives));
  m.impl("diverge", TORCH_BOX(&hotnas::HOTNAS_ISA::diverge));
}
