// Semi-relaxed fused Gromov-Wasserstein: rows keep their masses, columns take what comes,
//   min F(T)  over  T >= 0, T 1 = a.
// A linear problem is the cheapest column of each row, and what a coupling is above it, row by row, is the gap:
// a sum of terms of which none is negative, so that it needs no duals and is exact to its own size.
// A few steps of conditional gradient, exact ones, choose the valley: towards all cheapest columns of a row where they
// tie, as none of them is a reason to leave out the others. Then the rows in turn, each moving mass from the
// column that adds most to the gap to the cheapest one, exactly, with the gradient kept up to date, end at its bottom: a
// row's step costs O(n m), so that a sweep costs what one vertex does, and each row sees what the one before it did.
// Complexity: O(n^2 m) per iteration.
// Reference: Vincent-Cuaz et al., Semi-relaxed Gromov-Wasserstein divergence and applications on graphs, 2022;
// Lacoste-Julien et al., Block-coordinate Frank-Wolfe optimization for structural SVMs, 2013.
#pragma once

#include "fgw.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct SemirelaxedWork {
  Structures<T> c;
  Vertex<T> dense;            // a coupling, as a list
  Vertex<T> vertex;           // the cheapest columns of each row, or a step of one row
  Array<T> a, b;              // masses in units
  Array<T> cost, grad, plan;  // (n, ld)
  Array<T> change;            // B of a step, (n, ld)
  Array<T> best_plan;         // (n, ld)
  Array<T> least, f;          // (ldn): row minima of grad; those of the best plan
  Array<FgwResult<T>> best;   // one: of all starts so far
  Array<FgwUnits<T>> units;   // one
};

template <class T>
HN_HD SemirelaxedWork<T> take_semirelaxed(Arena& arena, const Shape& s) {
  SemirelaxedWork<T> w{};
  const std::size_t matrix = static_cast<std::size_t>(s.n) * s.ld;
  w.c = take_structures<T>(arena, s);
  w.dense = take_vertex<T>(arena, matrix + s.ld);  // lists are read a row of lanes at a time
  w.vertex = take_vertex<T>(arena, matrix + s.ld);
  w.a = arena.take_far<T>(s.n);
  w.b = arena.take_far<T>(s.ld);
  w.cost = arena.take_far<T>(matrix);
  w.grad = arena.take<T>(matrix);
  w.plan = arena.take<T>(matrix);
  w.change = arena.take<T>(matrix);
  w.best_plan = arena.take_far<T>(matrix);
  w.least = arena.take<T>(s.ldn);
  w.f = arena.take_far<T>(s.ldn);
  w.best = arena.take_far<FgwResult<T>>(1);
  w.units = arena.take_far<FgwUnits<T>>(1);
  return w;
}

template <class G, class Terms, class T>
class Semirelaxed {
  using Var = typename G::template Var<T>;
  static constexpr T huge = Limits<T>::huge;

 public:
  HN_HD Semirelaxed(const G& g, const Shape& s, const Terms& terms, const SemirelaxedWork<T>& w,
                    const FgwUnits<T>& units, FgwStops stops)
      : g_(g),
        s_(s),
        terms_(terms),
        w_(w),
        linear_(units.linear),
        pair_(units.pair),
        stops_(stops) {
    if (g_.leader()) *w_.best = {huge, huge, 0, Status::infeasible};
  }

  /// Runs the first `num` of the starts in their order: the coupling `init` if there is one, a b', the cheapest vertex of
  /// the linear term, and those of `num_given` costs. load(k, to) fetches `init` (k < 0) or given cost k into `to`, (n,
  /// ld). A start that is none is the caller's mistake and ends the run.
  template <class Load>
  HN_HD void run(int num, bool has_init, int num_given, Load load) {
    HN_ROLLED
    for (int start = has_init ? 0 : 1; num > 0 && start < 3 + num_given; ++start, --num) {
      if (start == 0) {
        load(-1, w_.plan);
        const T largest = largest_of<G, T>(g_, w_.plan, s_.n * s_.ld);
        if (!(largest - largest == 0)) return fail(Status::nonfinite);
        g_.sync();
        if (!has_row_masses()) return fail(Status::infeasible);
      } else if (start == 1) {
        product();
      } else {
        if (start == 2)
          copy(w_.cost, w_.grad);
        else
          load(start - 3, w_.grad);
        const T largest = largest_of<G, T>(g_, w_.grad, s_.n * s_.ld);
        if (!(largest - largest == 0)) return fail(Status::nonfinite);
        list_cheapest(false);
        clear(w_.plan);
        g_.sync();
        HN_ROLLED
        for (int i = g_.begin(); i < s_.n; i += g_.step())
          w_.plan[w_.vertex.place[i]] = w_.vertex.mass[i];
      }
      g_.sync();
      descend(start == 1);
    }
  }

