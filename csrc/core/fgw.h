// Fused Gromov-Wasserstein by fully corrective conditional gradient.
//
// The coupling is kept as a convex combination of a few atoms: the start and the vertices found so
// far. B is linear, so with B_a = B(V_a) stored, the objective on the atoms is a small quadratic
// form in the weights, F(w) = (1 - alpha) lin.w + alpha/2 w'Qw with Q_ab = <B_a, V_b>, and the
// exact pairwise steps that re-balance the weights cost O(atoms) each and no transport problem.
// One outer iteration: gradient from the atoms, one exact transport problem (warm duals), one sparse
// B. Its price is O((n + m) n m); plain conditional gradient needs ten times the iterations.
// Duality gap <grad F(T), T - V> of the last transport problem is the stopping rule, once duals that are certain
// to be feasible have confirmed it.
#pragma once

#include "arguments.h"
#include "pair_table.h"

namespace hotnas::HOTNAS_ISA {

struct FgwStops {
  double tol;
  int max_iter;
};

template <class T>
struct FgwResult {
  T objective, gap;
  int iterations;
  Status status;
};

/// The units of one problem: its costs and its structures are divided by powers of two of their own, so that the
/// largest is 1 to 2, and the two terms get weights of which the larger is. A smaller term that would be lost beside
/// the larger one counts as `most_apart` below it: what it decides, where the larger is 0, is the same.
template <class T>
struct FgwUnits {
  T linear, pair;  // weights of cost and B
  T unit;          // mass of one unit of a and b, so that unit * sum(a) is 1 to 2
  T hidden;        // more than a term so raised adds to a derivative; 0 where there is none
  int mass, cost, structure;  // exponents
  int of_linear, of_pair;     // exponents of the terms in the objective
  int result;                 // that of the objective, the gap and, times the mass, the duals
  bool forbids;               // whether there are forbidden arcs
  Dummies dummies;
  Status status;  // of the inputs

