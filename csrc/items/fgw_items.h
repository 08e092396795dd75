// Fused Gromov-Wasserstein, its gradient and its lower bound.
#pragma once

#include "../core/fgw.h"
#include "../core/fgw_backward.h"
#include "../core/lower_bound.h"
#include "item.h"

namespace hotnas::HOTNAS_ISA {

/// The derivative of the objective in the plan between any two nodes of the caller. `plan` has its entries, row by row.
template <class Args, class Terms, class T>
HN_HD T fgw_slope(const Args& p, const Terms& terms, int64_t item, const Support& x,
                  const Support& y, const Shape& s, const Vertex<T>& plan, const FgwUnits<T>& units,
                  int i, int j) {
  using Base = BatchItem<Args, T>;
  const T *struct_x = p.struct_x + item * Base::own(p),
          *struct_y = p.struct_y + item * Base::other(p);
  const T factor = power_of_two<T>(-units.structure);
  const auto term = [&](T one, T other) {
    return loss<ScalarLanes>(terms.loss(), one * factor - other * factor);
  };
  const Pairs pairs = terms.pairs();
  bool paired = true;
  if constexpr (requires { p.dummies; }) paired = !p.dummies || (i < p.n - 1 && j < p.m - 1);
  const int rows = s.n - (units.dummies.row ? 1 : 0),
            columns = s.m - (units.dummies.column ? 1 : 0);
  const int count = paired ? *plan.count : 0;
  T sum = 0;
  HN_ROLLED
  for (int t = 0; t < count; ++t) {
    if (plan.row[t] >= rows || plan.col[t] >= columns) continue;
    const int k = x.node[plan.row[t]], l = y.node[plan.col[t]];
    if (pairs != Pairs::all && (k == i || l == j)) continue;
    if (pairs == Pairs::ordered && (i < k) != (j < l)) continue;
    T both = 0;
    if (pairs != Pairs::ordered || i < k)
      both += term(struct_x[static_cast<int64_t>(i) * p.n + k],
                   struct_y[static_cast<int64_t>(j) * p.m + l]);
    if (pairs != Pairs::ordered || i > k)
      both += term(struct_x[static_cast<int64_t>(k) * p.n + i],
                   struct_y[static_cast<int64_t>(l) * p.m + j]);
    sum += plan.mass[t] * both;
  }
  const T cost = p.cost[item * Base::matrix(p) + static_cast<int64_t>(i) * p.m + j];
  const T linear = units.linear == 0 ? T(0) : units.linear * (cost * power_of_two<T>(-units.cost));
  return Back<T>(units.of_linear - units.mass)(linear) +
         Back<T>(units.of_pair - units.mass)(units.pair == 0 ? T(0) : units.pair * sum);
}

template <class T>
struct FgwItem : BatchItem<FgwArgs<T>, T> {
  using Args = FgwArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    FgwWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_fgw<T>(arena, most, sizing.width, sizing.atoms);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    FgwResult<T> best{0, 0, 0, check_masses(g, a, b)};
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T alpha = p.alpha[item];
    load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.fgw.cost);
    load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                    p.struct_y + item * Base::other(p), p.m, w.fgw.c);
    const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.fgw.a, w.fgw.b);
    FgwUnits<T> chosen = scale_problem(g, s, terms, w.fgw.c, w.fgw.cost, alpha, mass.exponent,
                                       list_dummies(x, y, p.n, p.m, p.dummies));
    chosen.unit = mass.unit;
    if (chosen.status == Status::nonfinite || best.status == Status::converged)
      best.status = chosen.status;
    if (g.leader()) *w.fgw.units = chosen;  // not in registers while it solves
    g.sync();
    const bool solved = best.status == Status::converged && s.n > 0;
    if (solved) {
      Fgw<G, Terms, T> solver(g, s, terms, w.fgw, {p.tol, p.max_iter});
      solver.run(p.num_starts, p.init != nullptr, p.num_start_costs, [&](int k, T* to) {
        const T* from = k < 0 ? p.init + item * matrix : p.start_costs + k * matrix;
        load_matrix(g, x, y, from, p.m, s.ld, to);
        if (k < 0) multiply<G, T>(g, to, s.n * s.ld, power_of_two<T>(-w.fgw.units->mass));
      });
      best = solver.best(*w.fgw.units);
      if (!failed(best.status) && !finite_duals(g, s, w.fgw)) best.status = Status::nonfinite;
    }
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(best.status) ? T(NAN) : T(0);
    fill(g, plan, matrix, value);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(best.status)) {
      best.objective = best.gap = T(NAN);
    } else if (solved) {
      const FgwUnits<T> units = *w.fgw.units;
      const Back<T> of_dual(units.dual());
      store_matrix(g, x, y, w.fgw.plan, s.ld, plan, p.m, Back<T>(units.mass));
      store_vector(g, x, w.fgw.f, f, of_dual);
      store_vector(g, y, w.fgw.g, dual, of_dual);
    }
    if (g.leader()) {
      p.objective[item] = best.objective;
      p.gap[item] = best.gap;
      p.iterations[item] = best.iterations;
      p.status[item] = static_cast<int32_t>(best.status);
    }
    if (!failed(best.status) && solved && (x.count < p.n || y.count < p.m)) {
      if (g.leader()) *w.fgw.found.count = list_entries(s, w.fgw.plan, w.fgw.found);
      extend_duals(g, a, b, x, y, f, dual, [&](int i, int j) {
        return fgw_slope(p, terms, item, x, y, s, w.fgw.found, *w.fgw.units, i, j);
      });
    }
  }

 private:
  /// Whether T holds the duals in the caller's unit.
  template <class G>
  HN_HD static bool finite_duals(const G& g, const Shape& s, const FgwWork<T>& w) {
    const Back<T> unit(w.units->dual());
    T defect = 0;
    HN_ROLLED
    for (int k = g.begin(); k < s.n + s.m; k += g.step()) {
      const T value = unit(k < s.n ? w.f[k] : w.g[k - s.n]);
      defect += value - value;
    }
    return g.total(defect) == 0;
  }
};