  /// The best result, in the caller's unit: that of `units`, which is then that of the gap and the duals.
  HN_HD FgwResult<T> best(FgwUnits<T>& units) const {
    if (units.hidden > 0 && w_.best->status <= Status::max_iter) apart(units);
    FgwResult<T> best = *w_.best;
    if (best.status > Status::max_iter) return best;
    if (!(units.hidden > 0)) best.objective = Back<T>(units.result)(best.objective);
    best.gap = Back<T>(units.result)(best.gap);
    if (!((best.objective - best.objective) + (best.gap - best.gap) == 0))
      best.status = Status::nonfinite;
    return best;
  }

 private:
  /// What `slopes` finds of a coupling.
  struct Slopes {
    T gap, on_plan, linear;  // <grad, T - V>, <grad, T>, <cost, T>
  };

  HN_HD void fail(Status status) const {
    if (g_.leader()) {
      w_.best->objective = huge;
      w_.best->status = status;
    }
    g_.sync();
  }

  HN_HD void copy(const T* from, T* to) const {
    for (int e = 0; e < s_.n * s_.ld; e += G::width) g_.store(to + e, g_.load(from + e));
  }
  HN_HD void clear(T* to) const {
    for (int e = 0; e < s_.n * s_.ld; e += G::width) g_.store(to + e, G::splat(T(0)));
  }

