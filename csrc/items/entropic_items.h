// Entropic transport and entropic Fused Gromov-Wasserstein.
#pragma once

#include "../core/entropic_fgw.h"
#include "../core/entropic_transport.h"
#include "item.h"

namespace hotnas::HOTNAS_ISA {

/// Units of the costs in which epsilon lies between 1/2 and 2, so that nothing overflows which the caller's numbers do
/// not: a power of 4, by which nothing is rounded, and whose root scales structures that are squared.
struct CostUnit {
  double epsilon;  // in these units
  int exponent;

  HN_HD explicit CostUnit(double given) {
    frexp(given, &exponent);
    exponent -= exponent & 1;
    if (exponent > 1022) exponent = 1022;  // the largest that a double holds
    epsilon = ldexp(given, -exponent);
  }
  /// What 1 of the caller is in these units, and back.
  template <class T>
  HN_HD T inward() const {
    return T(ldexp(1.0, -exponent));
  }
  template <class T>
  HN_HD T outward() const {
    return T(ldexp(1.0, exponent));
  }
  template <class T>
  HN_HD T inward_structures(Loss loss) const {
    return T(ldexp(1.0, loss == Loss::l2 ? -exponent / 2 : -exponent));
  }
};

/// Multiplies an array in place. Returns 0, or NaN on a lane where that left the range in which sums of a few are finite.
template <class G, class T>
HN_HD T rescale(const G& g, Array<T> values, std::size_t count, std::type_identity_t<T> factor) {
  T defect = 0;
  HN_ROLLED
  for (std::size_t e = g.begin(); e < count; e += g.step()) {
    values[e] *= factor;
    defect += 4 * values[e] - 4 * values[e];
  }
  return defect;
}

/// The duals in the caller's units; whether they exist there.
template <class G, class T>
HN_HD bool duals_outward(const G& g, const Shape& s, const SinkhornWork<T>& w,
                         const CostUnit& unit) {
  const T factor = unit.template outward<T>();
  g.sync();  // all lanes have read the duals for the last time
  const T defect = rescale(g, w.f, s.n, factor) + rescale(g, w.g, s.m, factor);
  return g.total(defect) == 0;
}

/// Logarithms of the masses.
template <class G, class T>
HN_HD void load_log_masses(const G& g, const Shape& s, const Support& x, const Support& y,
                           const T* a, const T* b, const SinkhornWork<T>& w) {
  HN_ROLLED
  for (int i = g.begin(); i < s.ldn; i += g.step())
    w.log_a[i] = i < s.n ? ScalarLanes::log(a[x.node[i]]) : T(0);
  HN_ROLLED
  for (int j = g.begin(); j < s.ld; j += g.step())
    w.log_b[j] = j < s.m ? ScalarLanes::log(b[y.node[j]]) : T(0);
}

HN_HD Status status_of(bool finite, bool converged) {
  return !finite ? Status::nonfinite : converged ? Status::converged : Status::max_iter;
}

template <class T>
struct SinkhornItem : BatchItem<SinkhornArgs<T>, T> {
  using Args = SinkhornArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    SinkhornWork<T> sinkhorn;
    Array<T> cost;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.sinkhorn = take_sinkhorn<T>(arena, most);
    w.cost = arena.take_far<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    Side<T> a, b;
    Base::sides(p, item, a, b);
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect = load_matrix(g, x, y, p.cost + item * Base::matrix(p), p.m, s.ld, w.cost);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    SinkhornResult<T> result{0, 0, true, true};
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      load_log_masses(g, s, x, y, a.mass, b.mass, w.sinkhorn);
      fill(g, w.sinkhorn.g, s.ld, T(0));
      const CostUnit unit(p.epsilon);
      multiply<G, T>(g, w.cost, s.n * s.ld, unit.template inward<T>());
      result = sinkhorn(g, s, w.sinkhorn, w.cost, T(unit.epsilon), T(p.tol), p.max_iter);
      result.finite &= duals_outward(g, s, w.sinkhorn, unit);
      status = status_of(result.finite, result.converged);
    }
    T *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(status) ? T(NAN) : T(-INFINITY);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      result.residual = T(NAN);
    } else if (solved) {
      store_vector(g, x, w.sinkhorn.f, f);
      store_vector(g, y, w.sinkhorn.g, dual);
    }
    if (g.leader()) {
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

/// Sinkhorn of what rows and columns of the costs do not have in common, with the coupling and its values.
template <class T>
struct EntropicTransportItem : BatchItem<EntropicTransportArgs<T>, T> {
  using Args = EntropicTransportArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    SinkhornWork<T> sinkhorn;
    Common<T> common;
    Array<T> cost;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.sinkhorn = take_sinkhorn<T>(arena, most);
    w.common = take_common<T>(arena, most);
    w.cost = arena.take_far<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const SinkhornWork<T>& duals = w.sinkhorn;
    const T defect = load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.cost);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    SinkhornResult<T> result{0, 0, true, true};
    EntropicValues<T> values{0, 0};
    const CostUnit unit(p.epsilon);
    if (status == Status::converged && s.n > 0 &&
        !reduce_costs<G, T>(g, s, w.cost, w.common, unit.template inward<T>()))
      status = Status::nonfinite;
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      load_log_masses(g, s, x, y, a.mass, b.mass, duals);
      fill(g, duals.g, s.ld, T(0));
      result = sinkhorn(g, s, duals, w.cost, T(unit.epsilon), T(p.tol), p.max_iter);
      result.finite &= duals_outward(g, s, duals, unit);
      status = status_of(result.finite, result.converged);
      load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.cost);
      values = values_of(
          g, s, duals, w.cost, w.common, T(p.epsilon), [&](int i) { return a.mass[x.node[i]]; },
          [&](int j) { return b.mass[y.node[j]]; });
    }
    T* plan = p.plan + item * matrix;
    T *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const bool lost = failed(status);
    const T value = lost ? T(NAN) : T(-INFINITY);
    if (lost || s.n < p.n || s.m < p.m) fill(g, plan, matrix, lost ? T(NAN) : T(0));
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (lost) {
      result.residual = values.objective = values.linear = T(NAN);
    } else if (solved) {
      store_matrix(g, x, y, duals.by_row, s.ld, plan, p.m);
      T ahead = 0;  // <g, b> - <f, a> of the caller's costs
      HN_ROLLED
      for (int i = g.begin(); i < s.n; i += g.step()) {
        duals.f[i] += w.common.of_rows[i];
        ahead -= duals.f[i] * a.mass[x.node[i]];
      }
      HN_ROLLED
      for (int j = g.begin(); j < s.m; j += g.step()) {
        duals.g[j] += w.common.of_columns[j];
        ahead += duals.g[j] * b.mass[y.node[j]];
      }
      const T shift = T(0.5) * g.total(ahead);
      store_vector(g, x, duals.f, f, [&](T found) { return found + shift; });
      store_vector(g, y, duals.g, dual, [&](T found) { return found - shift; });
    }
    if (g.leader()) {
      p.objective[item] = values.objective;
      p.linear[item] = values.linear;
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

template <class T>
struct EntropicFgwItem : BatchItem<EntropicFgwArgs<T>, T> {
  using Args = EntropicFgwArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    EntropicFgwWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_entropic_fgw<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    const T alpha = p.alpha[item];
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect = alpha - alpha;
    load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.fgw.cost);
    if (p.init != nullptr) load_matrix(g, x, y, p.init + item * matrix, p.m, s.ld, w.fgw.log_plan);
    load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                    p.struct_y + item * Base::other(p), p.m, w.fgw.c);
    keep_pairs(g, s, terms, w.fgw.c);
    typename G::template Var<T> most = G::splat(T(0)), none = most, forbidden = most;
    survey_costs<G, T>(g, w.fgw.cost, s.n * s.ld, most, none, forbidden);
    if (p.init != nullptr) survey<G, T>(g, w.fgw.log_plan, s.n * s.ld, most, none);
    survey<G, T>(g, w.fgw.c.cx, s.n * s.ldn, most, none);
    survey<G, T>(g, w.fgw.c.cy, s.m * s.ld, most, none);
    if (!(g.total(defect) + g.sum(none) == 0)) status = Status::nonfinite;
    const bool forbids = g.max_of(forbidden) > 0;
    EntropicFgwResult<T> result{0, 0, true, true};
    const CostUnit unit(p.epsilon);
    if (status == Status::converged && s.n > 0) {
      scale_costs(g, w.fgw.cost, s.n * s.ld, unit.template inward<T>());
      if (forbids && !all_have_arcs<G, T>(g, s, w.fgw.cost)) status = Status::infeasible;
    }
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      load_log_masses(g, s, x, y, a.mass, b.mass, w.fgw.sinkhorn);
      const T structures = unit.template inward_structures<T>(terms.loss());
      multiply<G, T>(g, w.fgw.c.cx, s.n * s.ldn, structures);
      multiply<G, T>(g, w.fgw.c.cy, s.m * s.ld, structures);
      multiply<G, T>(g, w.fgw.c.cyt, s.m * s.ld, structures);
      g.sync();
      const EntropicFgwWay<T> way{T(unit.epsilon), p.proximal != 0, p.init != nullptr, forbids};
      result = entropic_fgw(g, s, terms, w.fgw, alpha, way, T(p.tol), p.max_iter, T(p.inner_tol),
                            p.inner_max_iter);
      result.finite &= duals_outward(g, s, w.fgw.sinkhorn, unit);
      status = status_of(result.finite, result.converged);
    }
    T *log_plan = p.log_plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(status) ? T(NAN) : T(-INFINITY);
    fill(g, log_plan, matrix, value);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      result.residual = T(NAN);
    } else if (solved) {
      store_matrix(g, x, y, w.fgw.log_plan, s.ld, log_plan, p.m);
      store_vector(g, x, w.fgw.sinkhorn.f, f);
      store_vector(g, y, w.fgw.sinkhorn.g, dual);
    }
    if (g.leader()) {
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

}  // namespace hotnas::HOTNAS_ISA
