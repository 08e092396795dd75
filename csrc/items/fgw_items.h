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

/// `extend_duals` of `fgw_slope` where all lanes are one thread's: columns lie on them, and some rows are met at a time.
/// In a batch of padded problems most pairs of nodes are of absent ones, and one by one they took longer than the problem.
template <class G, class Terms, class T>
class DualsOnLanes {
  using Var = typename G::template Var<T>;
  using Base = BatchItem<FgwArgs<T>, T>;
  static constexpr int block = 4;
  struct Columns {
    typename G::template Int<T> node;
    int lanes;
  };
  struct Rows {
    int node[block];
    int count;
  };
  struct Slopes {
    Var of[block];
  };

 public:
  /// w.found has the entries of the plan; `room`, of at least room_for(s) numbers, is free.
  DualsOnLanes(const G& g, const FgwArgs<T>& p, const Terms& terms, int64_t item, const Support& x,
               const Support& y, const Shape& s, const FgwWork<T>& w, T* room)
      : g_(g),
        p_(p),
        terms_(terms),
        x_(x),
        y_(y),
        s_(s),
        w_(w),
        to_(room),
        from_(room + int64_t{s.m} * G::width),
        cost_(p.cost + item * Base::matrix(p)),
        struct_x_(p.struct_x + item * Base::own(p)),
        struct_y_(p.struct_y + item * Base::other(p)) {}

  static int64_t room_for(const Shape& s) { return int64_t{2} * s.m * G::width; }

  void extend(const Side<T>& a, const Side<T>& b, T* f, T* dual) const {
    const auto absent = [](const Side<T>& side) {
      return [&side](int node) { return !(side.mass[node] > 0); };
    };
    const auto all = [](int) { return true; };
    for (int i = 0; i < p_.n; ++i)
      if (absent(a)(i)) f[i] = T(INFINITY);
    columns(
        y_.count, [&](int j) { return y_.node[j]; }, all,
        [&](const Columns& at) {
          const Var paid = of_lanes(at, [&](int64_t j) { return dual[j]; });
          rows(absent(a), [&](const Rows& of) {
            const Slopes slope = slopes(of, at);
            for (int r = 0; r < of.count; ++r) {
              const T least = -g_.max_of(-finite(slope.of[r] - paid, at.lanes));
              f[of.node[r]] = least < f[of.node[r]] ? least : f[of.node[r]];
            }
          });
        });
    for (int i = 0; i < p_.n; ++i)
      if (f[i] == T(INFINITY)) f[i] = 0;
    columns(
        p_.m, [](int j) { return j; }, absent(b),
        [&](const Columns& at) {
          Var least = G::splat(T(INFINITY));
          rows(all, [&](const Rows& of) {
            const Slopes slope = slopes(of, at);
            for (int r = 0; r < of.count; ++r)
              least = G::min(least, finite(slope.of[r] - G::splat(f[of.node[r]]), at.lanes));
          });
          for (int lane = 0; lane < at.lanes; ++lane)
            dual[at.node[lane]] = least[lane] == T(INFINITY) ? T(0) : least[lane];
        });
  }

 private:
  /// Calls `then` with the columns node(0), ..., node(count - 1) that are chosen, side by side on the lanes.
  template <class Node, class Chosen, class Then>
  void columns(int count, Node node, Chosen chosen, Then then) const {
    Columns at{{}, 0};
    for (int j = 0; j < count; ++j) {
      if (chosen(node(j))) at.node[at.lanes++] = node(j);
      if (at.lanes == G::width || (at.lanes > 0 && j + 1 == count)) {
        load(at);
        then(at);
        at.lanes = 0;
      }
    }
  }

  /// Calls `then` with the rows that are chosen, some at a time.
  template <class Chosen, class Then>
  void rows(Chosen chosen, Then then) const {
    Rows of{{}, 0};
    for (int i = 0; i < p_.n; ++i) {
      if (chosen(i)) of.node[of.count++] = i;
      if (of.count == block || (of.count > 0 && i + 1 == p_.n)) {
        for (int r = of.count; r < block; ++r) of.node[r] = of.node[0];
        then(of);
        of.count = 0;
      }
    }
  }

  /// One value per column on the lanes; 0 on lanes without one.
  template <class Value>
  Var of_lanes(const Columns& at, Value value) const {
    Var found = G::splat(T(0));
    for (int lane = 0; lane < at.lanes; ++lane) found[lane] = value(at.node[lane]);
    return found;
  }

