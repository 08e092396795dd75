// Solves random problems on 8 lanes and does nothing else, so that a counter of instructions can tell what one
// problem takes: the difference between two counts of problems, which leaves out how the program starts.
//
//   count_main OPERATOR NODES PROBLEMS        OPERATOR: transport, sinkhorn or fgw (directed, l1, one start)
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "../cpu/kernels.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: count_main OPERATOR NODES PROBLEMS\n");
    return 2;
  }
  const std::string name = argv[1];
  const int n = std::atoi(argv[2]), count = std::atoi(argv[3]);
  std::mt19937 engine(0);
  const auto draw = [&](int values) {
    std::vector<float> drawn(static_cast<std::size_t>(count) * values);
    for (float& value : drawn) value = static_cast<float>(engine() >> 8) * 0x1p-24f;
    return drawn;
  };
  const auto room = [&](int values) {
    return std::vector<float>(static_cast<std::size_t>(count) * values);
  };
  const std::vector<float> cost = draw(n * n), x = draw(n * n), y = draw(n * n);
  const std::vector<float> mass(static_cast<std::size_t>(count) * n, 1.0f / n), alpha(count, 0.5f);
  std::vector<float> plan = room(n * n), f = room(n), g = room(n), objective = room(1),
                     gap = room(1);
  std::vector<std::int32_t> iterations(count), status(count);
  const hotnas::KernelsOf<float>& kernels = hotnas::avx2::kernels.f32;
  bool done = false;
  if (name == "transport") {
    const hotnas::TransportArgs<float> args{n,
                                            n,
                                            cost.data(),
                                            mass.data(),
                                            mass.data(),
                                            plan.data(),
                                            objective.data(),
                                            f.data(),
                                            g.data(),
                                            iterations.data(),
                                            status.data()};
    done = kernels.transport(args, 0, count);
  } else if (name == "sinkhorn") {
    const hotnas::SinkhornArgs<float> args{
        n,   n,        cost.data(), mass.data(), mass.data(),       0.1,          1e-4,
        100, f.data(), g.data(),    gap.data(),  iterations.data(), status.data()};
    done = kernels.sinkhorn(args, 0, count);
  } else if (name == "fgw") {
    const hotnas::FgwArgs<float> args{n,
                                      n,
                                      cost.data(),
                                      x.data(),
                                      y.data(),
                                      mass.data(),
                                      mass.data(),
                                      alpha.data(),
                                      nullptr,
                                      nullptr,
                                      0,
                                      0,
                                      1,
                                      1,
                                      1e-4,
                                      100,
                                      plan.data(),
                                      objective.data(),
                                      f.data(),
                                      g.data(),
                                      gap.data(),
                                      iterations.data(),
                                      status.data()};
    done = kernels.fgw(args, 0, count);
  }
  return done ? 0 : 1;
}