  /// a b' / sum b.
  HN_HD void product() const {
    T total = 0;
    HN_ROLLED
    for (int j = 0; j < s_.m; ++j) total += w_.b[j];
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const T share = w_.a[i] / total;
      HN_ROLLED
      for (int j = g_.begin(); j < s_.ld; j += g_.step())
        w_.plan[i * s_.ld + j] = j < s_.m ? share * w_.b[j] : T(0);
    }
  }

  HN_HD bool has_row_masses() const {
    const T slack = 2 * Limits<T>::root_epsilon;
    int wrong = 0;
    HN_ROLLED
    for (int i = g_.begin(); i < s_.n; i += g_.step()) {
      T rest = w_.a[i];
      HN_ROLLED
      for (int j = 0; j < s_.m; ++j) {
        const T mass = w_.plan[i * s_.ld + j];
        wrong += mass >= 0 ? 0 : 1;
        rest -= mass;
      }
      wrong += rest <= slack && -rest <= slack ? 0 : 1;
    }
    return g_.total(static_cast<T>(wrong)) == 0;
  }

  /// The cheapest column of each row of grad, in `vertex`, and its cost in `least`: the first of equals, or, to go on the
  /// way towards them, all of them, an equal part of the mass each. Rounding makes no difference between columns.
  HN_HD void list_cheapest(bool all) const {
    const auto last = G::template splat_int<T>(s_.m);
    const T equal = all ? 16 * Limits<T>::epsilon * (linear_ + pair_) : T(0);
    int count = 0;
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const T* row = w_.grad + i * s_.ld;
      Var least = G::splat(2 * huge);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const auto real = g_.template index<T>(j0) < last;
        least = G::min(least, G::select(real, g_.load(row + j0), least));
      }
      const T lowest = -g_.max_of(-least);
      const Var most = G::splat(lowest + equal);
      const int before = count;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const auto cheap = (g_.template index<T>(j0) < last) & (g_.load(row + j0) <= most);
        count = g_.template append<T>(cheap, j0, w_.vertex.col, count);
      }
      if (!all && count > before) count = before + 1;
      const T share = w_.a[i] / T(count - before);
      g_.sync();
      HN_ROLLED
      for (int t = before + g_.begin(); t < count; t += g_.step())
        w_.vertex.set(t, i, w_.vertex.col[t], s_.ld, share);
      if (g_.leader()) w_.least[i] = lowest;
    }
    if (g_.leader()) *w_.vertex.count = count;
    g_.sync();
  }

  /// The gradient at the plan, from nothing but the plan.
  HN_HD void renew() const {
    int count = 0;
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      T* const row = w_.plan + i * s_.ld;
      Var sum = G::splat(T(0)), most = sum;
      auto at = g_.template index<T>(0);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const Var mass = g_.load(row + j0);
        sum += mass;
        at = G::select(most < mass, g_.template index<T>(j0), at);
        most = G::max(most, mass);
      }
      // what rounding took from the row, or gave it
      const T rest = w_.a[i] - g_.sum(sum);
      const MinAt<T> largest = g_.template min_at<T>(-most, at);
      g_.sync();
      if (g_.leader()) {
        const T mended = rest - largest.value;
        row[largest.index] = mended > 0 ? mended : T(0);
      }
      g_.sync();
      const int before = count;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width)
        count = g_.template append<T>(g_.load(row + j0) > G::splat(T(0)), j0, w_.dense.col, count);
      g_.sync();
      HN_ROLLED
      for (int t = before + g_.begin(); t < count; t += g_.step()) {
        const int j = w_.dense.col[t];
        w_.dense.set(t, i, j, s_.ld, row[j]);
      }
    }
    if (g_.leader()) *w_.dense.count = count;
    g_.sync();
    pair_cost(g_, s_, terms_, w_.c, w_.dense, w_.grad);
    add_linear();
  }

  /// From B at the plan, the gradient.
  HN_HD void add_linear() const {
    for (int e = 0; e < s_.n * s_.ld; e += G::width)
      g_.store(w_.grad + e,
               G::splat(linear_) * g_.load(w_.cost + e) + G::splat(pair_) * g_.load(w_.grad + e));
    g_.sync();
  }

  /// Expects the row minima.
  HN_HD Slopes slopes() const {
    Var gap = G::splat(T(0)), on_plan = gap, linear = gap;
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const Var least = G::splat(w_.least[i]);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const int e = i * s_.ld + j0;
        const Var mass = g_.load(w_.plan + e), slope = g_.load(w_.grad + e);
        gap += mass * (slope - least);
        on_plan += mass * slope;
        linear += mass * g_.load(w_.cost + e);
      }
    }
    return {g_.sum(gap), g_.sum(on_plan), g_.sum(linear)};
  }

  /// A step towards the vertex.
  HN_HD void step(const Slopes& now) const {
    pair_cost(g_, s_, terms_, w_.c, w_.vertex, w_.change);
    g_.sync();
    const T far = pair_ * inner(g_, w_.change, w_.vertex);
    const T across = inner(g_, w_.grad, w_.vertex) - linear_ * inner(g_, w_.cost, w_.vertex);
    const T curvature = far - 2 * across + (now.on_plan - linear_ * now.linear);
    const T exact = curvature > 0 ? now.gap / curvature : T(1);
    const bool whole = !(exact < 1);
    const T share = whole ? T(1) : exact, rest = whole ? T(0) : 1 - exact;
    g_.sync();
    for (int e = 0; e < s_.n * s_.ld; e += G::width) {
      const Var cost = G::splat(linear_) * g_.load(w_.cost + e);
      const Var bend = G::splat(rest) * (g_.load(w_.grad + e) - cost) +
                       G::splat(share * pair_) * g_.load(w_.change + e);
      g_.store(w_.grad + e, cost + bend);
      g_.store(w_.plan + e, whole ? G::splat(T(0)) : G::splat(rest) * g_.load(w_.plan + e));
    }
    g_.sync();
    const int count = *w_.vertex.count;
    HN_ROLLED
    for (int t = g_.begin(); t < count; t += g_.step())
      w_.plan[w_.vertex.place[t]] += share * w_.vertex.mass[t];
    g_.sync();
  }

  /// <B(d), d> for d that moves a unit of row i from column q to p; other rows' pairs with themselves have none.
  HN_HD T curvature(int i, int p, int q) const {
    if (terms_.pairs() != Pairs::all) return 0;
    const T own = w_.c.cx[i * s_.ldn + i];
    const auto term = [&](int k, int l) {
      return loss<ScalarLanes>(terms_.loss(), own - w_.c.cy[k * s_.ld + l]);
    };
    return 2 * pair_ * (term(p, p) + term(q, q) - term(p, q) - term(q, p));
  }

  /// Row i moves its mass, pair of columns by pair, until no column adds more than `enough` to the gap. Whether it moved.
  HN_HD bool move(int i, T enough) const {
    const auto last = G::template splat_int<T>(s_.m);
    const Var none = G::splat(2 * huge);
    T* const slope = w_.grad + i * s_.ld;
    T* const mass = w_.plan + i * s_.ld;
    bool moved = false;
    HN_ROLLED
    for (int turn = 0; turn < s_.m; ++turn) {
      Var low = none, high = none;
      auto low_at = g_.template index<T>(0), high_at = low_at;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const auto column = g_.template index<T>(j0);
        const Var value = G::select(column < last, g_.load(slope + j0), none);
        low_at = G::select(value < low, column, low_at);
        low = G::min(low, value);
      }
      const MinAt<T> to = g_.template min_at<T>(low, low_at);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const auto column = g_.template index<T>(j0);
        const Var share = g_.load(mass + j0) * (G::splat(to.value) - g_.load(slope + j0));
        high_at = G::select(share < high, column, high_at);
        high = G::min(high, share);
      }
      const MinAt<T> from = g_.template min_at<T>(high, high_at);
      if (!(-from.value > enough) || from.index == to.index) break;
      const T bend = curvature(i, to.index, from.index), most = mass[from.index];
      const T exact = bend > 0 ? (slope[from.index] - to.value) / bend : huge;
      const bool all = !(exact < most);
      const T share = all ? most : exact;
      g_.sync();
      if (g_.leader()) {
        mass[to.index] += share;
        mass[from.index] = all ? T(0) : most - share;
        w_.vertex.set(0, i, to.index, s_.ld, share);
        w_.vertex.set(1, i, from.index, s_.ld, -share);
        *w_.vertex.count = 2;
      }
      g_.sync();
      pair_cost(g_, s_, terms_, w_.c, w_.vertex, w_.change);
      for (int e = 0; e < s_.n * s_.ld; e += G::width)
        g_.store(w_.grad + e, g_.load(w_.grad + e) + G::splat(pair_) * g_.load(w_.change + e));
      g_.sync();
      moved = true;
    }
    return moved;
  }

  HN_HD void descend(bool from_product) const {
    FgwResult<T> now{huge, huge, 0, Status::max_iter};
    bool fresh = true, moving = true;
    if (from_product && falls_apart(s_, terms_)) {
      product_pair_cost(g_, s_, w_.c, w_.a, w_.b, w_.change, w_.grad);
      add_linear();
      fresh = false;
    } else {
      renew();
    }
    HN_ROLLED
    for (;;) {
      g_.poll(std::int64_t{s_.n + 1} * s_.n * s_.ld);
      list_cheapest(now.iterations < most_whole);
      const Slopes at = slopes();
      g_.sync();  // all have read the plan and the row minima
      now.objective = T(0.5) * (linear_ * at.linear + at.on_plan);
      now.gap = at.gap < 0 ? T(0) : at.gap;
      const T size = now.objective < 0 ? -now.objective : now.objective;
      const T enough = T(stops_.tol) * size +
                       8 * Limits<T>::epsilon * (at.on_plan < 0 ? -at.on_plan : at.on_plan);
      const bool small = !(now.gap > enough);
      if ((small || !moving || now.iterations >= stops_.max_iter) && !fresh) {
        renew();  // many small steps round the gradient away from the plan's
        fresh = true;
        moving = true;
        continue;
      }
      if (small) now.status = Status::converged;
      if (small || !moving || now.iterations >= stops_.max_iter) break;
      ++now.iterations;
      if (now.iterations <= most_whole) {
        step(at);
        fresh = false;
        continue;
      }
      moving = false;
      HN_ROLLED
      for (int i = 0; i < s_.n; ++i) moving |= move(i, enough / (T(2) * T(s_.n) * T(s_.m)));
      fresh = !moving;
    }
    const bool better = now.objective < w_.best->objective || now.objective != now.objective;
    g_.sync();
    if (better) {
      copy(w_.plan, w_.best_plan);
      for (int i0 = 0; i0 < s_.ldn; i0 += G::width) g_.store(w_.f + i0, g_.load(w_.least + i0));
    }
    if (g_.leader()) {
      now.iterations += w_.best->iterations;
      if (better)
        *w_.best = now;
      else
        w_.best->iterations = now.iterations;
    }
    g_.sync();
  }

  /// A result whose terms are apart: each has its unit, see Fgw.
  HN_APART void apart(FgwUnits<T>& units) const {
    const bool floor = never_negative(g_, s_, units, w_.cost);
    copy(w_.best_plan, w_.plan);
    g_.sync();
    renew();
    pair_cost(g_, s_, terms_, w_.c, w_.dense, w_.grad);
    g_.sync();
    const T linear = linear_ * inner(g_, w_.cost, w_.dense);
    const T pair = pair_ / 2 * inner(g_, w_.grad, w_.dense);
    if (g_.leader()) {
      const T larger = units.by_pair() ? pair : linear, size = larger < 0 ? -larger : larger;
      w_.best->objective = Back<T>(units.of_linear)(linear) + Back<T>(units.of_pair)(pair);
      if (size == 0 && floor) {
        units.result = units.by_pair() ? units.of_linear : units.of_pair;
      } else if (!(units.hidden <= 8 * Limits<T>::epsilon * size)) {
        w_.best->gap += units.hidden;
        w_.best->status = Status::max_iter;
      }
    }
    g_.sync();
  }

  /// Steps towards whole vertices before the rows go on alone.
  static constexpr int most_whole = 100;

  const G& g_;
  const Shape& s_;
  const Terms& terms_;
  const SemirelaxedWork<T>& w_;
  T linear_, pair_;
  FgwStops stops_;
};

}  // namespace hotnas::HOTNAS_ISA
