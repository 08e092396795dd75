// Unbalanced entropic transport.
#pragma once

#include "../core/unbalanced.h"
#include "entropic_items.h"

namespace hotnas::HOTNAS_ISA {

/// Masses of one side: numbers, none negative, and one positive.
template <class G, class T>
HN_HD Status check_side(const G& g, const Side<T>& side, T& total) {
  T negative = 0;
  HN_ROLLED
  for (int i = g.begin(); i < side.nodes; i += g.step()) {
    total += side.mass[i];
    if (side.mass[i] < 0) negative = 1;
  }
  total = g.total(total);
  negative = g.total(negative);
  if (!(total - total == 0)) return Status::nonfinite;
  return negative > 0 || !(total > 0) ? Status::infeasible : Status::converged;
}

template <class T>
struct UnbalancedSinkhornItem : BatchItem<UnbalancedSinkhornArgs<T>, T> {
  using Args = UnbalancedSinkhornArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    UnbalancedWork<T> unbalanced;
    Array<T> cost;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.unbalanced = take_unbalanced<T>(arena, most);
    w.cost = arena.take_far<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    Side<T> a, b;
    Base::sides(p, item, a, b);
    const bool held = !(p.marginal_x <= 1e300) && !(p.marginal_y <= 1e300);
    T total_a = 0, total_b = 0;
    Status status = check_side(g, a, total_a), other = check_side(g, b, total_b);
    if (other > status) status = other;
    const T larger = total_a < total_b ? total_b : total_a;
    if (held && status == Status::converged) status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect = load_matrix(g, x, y, p.cost + item * Base::matrix(p), p.m, s.ld, w.cost);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    SinkhornResult<T> result{0, 0, true, true};
    if (status == Status::converged) {
      load_log_masses(g, s, x, y, a.mass, b.mass, w.unbalanced.sinkhorn);
      fill(g, w.unbalanced.g, s.ld, T(0));
      const CostUnit unit(p.epsilon);
      rescale(g, w.cost, static_cast<std::size_t>(s.n) * s.ld, unit.template inward<T>());
      g.sync();
      const double of_x = ldexp(p.marginal_x, -unit.exponent),
                   of_y = ldexp(p.marginal_y, -unit.exponent);
      const bool variation = p.penalty == 1;
      Unbalanced<G, T> solver(g, s, w.unbalanced, w.cost, Penalty<T>(of_x, unit.epsilon, variation),
                              Penalty<T>(of_y, unit.epsilon, variation), T(unit.epsilon),
                              T(level_of(of_x, of_y, variation)), larger);
      result = solver.solve(T(p.tol), p.max_iter);
      const T factor = unit.template outward<T>();
      const T beyond =
          rescale(g, w.unbalanced.f, s.n, factor) + rescale(g, w.unbalanced.g, s.m, factor);
      result.finite &= g.total(beyond) == 0;
      status = status_of(result.finite, result.converged);
    }
    T *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(status) ? T(NAN) : T(-INFINITY);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      result.residual = T(NAN);
    } else {
      store_vector(g, x, w.unbalanced.f, f);
      store_vector(g, y, w.unbalanced.g, dual);
    }
    if (g.leader()) {
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

}  // namespace hotnas::HOTNAS_ISA