  HN_HD int dual() const { return result - mass; }
  HN_HD bool by_pair() const { return result == of_pair; }  // which term is the larger
};

/// Exponents that the terms of the objective may be apart.
template <class T>
constexpr int most_apart = Limits<T>::exponent / 4 * 3;

/// Brings the costs and structures of a problem to size 1, costs of +infinity to `huge`.
template <class G, class Terms, class T>
HN_HD FgwUnits<T> scale_problem(const G& g, const Shape& s, const Terms& terms,
                                const Structures<T>& c, std::type_identity_t<T>* cost, T alpha,
                                int mass, Dummies dummies = {}) {
  const int matrix = s.n * s.ld, own = s.n * s.ldn, other = s.m * s.ld;
  keep_pairs(g, s, terms, c, dummies);
  const auto none = G::splat(T(0));
  typename G::template Var<T> in_cost = none, in_structures = none, defect = none, forbids = none;
  survey<G, T>(g, cost, matrix, in_cost, defect);
  T largest = g.max_of(in_cost);
  if (largest == T(INFINITY)) {  // few problems forbid pairs, and the others need not look for them
    in_cost = defect = none;
    survey_costs<G, T>(g, cost, matrix, in_cost, defect, forbids);
    largest = g.max_of(in_cost);
  }
  survey<G, T>(g, c.cx, own, in_structures, defect);
  survey<G, T>(g, c.cy, other, in_structures, defect);
  const T most = g.max_of(in_structures);
  FgwUnits<T> units{};
  units.mass = mass;
  units.dummies = dummies;
  units.cost = largest > 0 ? exponent_of(largest) : 0;
  units.structure = most > 0 ? exponent_of(most) : 0;
  units.forbids = g.max_of(forbids) > 0;
  units.status = g.sum(defect) + (alpha - alpha) == 0 ? Status::converged : Status::nonfinite;
  if (units.status != Status::converged) return units;
  if (units.forbids)
    scale_costs(g, cost, matrix, power_of_two<T>(-units.cost));
  else
    multiply(g, cost, matrix, power_of_two<T>(-units.cost));
  if (units.forbids && !all_have_arcs<G, T>(g, s, cost)) {
    units.status = Status::infeasible;
    return units;
  }
  const T factor = power_of_two<T>(-units.structure);
  multiply<G, T>(g, c.cx, own, factor);
  multiply<G, T>(g, c.cy, other, factor);
  multiply<G, T>(g, c.cyt, other, factor);
  const bool has_linear = largest > 0 && alpha != 1, has_pair = most > 0 && alpha != 0;
  const int of_cost = units.cost + mass;
  const int of_pair = (terms.loss() == Loss::l1 ? 1 : 2) * units.structure + 2 * mass;
  const int linear = of_cost + exponent_of(1 - alpha), pair = of_pair + exponent_of(alpha);
  units.of_linear = linear;  // a term that is 0 throughout has a unit all the same: of absent nodes
  units.of_pair = pair;
  units.result = has_linear && (!has_pair || linear > pair) ? linear : has_pair ? pair : 0;
  if (has_linear && has_pair) {
    const int ahead = linear - pair;
    if (ahead > most_apart<T> || -ahead > most_apart<T>) {
      units.hidden = 256 * power_of_two<T>(-most_apart<T>);
      if (ahead > 0)
        units.of_pair += most_apart<T>;
      else
        units.of_linear += most_apart<T>;
    } else {
      units.of_linear = units.of_pair = units.result;
    }
  }
  if (alpha != 1) units.linear = (1 - alpha) * power_of_two<T>(of_cost - units.of_linear);
  if (alpha != 0) units.pair = alpha * power_of_two<T>(of_pair - units.of_pair);
  return units;
}

/// Whether the larger term is nowhere below 0, for terms that are apart. `cost` is (n, ld).
template <class G, class T>
HN_HD bool never_negative(const G& g, const Shape& s, const FgwUnits<T>& units,
                          const std::type_identity_t<T>* cost) {
  if (units.by_pair()) return true;
  typename G::template Var<T> most = G::splat(T(0));
  HN_ROLLED
  for (int e = 0; e < s.n * s.ld; e += G::width) most = G::max(most, -g.load(cost + e));
  return g.max_of(most) == 0;
}

/// Vertices that later descents are compared with.
constexpr int most_seen = 64;

template <class T>
struct FgwWork {
  Structures<T> c;
  TransportWork<T> transport;
  Vertex<T> found;                 // the start at hand: a vertex, or a coupling without zeros
  Array<T> a, b;                   // masses in units
  Array<T> cost, grad;             // (n, ld)
  Array<T> anchor, plan;           // start coupling; best plan so far, (n, ld)
  Array<T> f, g;                   // duals of the best plan
  Array<T> rough_u, rough_v;       // duals before they are refined
  int atoms, ldk;                  // slots; slot 0 is the anchor
  Array<T> pair;                   // B_a, (atoms, n, ld)
  Vertex<T> vertex;                // vertices of slots 1.., vertex_capacity entries apart
  Array<int> active;               // slots with weight, (atoms)
  Array<std::uint64_t> seen;       // supports of vertices met before, (most_seen)
  Array<T> weight, linear, slope;  // (ldk)
  Array<T> form;                   // Q, (atoms, ldk)
  Array<FgwResult<T>> best;        // one: of all starts so far
  Array<FgwUnits<T>> units;        // one
};

/// Slots kept before atoms are merged into the anchor; beyond these, re-balancing rarely uses more.
HN_HD int atom_slots(const Shape& s) { return s.n + s.m <= 20 ? 16 : 32; }

template <class T>
HN_HD FgwWork<T> take_fgw(Arena& arena, const Shape& s, int width, int atoms) {
  FgwWork<T> w{};
  const std::size_t matrix = static_cast<std::size_t>(s.n) * s.ld;
  w.c = take_structures<T>(arena, s, true);
  w.transport = take_transport<T>(arena, s);
  const std::size_t vertex = vertex_capacity(s);
  w.found = take_vertex<T>(arena, vertex > matrix ? vertex : matrix);
  w.a = arena.take<T>(s.n);
  w.b = arena.take<T>(s.ld);
  w.cost = arena.take_far<T>(matrix);
  w.grad = arena.take<T>(matrix);
  w.anchor = arena.take_far<T>(matrix);
  w.plan = arena.take_far<T>(matrix);
  w.f = arena.take_far<T>(s.n);
  w.g = arena.take_far<T>(s.ld);
  w.rough_u = arena.take_far<T>(s.n);
  w.rough_v = arena.take_far<T>(s.ld);
  w.atoms = atoms;
  w.ldk = round_up(w.atoms, width);
  w.pair = arena.take_far<T>(matrix * w.atoms);
  w.vertex = take_vertex<T>(arena, vertex * w.atoms);
  w.vertex.count = arena.take_far<int>(w.atoms);
  w.active = arena.take<int>(w.atoms);
  w.seen = arena.take_far<std::uint64_t>(most_seen);
  w.weight = arena.take<T>(w.ldk);
  w.linear = arena.take_far<T>(w.ldk);
  w.slope = arena.take<T>(w.ldk);
  w.form = arena.take_far<T>(static_cast<std::size_t>(w.atoms) * w.ldk);
  w.best = arena.take_far<FgwResult<T>>(1);
  w.units = arena.take<FgwUnits<T>>(1);
  return w;
}

/// Lists the entries of a dense coupling (n, ld), row by row; returns their number. For the leader.
template <class T>
HN_HD int list_entries(const Shape& s, const std::type_identity_t<T>* plan, const Vertex<T>& out) {
  int t = 0;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) HN_ROLLED
  for (int j = 0; j < s.m; ++j)
    if (plan[i * s.ld + j] > 0) out.set(t++, i, j, s.ld, plan[i * s.ld + j]);
  return t;
}

template <class G, class Terms, class T>
class Fgw {
  using Var = typename G::template Var<T>;
  static constexpr T huge = Limits<T>::huge;
  /// Entries of a vertex that a GPU waits for together, in registers.
  static constexpr int fetched = one_thread<G, T> ? 1 : sizeof(T) == 4 ? 4 : 2;