/// All nodes, as the plan has no mass where there is none.
template <class T>
struct FgwBackwardItem : BatchItem<FgwBackwardArgs<T>, T> {
  using Args = FgwBackwardArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    FgwBackwardWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static bool sides(const Args& p, int64_t, Side<T>& a, Side<T>& b) {
    a = {nullptr, p.n};
    b = {nullptr, p.m};
    return true;
  }

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_fgw_backward<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const Support x = list_nodes(g, p.n, w.gather.x), y = list_nodes(g, p.m, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    load_matrix(g, x, y, p.plan + item * Base::matrix(p), p.m, s.ld, w.fgw.plan);
    load_matrix(g, x, x, p.struct_x + item * Base::own(p), p.n, s.ldn, w.fgw.cx);
    load_matrix(g, y, y, p.struct_y + item * Base::other(p), p.m, s.ld, w.fgw.cy);
    const T value = fgw_backward(g, s, terms, w.fgw, p.weight[item]);
    if (g.leader()) p.value[item] = value;
    store_matrix(g, x, x, w.fgw.grad_x, s.ldn, p.grad_x + item * Base::own(p), p.n);
    store_matrix(g, y, y, w.fgw.grad_y, s.ld, p.grad_y + item * Base::other(p), p.m);
  }
};

template <class T>
struct LowerBoundItem : BatchItem<LowerBoundArgs<T>, T> {
  using Args = LowerBoundArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    LowerBoundWork<T> bound;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.bound = take_lower_bound<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    Side<T> a, b;
    Base::sides(p, item, a, b);
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    load_matrix(g, x, y, p.cost + item * Base::matrix(p), p.m, s.ld, w.bound.cost);
    load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                    p.struct_y + item * Base::other(p), p.m, w.bound.c);
    const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.bound.a, w.bound.b);
    const FgwUnits<T> units =
        scale_problem(g, s, terms, w.bound.c, w.bound.cost, p.alpha[item], mass.exponent);
    if (status == Status::converged) status = units.status;
    T bound = status == Status::converged ? T(0) : T(NAN);
    if (status == Status::converged && s.n > 0) {
      g.sync();
      bound = fgw_lower_bound(g, s, terms, w.bound, units, mass.unit);
    }
    if (g.leader()) p.bound[item] = bound;
  }
};

}  // namespace hotnas::HOTNAS_ISA
