// Unbalanced optimal transport without entropy, with Kullback-Leibler penalties, exactly:
//   min <cost, T> + rho_x KL(T 1 | a) + rho_y KL(T' 1 | b)  over  T >= 0;   an infinite rho holds its masses.
//
// Where f_i + g_j <= cost_ij, with equality where T_ij > 0, rows send a_i exp(-f_i / rho_x) and columns take
// b_j exp(-g_j / rho_y), T is optimal. Some arcs are held tight, of which no cycle is made. In each tree of them the duals
// are known but for a level, f + c against g - c, and that at which as much is sent as is taken is a difference of two
// logarithms; what flows over each arc then is one sum. Where that is negative, the arcs carry what they can on the way
// there: the one that runs dry leaves, and its tree falls into two. An arc that costs less than its nodes' duals joins two
// trees, or closes a cycle in one, around which mass goes until another arc of it is dry. The objective falls with
// each arc that enters, so that no set of arcs recurs, and there is nothing to be tuned.
// The first trees are stars: each row and its cheapest column, each column that no row takes and its cheapest row. On
// random costs the arcs that enter are about as many as the nodes.
// In double, whatever the caller's type, as a level is rounded to the size of rho, which may be far above the costs.
// Complexity: O(n m) per arc that enters for small problems, as in simplex.h, and one exponential per node of its tree.
#pragma once

#include "forest.h"

namespace hotnas::HOTNAS_ISA {

struct KlState {
  double top_x, top_y;  // the largest logarithms of what rows and columns would send
  double slack;         // what is rounding of a reduced cost, of the size of the duals
  int count;            // nodes of the tree at hand
  int waiting;          // trees that are to be settled
  int entered;          // the node whose arc is the last that joined two trees
  int row;              // the first that is looked at
};

/// Nodes are columns, (ld), and rows behind them, (ldn).
struct KlWork : Forest<double> {
  Array<double> cost;  // (n, ld)
  Array<double> mass, log_mass, dual;
  Array<double> goal;   // what a node would send, then what its arc would carry
  Array<double> share;  // by the nodes of a tree
  Array<int> root, order, waiting;
  Array<KlState> state;  // one
};

HN_HD KlWork take_kl(Arena& arena, const Shape& s) {
  KlWork w{};
  const std::size_t nodes = static_cast<std::size_t>(s.ld) + s.ldn;
  take_forest<double>(arena, nodes, w);
  w.cost = arena.take_far<double>(static_cast<std::size_t>(s.n) * s.ld);
  w.mass = arena.take_far<double>(nodes);
  w.log_mass = arena.take<double>(nodes);
  w.dual = arena.take<double>(nodes);
  w.goal = arena.take<double>(nodes);
  w.share = arena.take<double>(nodes);
  w.root = arena.take<int>(nodes);
  w.order = arena.take<int>(nodes);
  w.waiting = arena.take<int>(nodes);
  w.state = arena.take<KlState>(1);
  return w;
}

/// Weights of the penalties: inverse, 0 where masses are held.
struct KlWeights {
  double inverse_x, inverse_y;
};

template <class G>
class KlTransport {
  using Var = typename G::template Var<double>;
  static constexpr double huge = Limits<double>::huge;
  static constexpr double most_log = 400;

 public:
  /// Costs and masses are in the work space, of size 1, with zeros in the padding.
  HN_HD KlTransport(const G& g, const Shape& s, const KlWork& w, KlWeights weights)
      : g_(g), s_(s), w_(w), weights_(weights) {}

  HN_HD int pivots() const { return pivots_; }

  /// Leaves the plan as flows and the duals; false where `most` arcs were not enough.
  HN_HD bool solve(int most) {
    begin();
    settle();
    HN_ROLLED
    for (;;) {
      const MinAt<double> entering = cheapest_arc<G, double>(
          g_, s_, w_.cost, w_.dual, -w_.state->slack * size(), w_.state->row);
      g_.sync();  // all lanes have read the duals
      if (entering.index < 0) return true;
      if (pivots_ == most) return false;
      ++pivots_;
      g_.poll(std::int64_t{s_.n} * s_.ld);
      if (g_.leader()) enter(entering.index / s_.ld, entering.index % s_.ld);
      settle();
    }
  }

