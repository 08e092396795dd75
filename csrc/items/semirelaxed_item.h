// Semi-relaxed fused Gromov-Wasserstein.
#pragma once

#include "../core/semirelaxed.h"
#include "fgw_items.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct SemirelaxedFgwItem : BatchItem<SemirelaxedFgwArgs<T>, T> {
  using Args = SemirelaxedFgwArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    SemirelaxedWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_semirelaxed<T>(arena, most);
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
    load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.fgw.cost);
    load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                    p.struct_y + item * Base::other(p), p.m, w.fgw.c);
    const int mass = load_scaled_masses(g, x, y, a.mass, b.mass, w.fgw.a, w.fgw.b);
    const FgwUnits<T> chosen = scale_problem(g, s, terms, w.fgw.c, w.fgw.cost, p.alpha[item], mass);
    if (chosen.forbids || chosen.status == Status::nonfinite) best.status = Status::nonfinite;
    if (g.leader()) *w.fgw.units = chosen;  // not in registers while it solves
    g.sync();
    const bool solved = best.status == Status::converged && s.n > 0;
    if (solved) {
      Semirelaxed<G, Terms, T> solver(g, s, terms, w.fgw, chosen, {p.tol, p.max_iter});
      solver.run(p.num_starts, p.init != nullptr, p.num_start_costs, [&](int k, T* to) {
        const T* from = k < 0 ? p.init + item * matrix : p.start_costs + k * matrix;
        load_matrix(g, x, y, from, p.m, s.ld, to);
        if (k < 0) multiply<G, T>(g, to, s.n * s.ld, power_of_two<T>(-w.fgw.units->mass));
      });
      best = solver.best(*w.fgw.units);
      g.sync();
      if (!failed(best.status) && !finite_duals(g, s, w.fgw)) best.status = Status::nonfinite;
    }
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n;
    const T value = failed(best.status) ? T(NAN) : T(0);
    fill(g, plan, matrix, value);
    fill(g, f, p.n, value);
    g.sync();
    if (failed(best.status)) {
      best.objective = best.gap = T(NAN);
    } else if (solved) {
      const FgwUnits<T> units = *w.fgw.units;
      store_matrix(g, x, y, w.fgw.best_plan, s.ld, plan, p.m, Back<T>(units.mass));
      store_vector(g, x, w.fgw.f, f, Back<T>(units.dual()));
    }
    if (g.leader()) {
      p.objective[item] = best.objective;
      p.gap[item] = best.gap;
      p.iterations[item] = best.iterations;
      p.status[item] = static_cast<int32_t>(best.status);
    }
    if (failed(best.status) || !solved || x.count == a.nodes) return;
    if (g.leader()) *w.fgw.dense.count = list_entries(s, w.fgw.best_plan, w.fgw.dense);
    g.sync();
    extend_dual(g, a, y.count, f, [&](int i, int k) {
      return fgw_slope(p, terms, item, x, y, s, w.fgw.dense, *w.fgw.units, i, y.node[k]);
    });
  }

 private:
  /// Masses of which those of the rows have a total of 1 to 2; returns the exponent of their unit.
  template <class G>
  HN_HD static int load_scaled_masses(const G& g, const Support& x, const Support& y, const T* a,
                                      const T* b, T* out_a, T* out_b) {
    T total = 0;
    HN_ROLLED
    for (int i = g.begin(); i < x.count; i += g.step()) total += a[x.node[i]];
    const int exponent = exponent_of(g.total(total));
    const T factor = power_of_two<T>(-exponent);
    HN_ROLLED
    for (int i = g.begin(); i < x.count; i += g.step()) out_a[i] = a[x.node[i]] * factor;
    HN_ROLLED
    for (int j = g.begin(); j < y.count; j += g.step()) out_b[j] = b[y.node[j]] * factor;
    return exponent;
  }

  /// Whether T holds the duals in the caller's unit.
  template <class G>
  HN_HD static bool finite_duals(const G& g, const Shape& s, const SemirelaxedWork<T>& w) {
    const Back<T> unit(w.units->dual());
    T defect = 0;
    HN_ROLLED
    for (int i = g.begin(); i < s.n; i += g.step()) defect += unit(w.f[i]) - unit(w.f[i]);
    return g.total(defect) == 0;
  }
};

}  // namespace hotnas::HOTNAS_ISA