  /// The structure between the columns on the lanes and those with mass, in units.
  void load(const Columns& at) const {
    const T factor = power_of_two<T>(-w_.units->structure);
    for (int l = 0; l < s_.m; ++l) {
      const int64_t node = y_.node[l];
      g_.store(to_ + l * G::width,
               of_lanes(at, [&](int64_t j) { return struct_y_[j * p_.m + node] * factor; }));
      g_.store(from_ + l * G::width,
               of_lanes(at, [&](int64_t j) { return struct_y_[node * p_.m + j] * factor; }));
    }
  }

  /// The values on the first lanes, infinity in place of what is not finite: absent nodes may hold anything.
  Var finite(Var value, int lanes) const {
    const auto allowed = (value - value == G::splat(T(0))) &
                         (g_.template index<T>(0) < G::template splat_int<T>(lanes));
    return G::select(allowed, value, G::splat(T(INFINITY)));
  }

  /// fgw_slope between these rows and the columns that are loaded.
  Slopes slopes(const Rows& of, const Columns& at) const {
    const FgwUnits<T>& units = *w_.units;
    const Vertex<T>& plan = w_.found;
    const T factor = power_of_two<T>(-units.structure);
    const Pairs pairs = terms_.pairs();
    const int last_row = s_.n - (units.dummies.row ? 1 : 0),
              last_column = s_.m - (units.dummies.column ? 1 : 0);
    const int dummy_row = p_.dummies ? p_.n - 1 : -1, dummy_column = p_.dummies ? p_.m - 1 : -1;
    const int count = *plan.count;
    const Var none = G::splat(T(0));
    g_.poll(int64_t{block} * count * G::width);
    Slopes sum;
    for (int r = 0; r < block; ++r) sum.of[r] = none;
    for (int t = 0; t < count; ++t) {
      if (plan.row[t] >= last_row || plan.col[t] >= last_column) continue;
      const int64_t k = x_.node[plan.row[t]];
      const int l = plan.col[t];
      const auto node = G::template splat_int<T>(y_.node[l]);
      const Var mass = G::splat(plan.mass[t]), to = g_.load(to_ + l * G::width),
                from = g_.load(from_ + l * G::width);
      for (int r = 0; r < block; ++r) {
        const int64_t i = of.node[r];
        if (i == dummy_row || (pairs != Pairs::all && k == i)) continue;
        const T out = struct_x_[i * p_.n + k] * factor, in = struct_x_[k * p_.n + i] * factor;
        const Var leaving = loss<G>(terms_.loss(), G::splat(out) - to);
        const Var entering = loss<G>(terms_.loss(), G::splat(in) - from);
        Var both = leaving + entering;
        if (pairs == Pairs::ordered)
          both = i < k ? G::select(at.node < node, leaving, none)
                       : G::select(at.node > node, entering, none);
        else if (pairs == Pairs::directed)
          both = G::select(at.node == node, none, both);
        sum.of[r] += mass * both;
      }
    }
    const auto paired = at.node != G::template splat_int<T>(dummy_column);
    const Back<T> of_linear(units.of_linear - units.mass), of_pair(units.of_pair - units.mass);
    const Var unit = G::splat(power_of_two<T>(-units.cost));
    Slopes slope;
    for (int r = 0; r < block; ++r) {
      const T* row = cost_ + static_cast<int64_t>(of.node[r]) * p_.m;
      const Var cost = of_lanes(at, [&](int64_t j) { return row[j]; });
      const Var linear = units.linear == 0 ? none : G::splat(units.linear) * (cost * unit);
      const Var pair = units.pair == 0 ? none : G::splat(units.pair) * sum.of[r];
      slope.of[r] = of_linear(linear) + of_pair(G::select(paired, pair, none));
    }
    return slope;
  }

  const G& g_;
  const FgwArgs<T>& p_;
  const Terms& terms_;
  const Support &x_, &y_;
  const Shape& s_;
  const FgwWork<T>& w_;
  T *to_, *from_;  // (s.m, width)
  const T *cost_, *struct_x_, *struct_y_;
};

template <class T>
struct FgwItem : BatchItem<FgwArgs<T>, T> {
  using Args = FgwArgs<T>;
  using Base = BatchItem<Args, T>;
  static constexpr bool fetches_ahead = true;  // pair_cost of vertices
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
      if constexpr (one_thread<G, T>) {
        using OnLanes = DualsOnLanes<G, Terms, T>;
        const int64_t room = static_cast<int64_t>(w.fgw.atoms) * s.n * s.ld;  // that of pair costs
        if (OnLanes::room_for(s) <= room)
          return OnLanes(g, p, terms, item, x, y, s, w.fgw, w.fgw.pair).extend(a, b, f, dual);
      }
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