 public:
  /// The units are in the work space.
  HN_HD Fgw(const G& g, const Shape& s, const Terms& terms, const FgwWork<T>& w, FgwStops stops)
      : g_(g), s_(s), terms_(terms), w_(w), transport_(g, s, w.transport), stops_(stops) {
    if (g_.leader()) *w_.best = {huge, huge, 0, Status::infeasible};
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

  /// Runs the first `num` of the starts in their fixed order: the coupling `init` if there is one, the cheapest
  /// vertices of the signature and of the linear term, the order-preserving coupling, and the cheapest
  /// vertices of `num_given` costs. load(k, to) fetches `init` (k < 0) or given cost k into `to`, (n, ld). A
  /// start that is none (no coupling, no numbers, a forbidden arc) is the caller's mistake and ends the run; the
  /// order-preserving coupling is passed over where arcs of it are forbidden.
  template <class Load>
  HN_HD void run(int num, bool has_init, int num_given, Load load) {
    const bool several = num > 1;
    HN_ROLLED
    for (int start = has_init ? 0 : 1; num > 0 && start < 4 + num_given; ++start, --num) {
      const bool cheapest = start != 0 && start != 3;
      if (start == 1) {
        signature(w_.grad);
      } else if (start == 2) {
        for (int e = 0; e < s_.n * s_.ld; e += G::width)
          g_.store(w_.grad + e, g_.load(w_.cost + e));
      } else if (start != 3) {
        load(start - 4, w_.grad);
        const T largest = largest_of<G, T>(g_, w_.grad, s_.n * s_.ld);
        if (!(largest - largest == 0)) return fail(Status::nonfinite);
        if (start != 0) {
          multiply<G, T>(g_, w_.grad, s_.n * s_.ld, power_of_two<T>(-exponent_of(largest)));
          if (w_.units->forbids) forbid(w_.grad);
        }
        g_.sync();
        if (start == 0 && !is_coupling(w_.grad)) return fail(Status::infeasible);
      }
      if (cheapest) {
        set_out();
        const bool complete = transport_.solve(w_.grad);
        if (g_.leader()) ++w_.best->iterations;
        if (!complete) return fail(Status::infeasible);
        transport_.extract(w_.found, w_.units->unit);
      } else {
        if (g_.leader()) *w_.found.count = start == 0 ? list_coupling(w_.grad) : list_in_order();
        g_.sync();
        if (w_.units->forbids && is_forbidden_coupling(w_.found)) {
          if (start == 0) return fail(Status::infeasible);
          continue;
        }
      }
      // about half of all starts on real cells repeat one
      const int seen = num_seen();
      if (start != 0 && !is_new(w_.found, seen)) continue;
      met_ = num_seen() + most_seen * 2 * (several ? seen + 1 : 0);
      descend_from(w_.found, cheapest);
    }
  }

  /// Cost whose cheapest vertex matches nodes of like features and like mean structure:
  /// (1 - alpha) cost + alpha times the mean of L(out_i - out'_j) and L(in_i - in'_j). What no pair has is 0 in the
  /// structures.
  HN_HD void signature(T* out) const {
    const Pairs pairs = terms_.pairs();
    const Array<T>&out_other = w_.transport.reach,
          &in_other = w_.transport.price;  // free until then
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var leaving = G::splat(T(0)), entering = G::splat(T(0));
      HN_ROLLED
      for (int l = 0; l < s_.m; ++l) {
        const Var mass = G::splat(w_.b[l] * w_.units->unit);
        leaving += mass * g_.load(w_.c.cyt + l * s_.ld + j0);
        entering += mass * g_.load(w_.c.cy + l * s_.ld + j0);
      }
      g_.store(out_other + j0, leaving);
      g_.store(in_other + j0, entering);
    }
    HN_ROLLED
    for (int first = 0; first < s_.n; first += g_.step()) {
      const int own = first + g_.begin();  // each lane sums a row
      T leaving = 0, entering = 0;
      HN_ROLLED
      for (int k = 0; own < s_.n && k < s_.n; ++k) {
        if (pairs != Pairs::all && k == own) continue;  // 0, but it would be fused with its sum
        if (pairs != Pairs::ordered || k > own)
          leaving += w_.a[k] * w_.units->unit * w_.c.cx[own * s_.ldn + k];
        if (pairs != Pairs::ordered || k < own)
          entering += w_.a[k] * w_.units->unit * w_.c.cx[k * s_.ldn + own];
      }
      HN_ROLLED
      for (int i = first; i < s_.n && i < first + g_.step(); ++i) {
        const Var out_mean = G::splat(g_.total(i == own ? leaving : T(0)));
        const Var in_mean = G::splat(g_.total(i == own ? entering : T(0)));
        HN_ROLLED
        for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
          const Var gap = loss<G>(terms_.loss(), out_mean - g_.load(out_other + j0)) +
                          loss<G>(terms_.loss(), in_mean - g_.load(in_other + j0));
          const Var cost = g_.load(w_.cost + i * s_.ld + j0);
          g_.store(out + i * s_.ld + j0,
                   G::splat(w_.units->linear) * cost + G::splat(w_.units->pair / 2) * gap);
        }
      }
    }
    if (w_.units->dummies.any()) unpair_dummies(out);
    if (w_.units->forbids) forbid(out);
  }

 private:
  /// B(V), (n, ld). No pair has a dummy: what is there of V comes last in the list, and is left out.
  HN_HD void pairs_of(const Vertex<T>& v, T* out) const {
    int count = *v.count;
    if (w_.units->dummies.any()) count = put_dummies_last(v);
    bool kept = false;
    if constexpr (Tabulates<G, T>) {
      kept = terms_.loss() == Loss::l1 && pair_table_.fits(s_);
      if (kept) pair_table_.sum(g_, s_, terms_, w_.c, v, count, out);
    }
    if (!kept) pair_cost<fetched>(g_, s_, terms_, w_.c, v, count, out);
    if (w_.units->dummies.any()) blank_dummies(out);
  }

  /// B of the start, which lies in the anchor, too.
  HN_HD void pairs_of_start(const Vertex<T>& start) const {
    if constexpr (one_thread<G, T>) {
      const bool dense = *start.count > 4 * (s_.n + s_.m);  // where products are quicker
      if (dense && multiplies(s_, terms_) && !w_.units->dummies.any())
        return dense_pair_cost(g_, s_, w_.c, w_.anchor, s_.ld, w_.grad, w_.rough_u, w_.rough_v,
                               w_.pair);
    }
    pairs_of(start, w_.pair);
  }

  /// Returns how many entries of V are no dummies'.
  HN_APART int put_dummies_last(const Vertex<T>& v) const {
    const int rows = s_.n - (w_.units->dummies.row ? 1 : 0);
    const int columns = s_.m - (w_.units->dummies.column ? 1 : 0);
    const int all = *v.count;
    g_.sync();  // all lanes have read the list
    if (g_.leader()) {
      int last = all;
      HN_ROLLED
      for (int t = 0; t < last;) {
        const int i = v.row[t], j = v.col[t];
        if (i < rows && j < columns) {
          ++t;
          continue;
        }
        const T mass = v.mass[t];
        --last;
        v.set(t, v.row[last], v.col[last], s_.ld, v.mass[last]);
        v.set(last, i, j, s_.ld, mass);
      }
    }
    g_.sync();
    int count = 0;
    HN_ROLLED
    while (count < all && v.row[count] < rows && v.col[count] < columns) ++count;
    return count;
  }

  HN_APART void blank_dummies(T* out) const {
    const Dummies dummies = w_.units->dummies;
    const auto last = G::template splat_int<T>(s_.m - (dummies.column ? 1 : 0));
    const Var none = G::splat(T(0));
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const bool alone = dummies.row && i == s_.n - 1;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const Var value = alone ? none : g_.load(out + i * s_.ld + j0);
        g_.store(out + i * s_.ld + j0, G::select(g_.template index<T>(j0) < last, value, none));
      }
    }
  }

  /// What dummies cost in `out`, whose pairs are none.
  HN_APART void unpair_dummies(T* out) const {
    const Dummies dummies = w_.units->dummies;
    const auto last = G::template splat_int<T>(s_.m - (dummies.column ? 1 : 0));
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const bool alone = dummies.row && i == s_.n - 1;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const Var cost = G::splat(w_.units->linear) * g_.load(w_.cost + i * s_.ld + j0);
        const Var value = alone ? cost : g_.load(out + i * s_.ld + j0);
        const auto paired = g_.template index<T>(j0) < last;
        g_.store(out + i * s_.ld + j0, G::select(paired, value, cost));
      }
    }
  }

  /// A result whose terms are apart: each has its unit. Where the larger is 0 the smaller decides, and its unit is that
  /// of the gap; where it is not, all that the smaller can do is to be lost in the rounding of it.
  HN_APART void apart(FgwUnits<T>& units) const {
    const bool floor = never_negative(g_, s_, units, w_.cost);
    g_.sync();  // all lanes have read the last start
    if (g_.leader()) *w_.found.count = list_coupling(w_.plan);
    g_.sync();
    pairs_of(w_.found, w_.grad);
    g_.sync();
    const T linear = w_.units->linear * inner(g_, w_.cost, w_.found);
    const T pair = w_.units->pair / 2 * inner(g_, w_.grad, w_.found);
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

  /// Forbids in `out` the arcs that the costs forbid, each lane its own columns.
  HN_HD void forbid(T* out) const {
    HN_ROLLED
    for (int e = 0; e < s_.n * s_.ld; e += G::width) {
      const Var cost = g_.load(w_.cost + e);
      g_.store(out + e, G::select(is_forbidden<G, T>(cost), cost, g_.load(out + e)));
    }
  }

  HN_HD bool is_forbidden_coupling(const Vertex<T>& v) const {
    int forbidden = 0;
    const int count = *v.count;
    HN_ROLLED
    for (int t = g_.begin(); t < count; t += g_.step())
      forbidden += w_.cost[v.place[t]] > huge / 2 ? 1 : 0;
    return g_.total(static_cast<T>(forbidden)) > 0;
  }

  /// Before the first transport problem, or one that has nothing to do with those before.
  HN_HD void set_out() { transport_.set_out(w_.grad, w_.a, w_.b, w_.units->dummies.both()); }

  HN_HD void fail(Status status) const {
    if (g_.leader()) {
      w_.best->objective = huge;
      w_.best->status = status;
    }
    g_.sync();
  }

  /// Whether a matrix (n, ld) has the masses as its marginals, up to rounding.
  HN_HD bool is_coupling(const T* plan) const {
    const T slack = 2 * Limits<T>::root_epsilon;
    int wrong = 0;
    HN_ROLLED
    for (int k = g_.begin(); k < s_.n + s_.m; k += g_.step()) {
      const bool row = k < s_.n;
      const int j = k - s_.n;
      T rest = (row ? w_.a[k] : w_.b[j]) * w_.units->unit;
      HN_ROLLED
      for (int other = 0; other < (row ? s_.m : s_.n); ++other) {
        const T mass = plan[row ? k * s_.ld + other : other * s_.ld + j];
        wrong += mass >= 0 ? 0 : 1;
        rest -= mass;
      }
      wrong += rest <= slack && -rest <= slack ? 0 : 1;
    }
    return g_.total(static_cast<T>(wrong)) == 0;
  }

  /// Lists a dense coupling (n, ld) in `found`; for the leader.
  HN_HD int list_coupling(const T* plan) const { return list_entries(s_, plan, w_.found); }

  /// Lists the order-preserving coupling (north-west corner rule) in `found`; for the leader.
  HN_HD int list_in_order() const {
    int t = 0, i = 0, j = 0;
    T left_row = w_.a[0], left_col = w_.b[0];
    while (i < s_.n && j < s_.m) {
      const T moved = left_row < left_col ? left_row : left_col;
      if (moved > 0) w_.found.set(t++, i, j, s_.ld, moved * w_.units->unit);
      left_row -= moved;
      left_col -= moved;
      // advance the exhausted side; at the last row or column the other side takes the rest
      if (left_row <= left_col && i + 1 < s_.n) {
        left_row = w_.a[++i];
      } else if (j + 1 < s_.m) {
        left_col = w_.b[++j];
      } else if (i + 1 < s_.n) {
        left_row = w_.a[++i];
      } else {
        break;
      }
    }
    return t;
  }

  HN_HD int num_seen() const { return met_ & (2 * most_seen - 1); }

  /// Notes the support of a coupling, and says whether it is none of the first `among` that were noted. Supports are told
  /// apart by a 64-bit sum of their mixed places.
  HN_HD bool is_new(const Vertex<T>& v, int among) {
    std::uint64_t sum = 0;
    const int count = *v.count;
    HN_ROLLED
    for (int t = g_.begin(); t < count; t += g_.step()) {
      std::uint64_t x = static_cast<std::uint64_t>(v.place[t]) + 0x9e3779b97f4a7c15u;
      x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
      x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
      sum += x ^ (x >> 31);
    }
    sum = g_.total(sum);
    bool fresh = true;
    HN_ROLLED
    for (int k = 0; k < among; ++k) fresh &= w_.seen[k] != sum;
    g_.sync();
    if (fresh && num_seen() < most_seen) {
      if (g_.leader()) w_.seen[num_seen()] = sum;
      ++met_;
    }
    return fresh;
  }

  /// Whether the coupling is a vertex that an earlier descent came by: this one would end where that one did.
  HN_HD bool joins_earlier() {
    return num_active_ == 1 && w_.active[0] > 0 &&
           !is_new(slot(w_.active[0]), met_ / (2 * most_seen) - 1);
  }

  HN_HD void descend_from(const Vertex<T>& start, bool warm) {
    const int matrix = s_.n * s_.ld;
    for (int e = 0; e < matrix; e += G::width) g_.store(w_.anchor + e, G::splat(T(0)));
    for (int e = 0; e < w_.ldk; e += G::width) {
      g_.store(w_.weight + e, G::splat(T(0)));
      g_.store(w_.linear + e, G::splat(T(0)));
    }
    slots_ = 0;
    open_slot();
    g_.sync();
    const int count = *start.count;
    HN_ROLLED
    for (int t = g_.begin(); t < count; t += g_.step()) w_.anchor[start.place[t]] = start.mass[t];
    pairs_of_start(start);
    g_.sync();
    const T linear = inner(g_, w_.cost, start), quadratic = inner(g_, w_.pair, start);
    if (g_.leader()) {
      w_.weight[0] = 1;
      w_.linear[0] = linear;
      w_.form[0] = quadratic;
    }
    g_.sync();
    descend(warm);
  }

  /// The slots that carry weight, in order. The weights sum to 1 again, which many small moves between them
  /// round away from.
  HN_HD void list_active() {
    int count = 0;
    T total = 0;
    HN_ROLLED
    for (int a = 0; a < slots_; ++a) {
      const T weight = w_.weight[a];
      if (!(weight > 0)) continue;
      if (g_.leader()) w_.active[count] = a;
      total += weight;
      ++count;
    }
    num_active_ = count;
    g_.sync();
    if (total == 1) return;
    HN_ROLLED
    for (int a0 = 0; a0 < slots_; a0 += G::width)
      g_.store(w_.weight + a0, g_.load(w_.weight + a0) / G::splat(total));
    g_.sync();
  }

  /// slope_a = d F / d w_a for the atoms in use and slot `also`, huge elsewhere.
  HN_HD void slopes(int also) const {
    HN_ROLLED
    for (int a0 = 0; a0 < slots_; a0 += G::width) {
      Var sum = G::splat(T(0));
      HN_ROLLED
      for (int t = 0; t < num_active_; ++t) {
        const int b = w_.active[t];
        sum += G::splat(w_.weight[b]) * g_.load(w_.form + b * w_.ldk + a0);
      }
      const Var slope =
          G::splat(w_.units->linear) * g_.load(w_.linear + a0) + G::splat(w_.units->pair) * sum;
      const auto used = (g_.load(w_.weight + a0) > G::splat(T(0))) |
                        (g_.template index<T>(a0) == G::template splat_int<T>(also));
      g_.store(w_.slope + a0, G::select(used, slope, G::splat(huge)));
    }
    g_.sync();
  }

  /// out = scale_linear * cost + scale_pair * sum_a weight_a B_a.
  HN_HD void combine(T scale_linear, T scale_pair, T* out) const {
    // in whole blocks, none twice: out may be an atom's B
    constexpr int block = one_thread<G, T> ? 4 : 8;  // rows of lanes that one weight serves
    const int matrix = s_.n * s_.ld;
    int e = 0;
    for (; e + block * G::width <= matrix; e += block * G::width)
      combine_packs<block>(scale_linear, scale_pair, e, out);
    for (; block > 4 && e + 4 * G::width <= matrix; e += 4 * G::width)
      combine_packs<4>(scale_linear, scale_pair, e, out);
    for (; e < matrix; e += G::width) combine_packs<1>(scale_linear, scale_pair, e, out);
  }

  template <int Packs>
  HN_HD void combine_packs(T scale_linear, T scale_pair, int e, T* out) const {
    const std::size_t matrix = static_cast<std::size_t>(s_.n) * s_.ld;  // all atoms: beyond an int
    Var sum[Packs], values[Packs];
    for (int r = 0; r < Packs; ++r) sum[r] = g_.load(w_.cost + e + r * G::width);
    for (int r = 0; r < Packs; ++r) sum[r] = G::splat(scale_linear) * sum[r];
    HN_ROLLED
    for (int t = 0; t < num_active_; ++t) {
      const int a = w_.active[t];
      const Var weight = G::splat(scale_pair * w_.weight[a]);
      const T* pair = w_.pair + a * matrix + e;
      for (int r = 0; r < Packs; ++r) values[r] = g_.load(pair + r * G::width);  // all at once
      for (int r = 0; r < Packs; ++r) sum[r] += weight * values[r];
    }
    for (int r = 0; r < Packs; ++r) g_.store(out + e + r * G::width, sum[r]);
  }

  HN_HD Vertex<T> slot(int a) const {
    const std::size_t at = static_cast<std::size_t>(a) * vertex_capacity(s_);
    const Vertex<T>& all = w_.vertex;
    return {part(all.count, a), part(all.row, at), part(all.col, at), part(all.place, at),
            part(all.mass, at)};
  }

  /// One more slot, with an empty row of the quadratic form.
  HN_HD int open_slot() {
    for (int e = 0; e < w_.ldk; e += G::width)
      g_.store(w_.form + slots_ * w_.ldk + e, G::splat(T(0)));
    return slots_++;
  }

  /// A slot that holds no weight; merges everything into the anchor when all are taken.
  HN_HD int free_slot() {
    if (num_active_ < slots_) HN_ROLLED
    for (int a = 1; a < slots_; ++a)
      if (w_.weight[a] == 0) return a;
    if (slots_ < w_.atoms) return open_slot();
    merge();
    return 1;
  }

  HN_HD void current_plan(T* out) const {
    const int matrix = s_.n * s_.ld;
    const Var weight = G::splat(w_.weight[0]);
    for (int e = 0; e < matrix; e += G::width) g_.store(out + e, weight * g_.load(w_.anchor + e));
    g_.sync();
    HN_ROLLED
    for (int k = 0; k < num_active_; ++k) {
      const int a = w_.active[k];
      if (a == 0) continue;
      const T share = w_.weight[a];
      const Vertex<T> v = slot(a);
      const int count = *v.count;
      // rows and columns of one vertex are distinct places, so lanes do not meet
      HN_ROLLED
      for (int t = g_.begin(); t < count; t += g_.step()) out[v.place[t]] += share * v.mass[t];
      g_.sync();
    }
  }

  HN_HD void merge() {
    current_plan(w_.anchor);
    combine(0, 1, w_.pair);
    T linear = 0, quadratic = 0;
    HN_ROLLED
    for (int k = 0; k < num_active_; ++k) {
      const int a = w_.active[k];
      linear += w_.weight[a] * w_.linear[a];
      HN_ROLLED
      for (int l = 0; l < num_active_; ++l)
        quadratic += w_.weight[a] * w_.weight[w_.active[l]] * w_.form[a * w_.ldk + w_.active[l]];
    }
    g_.sync();
    HN_ROLLED
    for (int a = 1 + g_.begin(); a < w_.atoms; a += g_.step()) w_.weight[a] = 0;
    if (g_.leader()) {
      w_.weight[0] = 1;
      w_.linear[0] = linear;
      w_.form[0] = quadratic;
    }
    g_.sync();
    list_active();
  }

  /// Exact pairwise steps on the weights until their own gap is a tenth of the outer one.
  HN_HD void rebalance(int fresh, T enough) const {
    slopes(fresh);
    HN_ROLLED
    for (int step = 0; step < 4 * (num_active_ + 1); ++step) {
      Var low = G::splat(2 * huge), high = G::splat(2 * huge);
      auto low_at = g_.template index<T>(0), high_at = low_at;
      HN_ROLLED
      for (int a0 = 0; a0 < slots_; a0 += G::width) {
        const auto at = g_.template index<T>(a0);
        const Var slope = g_.load(w_.slope + a0);
        const Var held =
            G::select(g_.load(w_.weight + a0) > G::splat(T(0)), -slope, G::splat(huge));
        low_at = G::select(slope < low, at, low_at);
        low = G::min(low, slope);
        high_at = G::select(held < high, at, high_at);
        high = G::min(high, held);
      }
      const bool single = slots_ <= G::width;
      const MinAt<T> up = single ? g_.template min_at<T>(low) : g_.template min_at<T>(low, low_at);
      const MinAt<T> down =
          single ? g_.template min_at<T>(high) : g_.template min_at<T>(high, high_at);
      const T local = -down.value - up.value;
      if (!(local > 0) || (step > 0 && local <= enough)) break;
      const T* form_up = w_.form + up.index * w_.ldk;
      const T* form_down = w_.form + down.index * w_.ldk;
      const T curvature =
          w_.units->pair * (form_up[up.index] + form_down[down.index] - 2 * form_up[down.index]);
      const T most = w_.weight[down.index], gained = w_.weight[up.index];
      const T exact = curvature > 0 ? local / curvature : huge;
      const T moved = exact < most ? exact : most;
      g_.sync();
      if (g_.leader()) {
        w_.weight[up.index] = gained + moved;
        w_.weight[down.index] = exact < most ? most - moved : T(0);
      }
      const Var scale = G::splat(w_.units->pair * moved);
      HN_ROLLED
      for (int a0 = 0; a0 < slots_; a0 += G::width) {
        const Var change = g_.load(form_up + a0) - g_.load(form_down + a0);
        g_.store(w_.slope + a0, g_.load(w_.slope + a0) + scale * change);
      }
      g_.sync();
    }
  }

  /// warm: the duals at hand are those of a problem of size 1, as this one is.
  HN_HD void descend(bool warm) {
    FgwResult<T> now{huge, huge, 0, Status::max_iter};
    HN_ROLLED
    for (;;) {
      g_.poll(std::int64_t{num_active_ + 1} * s_.n * s_.ld);
      list_active();
      if (met_ >= 2 * most_seen && now.iterations > 0 && joins_earlier()) {
        now.objective = huge;
        break;
      }
      slopes(0);
      T on_plan = 0, linear = 0;
      HN_ROLLED
      for (int k = 0; k < num_active_; ++k) {
        const int a = w_.active[k];
        on_plan += w_.weight[a] * w_.slope[a];
        linear += w_.weight[a] * w_.linear[a];
      }
      now.objective = T(0.5) * (w_.units->linear * linear + on_plan);
      combine(w_.units->linear, w_.units->pair, w_.grad);
      if (w_.units->forbids) forbid(w_.grad);
      if (now.iterations == 0 && !warm) set_out();
      ++now.iterations;
      if (!transport_.solve(w_.grad)) return fail(Status::infeasible);
      const int fresh = free_slot();
      const Vertex<T> v = slot(fresh);
      transport_.extract(v, w_.units->unit);
      const T on_vertex = inner(g_, w_.grad, v);
      now.gap = on_plan - on_vertex;
      const T size = now.objective < 0 ? -now.objective : now.objective;
      // a vertex above the plan is no vertex sought, and its rounding not that of the gap
      const T lower = on_vertex < on_plan ? on_vertex : on_plan;
      const T terms = (on_plan < 0 ? -on_plan : on_plan) + (lower < 0 ? -lower : lower);
      const T enough = T(stops_.tol) * size + 8 * Limits<T>::epsilon * terms;
      if (!(now.gap > enough)) {
        // what is no better than an earlier start needs no proof
        const bool best = now.objective < w_.best->objective;
        if (!best || !improves(fresh, v, on_plan, enough, now)) {
          if (now.gap <= enough) now.status = Status::converged;
          break;
        }
      }
      if (now.iterations >= stops_.max_iter) {
        transport_.settle(w_.grad);
        break;
      }
      add_atom(fresh, v);
      rebalance(fresh, T(0.1) * now.gap);
    }
    const bool better = now.objective < w_.best->objective;
    if (better) {
      current_plan(w_.plan);
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n; i += g_.step()) w_.f[i] = transport_.u()[i];
      HN_ROLLED
      for (int j = g_.begin(); j < s_.m; j += g_.step()) w_.g[j] = w_.transport.v[j];
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

  /// What feasible duals make certain.
  struct Certain {
    T gap;      // at least <grad, T - V> for every coupling V
    T on_plan;  // <grad, T> for the reduced costs that are now in grad
  };

  /// Takes the duals from the costs in grad. The reduced costs are exact to their own size, not to that of the
  /// duals, so that a bound by them is too. `plan` is T.
  HN_HD Certain reduce(T on_plan, const T* plan) const {
    Var bound = G::splat(T(0)), reduced_bound = bound, on_reduced = bound;
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const Var v = g_.load(w_.transport.v + j0);
      Var mass = G::splat(T(0)), sum = mass, over = mass, least = g_.load(w_.grad + j0);
      HN_ROLLED
      for (int i = 0; i < s_.n; ++i) {
        const Var u = G::splat(transport_.u()[i]), both = u + v;
        const Var of_v = both - u,
                  lost = (u - (both - of_v)) + (v - of_v);  // of the sum, by rounding
        const Var cost = g_.load(w_.grad + i * s_.ld + j0);
        const Var reduced = (cost - both) - lost, share = g_.load(plan + i * s_.ld + j0);
        g_.store(w_.grad + i * s_.ld + j0, reduced);
        least = G::min(least, cost);
        over = G::max(over, -reduced);
        sum += share * reduced;
        mass += share;
      }
      bound += mass * least;
      on_reduced += sum;
      reduced_bound += sum + mass * over;
    }
    // column duals alone are feasible, too, and exact where nothing is to be paid
    const T alone = on_plan - g_.sum(bound), both = g_.sum(reduced_bound);
    const T gap = alone < both ? alone : both;
    return {gap < 0 ? T(0) : gap, g_.sum(on_reduced)};
  }

  /// Whether there is a vertex, then in v, below the current coupling although the duals at hand say no. Their sums
  /// are rounded to the size of the largest, which can be far more than the objective: what the bound of the
  /// reduced costs leaves open is solved once more in these.
  HN_APART bool improves(int fresh, const Vertex<T>& v, T on_plan, T enough, FgwResult<T>& now) {
    const auto plan = [&] {  // where the pair costs of the fresh atom are to lie
      return w_.pair + fresh * (static_cast<std::size_t>(s_.n) * s_.ld);
    };
    current_plan(plan());
    transport_.settle(w_.grad);
    const Certain certain = reduce(on_plan, plan());
    now.gap = certain.gap;
    on_plan = certain.on_plan;
    HN_ROLLED
    for (int turn = 0; turn < 2 && now.gap > enough && now.iterations < stops_.max_iter; ++turn) {
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n; i += g_.step()) w_.rough_u[i] = transport_.u()[i];
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width)
        g_.store(w_.rough_v + j0, g_.load(w_.transport.v + j0));
      transport_.cold(w_.grad);
      ++now.iterations;
      if (!transport_.solve(w_.grad)) break;
      transport_.settle(w_.grad);
      transport_.extract(v, w_.units->unit);
      const T below = on_plan - inner(g_, w_.grad, v);
      const bool found = below > enough;
      g_.sync();
      if (found) {
        now.gap = below;
      } else {
        const Certain tighter = reduce(on_plan, plan());
        now.gap = tighter.gap;
        on_plan = tighter.on_plan;
      }
      g_.sync();
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n; i += g_.step()) transport_.u()[i] += w_.rough_u[i];
      HN_ROLLED  // columns that are none keep what closes them
      for (int j = g_.begin(); j < s_.m; j += g_.step()) w_.transport.v[j] += w_.rough_v[j];
      if (found) return true;
    }
    return false;
  }

  HN_HD void add_atom(int fresh, const Vertex<T>& v) const {
    const std::size_t matrix = static_cast<std::size_t>(s_.n) * s_.ld;
    pairs_of(v, w_.pair + fresh * matrix);
    g_.sync();
    const T linear = inner(g_, w_.cost, v);
    HN_ROLLED
    for (int k = 0; k <= num_active_; ++k) {
      const int b = k < num_active_ ? w_.active[k] : fresh;
      const T cross = inner(g_, w_.pair + b * matrix, v);
      if (g_.leader()) {
        w_.form[fresh * w_.ldk + b] = cross;
        w_.form[b * w_.ldk + fresh] = cross;
      }
    }
    if (g_.leader()) w_.linear[fresh] = linear;
    g_.sync();
  }

  const G& g_;
  const Shape& s_;
  const Terms& terms_;
  const FgwWork<T>& w_;
  Transport<G, T> transport_;
  FgwStops stops_;
  int slots_ = 0, num_active_ = 0;
  // Vertices met, and 2 most_seen times one more than those of earlier descents; 0 times: there is one descent.
  int met_ = 0;
  mutable PairTable<G, T> pair_table_;
};

}  // namespace hotnas::HOTNAS_ISA