  /// What the plan costs, and the duals, made feasible, prove.
  struct Value {
    double primal, dual, size;
  };

  HN_HD Value value() const {
    g_.sync();
    const auto columns = G::template splat_int<double>(s_.m);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var most = g_.load(w_.dual + j0);
      HN_ROLLED
      for (int i = 0; i < s_.n; ++i)
        most = G::min(most, g_.load(w_.cost + i * s_.ld + j0) - G::splat(w_.dual[s_.ld + i]));
      const auto real = g_.template index<double>(j0) < columns;
      g_.store(w_.dual + j0, G::select(real, most, G::splat(0.0)));
    }
    double paid = 0, size = 0;
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; ++x) {
      if (!is_node(x) || w_.parent[x] < 0) continue;
      const double part = w_.flow[x] * cost_of(x, w_.parent[x]);
      paid += part;
      size += part < 0 ? -part : part;
    }
    if (g_.leader()) {
      HN_ROLLED
      for (int x = 0; x < s_.ld + s_.ldn; ++x) w_.goal[x] = 0;
      HN_ROLLED
      for (int x = 0; x < s_.ld + s_.n; ++x) {
        if (!is_node(x) || w_.parent[x] < 0) continue;
        w_.goal[x] += w_.flow[x];
        w_.goal[w_.parent[x]] += w_.flow[x];
      }
    }
    g_.sync();
    double proved = 0;
    add_side(s_.ld, s_.n, s_.ldn, weights_.inverse_x, paid, proved, size);
    add_side(0, s_.m, s_.ld, weights_.inverse_y, paid, proved, size);
    return {paid, proved, size + (paid < 0 ? -paid : paid)};
  }

  HN_HD bool is_node(int x) const { return x < s_.m || x >= s_.ld; }

 private:
  HN_HD double cost_of(int x, int parent) const {
    return w_.cost[x < s_.ld ? (parent - s_.ld) * s_.ld + x : (x - s_.ld) * s_.ld + parent];
  }

  /// The largest dual.
  HN_HD double size() const {
    Var most = G::splat(0.0);
    const auto columns = G::template splat_int<double>(s_.m),
               rows = G::template splat_int<double>(s_.n);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const auto real = g_.template index<double>(j0) < columns;
      most = G::max(most, G::select(real, G::abs(g_.load(w_.dual + j0)), most));
    }
    HN_ROLLED
    for (int i0 = 0; i0 < s_.ldn; i0 += G::width) {
      const auto real = g_.template index<double>(i0) < rows;
      most = G::max(most, G::select(real, G::abs(g_.load(w_.dual + s_.ld + i0)), most));
    }
    return g_.max_of(most);
  }

  /// x log x - x + 1, exact to its own size also near 1, which it is where masses are all but met.
  HN_HD static Var lost(Var x) {
    const Var one = G::splat(1.0), none = G::splat(0.0), u = x - one;
    const Var near = u * u * (G::splat(1.0 / 2) - u * (G::splat(1.0 / 6) - u * G::splat(1.0 / 12)));
    const Var far = x * G::log(G::select(x > none, x, one)) - u;
    return G::select(G::abs(u) < G::splat(1e-4), near, far);
  }

  /// 1 - exp(-z), likewise; -infinity where next to no number is as large.
  HN_HD static Var sent(Var z) {
    const Var near =
        z - z * z * (G::splat(1.0 / 2) - z * (G::splat(1.0 / 6) - z * G::splat(1.0 / 24)));
    const Var far =
        G::select(z < G::splat(-700.0), G::splat(-double(INFINITY)), G::splat(1.0) - G::exp(-z));
    return G::select(G::abs(z) < G::splat(1e-4), near, far);
  }

  /// The penalties of a side, and what its duals prove.
  HN_HD void add_side(int from, int count, int padded, double inverse, double& paid, double& proved,
                      double& size) const {
    const Var one = G::splat(1.0), none = G::splat(0.0);
    const auto last = G::template splat_int<double>(count);
    Var of_plan = none, of_duals = none, total = none;
    HN_ROLLED
    for (int x0 = 0; x0 < padded; x0 += G::width) {
      const auto real = g_.template index<double>(x0) < last;
      const Var mass = G::select(real, g_.load(w_.mass + from + x0), one);
      const Var dual = G::select(real, g_.load(w_.dual + from + x0), none);
      total += G::select(real, mass, none);
      if (inverse == 0) {
        of_duals += G::select(real, dual * mass, none);
        continue;
      }
      const Var moved = G::select(real, g_.load(w_.goal + from + x0), one);
      of_plan += G::select(real, mass * lost(moved / mass), none);
      of_duals += G::select(real, mass * sent(dual * G::splat(inverse)), none);
    }
    const double weight = inverse == 0 ? 1 : 1 / inverse;
    paid += weight * g_.sum(of_plan);
    proved += weight * g_.sum(of_duals);
    // masses that could be met all are, up to a rounding per node, which the penalty squares
    const double roundings = s_.n + s_.m;
    if (inverse > 0)
      size += roundings * roundings * Limits<double>::epsilon * weight * g_.sum(total);
  }

  /// The first trees, without mass.
  HN_HD void begin() const {
    const auto last = G::template splat_int<double>(s_.m);
    HN_ROLLED
    for (int x0 = 0; x0 < s_.ld + s_.ldn; x0 += G::width)
      g_.store(w_.log_mass + x0, G::log(g_.load(w_.mass + x0)));
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      Var best = G::splat(2 * huge);
      auto at = g_.template index<double>(0);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const auto column = g_.template index<double>(j0);
        const Var value = G::select(column < last, g_.load(w_.cost + i * s_.ld + j0), best);
        at = G::select(value < best, column, at);
        best = G::min(best, value);
      }
      const int j = g_.template min_at<double>(best, at).index;
      if (g_.leader()) w_.order[i] = j;
    }
    g_.sync();
    if (g_.leader()) plant();
    HN_ROLLED
    for (int j = s_.m + g_.begin(); j < s_.ld; j += g_.step()) w_.dual[j] = -INFINITY;
  }

  /// For the leader, as all that follows but `settle`.
  HN_HD void plant() const {
    KlState& state = *w_.state;
    state = {0, 0, 16 * Limits<double>::epsilon, 0, 0, -1, 0};
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; ++x) {
      w_.parent[x] = w_.child[x] = w_.next[x] = w_.last[x] = -1;
      w_.flow[x] = 0;
    }
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) hang(s_.ld + i, w_.order[i]);
    HN_ROLLED
    for (int j = 0; j < s_.m; ++j) {
      if (w_.child[j] >= 0 || w_.parent[j] >= 0) continue;
      int cheapest = 0;
      HN_ROLLED
      for (int i = 1; i < s_.n; ++i)
        if (w_.cost[i * s_.ld + j] < w_.cost[cheapest * s_.ld + j]) cheapest = i;
      const int x = s_.ld + cheapest, taken = w_.parent[x];
      if (taken >= 0) {  // the row becomes the middle of a star
        w_.unhang(x, taken);
        w_.parent[x] = w_.next[x] = w_.last[x] = -1;
        if (w_.child[taken] < 0) hang(taken, x);
      }
      hang(j, x);
    }
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; ++x)
      if (is_node(x) && w_.parent[x] < 0) wait(x);
  }

  HN_HD void hang(int x, int parent) const {
    w_.parent[x] = parent;
    w_.hang(x, parent);
  }

  HN_HD void wait(int root) const { w_.waiting[w_.state->waiting++] = root; }

  HN_HD void enter(int i, int j) const {
    const int x = s_.ld + i, rows = rows_at_once(s_);
    w_.state->row = i / rows * rows;
    if (w_.root[x] == w_.root[j]) {
      w_.exchange(s_.ld, i, j);
      w_.state->entered = -1;
    } else {
      w_.turn(j, w_.root[j], x, 0.0);
      w_.state->entered = j;
    }
    wait(w_.root[x]);
  }

  /// Levels and flows of the trees that wait. On all lanes.
  HN_HD void settle() const {
    HN_ROLLED
    for (;;) {
      g_.sync();
      if (g_.leader()) list();
      g_.sync();
      const int count = w_.state->count;
      HN_ROLLED
      for (int t0 = 0; t0 < count; t0 += G::width)
        g_.store(w_.share + t0, G::exp(g_.load(w_.share + t0)));
      g_.sync();
      if (count == 0) return;
      if (g_.leader()) level();
    }
  }

  /// The nodes of a tree that waits, their duals at level 0, and logarithms of what they would send then, less the
  /// largest of their side.
  HN_HD void list() const {
    KlState& state = *w_.state;
    state.count = 0;
    if (state.waiting == 0) return;
    const int root = w_.waiting[--state.waiting];
    double top_x = -huge, top_y = -huge;
    w_.order[0] = root;
    w_.dual[root] = 0;
    w_.depth[root] = 0;
    int count = 1;
    HN_ROLLED
    for (int t = 0; t < count; ++t) {
      const int x = w_.order[t], below = w_.depth[x] + 1;
      const double dual = w_.dual[x];
      w_.root[x] = root;
      if (x < s_.ld) {
        const double sent = w_.log_mass[x] - dual * weights_.inverse_y;
        w_.share[t] = sent;
        top_y = sent > top_y ? sent : top_y;
      } else {
        const double sent = w_.log_mass[x] - dual * weights_.inverse_x;
        w_.share[t] = sent;
        top_x = sent > top_x ? sent : top_x;
      }
      HN_ROLLED
      for (int y = w_.child[x]; y >= 0; y = w_.next[y]) {
        w_.dual[y] = cost_of(y, x) - dual;
        w_.depth[y] = below;
        w_.order[count++] = y;
      }
    }
    HN_ROLLED
    for (int t = 0; t < count; ++t) w_.share[t] -= w_.order[t] < s_.ld ? top_y : top_x;
    state.top_x = top_x;
    state.top_y = top_y;
    state.count = count;
  }

  /// The level, and what then flows; where that cannot be, the tree falls into two, which wait.
  HN_HD void level() const {
    KlState& state = *w_.state;
    const int count = state.count;
    double of_x = 0, of_y = 0;
    HN_ROLLED
    for (int t = 0; t < count; ++t) (w_.order[t] < s_.ld ? of_y : of_x) += w_.share[t];
    const double log_x = state.top_x + ScalarLanes::log(of_x);
    const double log_y = state.top_y + ScalarLanes::log(of_y);
    const double level = (log_x - log_y) / (weights_.inverse_x + weights_.inverse_y);
    // as much is sent as is taken, of masses that are held all; what no double holds can only be on the way
    const double log_moved = weights_.inverse_y == 0 ? log_y : log_x - level * weights_.inverse_x;
    const double moved = ScalarLanes::exp(log_moved < most_log ? log_moved : most_log);
    of_x = moved / of_x;
    of_y = moved / of_y;
    HN_ROLLED
    for (int t = 0; t < count; ++t) {
      const int x = w_.order[t];
      const bool column = x < s_.ld;
      w_.dual[x] += column ? -level : level;
      w_.goal[x] = w_.share[t] * (column ? of_y : of_x);
    }
    // nodes that send next to nothing beside others take part as if they sent nothing
    const double noise = Limits<double>::epsilon * count * moved;
    double part = 1;
    int dry = -1;
    HN_ROLLED
    for (int t = count - 1; t > 0; --t) {
      const int x = w_.order[t];
      w_.goal[w_.parent[x]] -= w_.goal[x];
      if (w_.goal[x] < -noise) {
        const double reached = w_.flow[x] / (w_.flow[x] - w_.goal[x]);
        if (dry < 0 || reached < part) {
          part = reached;
          dry = x;
        }
      }
    }
    HN_ROLLED
    for (int t = 1; t < count; ++t) {
      const int x = w_.order[t];
      const double flow = dry < 0 ? w_.goal[x] : w_.flow[x] + part * (w_.goal[x] - w_.flow[x]);
      w_.flow[x] = flow > 0 ? flow : 0;
    }
    if (dry < 0) return;
    if (dry == state.entered && part == 0) {  // it pays by less than is rounding
      state.slack *= 2;
      state.entered = -1;
    }
    w_.unhang(dry, w_.parent[dry]);
    w_.parent[dry] = w_.next[dry] = w_.last[dry] = -1;
    w_.flow[dry] = 0;
    wait(w_.order[0]);
    wait(dry);
  }

  const G& g_;
  const Shape& s_;
  const KlWork& w_;
  KlWeights weights_;
  int pivots_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
