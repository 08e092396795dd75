// Exact optimal transport between measures of any masses, by the network simplex.
//
// min <cost, T>  over  T >= 0, T 1 = a, T' 1 = b;   u_i + v_j <= cost_ij, equality where T_ij > 0.
//
// The basis is a tree of n + m nodes: column j is node j, row i is node ld + i, the last row its root. Each other node
// knows its parent and what flows between the two, always from the row to the column. An arc that costs less than its
// nodes' duals enters, mass goes around the cycle that it closes, and what runs dry leaves. Of several that do, the last
// one on the way around from the cycle's top, so that from every node mass could still be sent up to the root, and no
// bases recur where costs and masses tie (Cunningham, A network simplex method, 1976).
// A tree stays feasible whatever the costs are: between the problems of conditional gradient it is kept, and few arcs
// are exchanged. The first tree is that of the cheapest open column of each row in turn. A forbidden arc in it counts as
// dearer than any path until it carries nothing; then it leaves, or stays where no path leads around it.
// Complexity: O(n m) per pivot for small problems, whose costs are all looked at; O(n + m) and the rows looked at, in
// turn, for others.
#pragma once

#include "forest.h"

namespace hotnas::HOTNAS_ISA {

/// What is known of a tree, where no register holds it.
template <class T>
struct TreeState {
  T size;        // of the duals
  T dust, lost;  // masses that are rounding: of a node, of all
  T far;         // what a forbidden arc of the tree costs
  int root;
  int row;   // the first that is looked at
  int left;  // forbidden arcs that carry mass
  T least;   // what an arc in the place of one costs, and its nodes
  int from, to;
  int pivots, most, since;  // in all, at most, and since duals and flows were renewed
  int forbids;              // whether there may be a forbidden arc in the tree
};

template <class T>
struct SimplexWork : Forest<T> {
  Array<T> dual;     // of columns, (ld), and of rows behind them, (n)
  Array<T> mass;     // what is moved of each node's
  Array<int> order;  // nodes of a subtree, parents first
  Array<T> demand,
      closed;  // (ld), of the first tree: what is to come; less the duals, huge where full
  Array<TreeState<T>> state;  // one

  /// Duals of rows, (n): behind the columns of the problem at hand, which may be fewer than there is room for.
  HN_HD Array<T> dual_of_rows(const Shape& s) const { return part(dual, s.ld); }
};

template <class T>
HN_HD SimplexWork<T> take_simplex(Arena& arena, const Shape& s) {
  SimplexWork<T> w{};
  const std::size_t nodes = static_cast<std::size_t>(s.ld) + s.n;
  w.dual = arena.take<T>(nodes);
  take_forest<T>(arena, nodes, w);
  w.mass = arena.take_far<T>(nodes);
  w.order = arena.take<int>(nodes);
  w.demand = arena.take<T>(s.ld);
  w.closed = arena.take<T>(s.ld);
  w.state = arena.take<TreeState<T>>(1);
  return w;
}

/// Whether a cost forbids its arc.
template <class G, class T>
HN_HD auto is_forbidden(typename G::template Var<T> cost) {
  return cost > G::splat(Limits<T>::huge / 2);
}

/// A group whose lanes are one thread may keep a tree in a way of its own where n and m are no more than its lanes.
template <class G, class T>
concept HasSmallTree = requires { typename G::template SmallTree<T>; };

struct NoSmallTree {};
template <class G, class T>
struct SmallTreeOf {
  using type = NoSmallTree;
};
template <class G, class T>
  requires HasSmallTree<G, T>
struct SmallTreeOf<G, T> {
  using type = typename G::template SmallTree<T>;
};

template <class G, class T>
class Simplex {
  using Var = typename G::template Var<T>;
  using Int = typename G::template Int<T>;
  static constexpr T huge = Limits<T>::huge;

 public:
  HN_HD Simplex(const G& g, const Shape& s, const SimplexWork<T>& w) : g_(g), s_(s), w_(w) {}

  HN_HD bool has_basis() const { return has_basis_; }
  HN_HD int pivots() const { return has_basis_ ? w_.state->pivots : 0; }

  /// The first tree, of masses a (n), b (m), which stay. Each row in turn fills its cheapest open columns, beside the
  /// column duals at hand, and the last row the others; what is exhausted is closed and hangs from the other node, the
  /// column where both are, so that arcs without mass lead up from rows.
  HN_HD void begin(const T* cost, const T* a, const T* b) {
    g_.sync();  // costs and duals are complete
    if (g_.leader()) take_masses(a, b);
    const auto real = G::template splat_int<T>(s_.m);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const auto open = g_.template index<T>(j0) < real;
      g_.store(w_.closed + j0, G::select(open, -g_.load(w_.dual + j0), G::splat(2 * huge)));
    }
    HN_ROLLED
    for (int i = 0; i < s_.n - 1; ++i) {
      HN_ROLLED
      for (;;) {
        g_.sync();  // all lanes know what is open
        const int j = cheapest_open(cost, i);
        const bool fills = w_.demand[j] <= w_.mass[s_.ld + i] && w_.state->left > 1;
        g_.sync();  // all lanes have read it
        if (g_.leader()) {
          const int x = fills ? j : s_.ld + i;
          join(cost, i, j, x, fills ? s_.ld + i : j);
          if (fills) --w_.state->left;
        }
        if (!fills) break;
        close(j);
      }
    }
    g_.sync();
    if (g_.leader()) plant(cost);
    HN_ROLLED
    for (int j = s_.m + g_.begin(); j < s_.ld; j += g_.step()) w_.dual[j] = -huge;
    has_basis_ = true;
    g_.sync();
    if constexpr (HasSmallTree<G, T>) {
      // masses that are whole: what flows is exact, in whatever order it is added up
      if (s_.ld == G::width && s_.ldn == G::width && are_equal(a, s_.n) && are_equal(b, s_.m)) {
        renew(cost, false);
        small_tree_.take(s_.n, s_.m, w_.order, w_.parent, w_.flow);
      }
    }
  }

  /// After `begin`: solves for its masses; leaves duals and the tree. Returns false where forbidden arcs cannot be spared.
  HN_HD bool solve(const T* cost) {
    if constexpr (HasSmallTree<G, T>)
      if (small_tree_.grown()) return solve_small(cost);
    g_.sync();  // the costs are complete
    if (g_.leader()) {
      w_.state->most = w_.state->pivots + most_pivots();
      w_.state->since = 0;
      renew(cost, false);
    }
    g_.sync();
    HN_ROLLED
    for (;;) {
      const MinAt<T> entering = cheapest(cost, w_.dual);
      g_.sync();  // all lanes have read the duals
      if (entering.index >= 0) {
        g_.poll(std::int64_t{s_.n} * s_.ld);  // what a search visits at most
        if (g_.leader()) {
          ++w_.state->pivots;
          const int i = entering.index / s_.ld;
          const int rows = rows_at_once(s_);
          w_.state->row = i / rows * rows;
          // by Cunningham's rule, as every cycle's top is on the way to the root
          shift(w_.exchange(s_.ld, i, entering.index % s_.ld), entering.value);
          if (++w_.state->since > most_since + s_.n + s_.m) {
            w_.state->since = 0;
            renew(cost, true);
          }
        }
        g_.sync();
        if (w_.state->pivots == w_.state->most) return false;
      } else if (w_.state->forbids || w_.state->since > most_since) {
        g_.sync();  // all lanes have read this
        if (g_.leader()) {
          w_.state->left = 0;
          if (w_.state->forbids) spare_forbidden(cost);
          w_.state->forbids = 0;
          w_.state->since = 0;
          w_.state->far = 0;  // what is left of forbidden arcs is nowhere in the way
          renew(cost, true);
        }
        g_.sync();
        if (w_.state->left > 0) return false;
      } else {
        return true;
      }
    }
  }

  /// Duals from the tree alone, and those of rows feasible up to one rounding: u_i = min_j (cost_ij - v_j).
  HN_HD void settle(const T* cost) {
    bool renewed = false;
    if constexpr (HasSmallTree<G, T>) {
      renewed = small_tree_.grown();
      if (renewed) renew_small(cost);
    }
    if (!renewed && g_.leader()) renew(cost, false);
    g_.sync();
    settle_rows<G, T>(g_, s_, cost, w_.dual);
  }

  /// put(t, row, column, mass) for each entry of the coupling; returns their number. For the leader.
  template <class Put>
  HN_HD int list(Put put) const {
    if constexpr (HasSmallTree<G, T>)
      if (small_tree_.grown()) return small_tree_.list(w_.state->dust, put);
    int count = 0;
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; x = after(x)) {
      if (x == w_.state->root || !(w_.flow[x] > w_.state->dust)) continue;
      const int p = w_.parent[x];
      put(count++, (x < s_.ld ? p : x) - s_.ld, x < s_.ld ? x : p, w_.flow[x]);
    }
    return count;
  }

 private:
  /// Pivots that may add to duals and flows, of those that end a solution.
  static constexpr int most_since = 16;

  HN_HD static bool are_equal(const T* masses, int count) {
    bool equal = true;
    for (int k = 1; k < count; ++k) equal &= masses[k] == masses[0];
    return equal;
  }

  /// As `solve`, by the small tree.
  bool solve_small(const T* cost)
    requires HasSmallTree<G, T>
  {
    TreeState<T>& state = *w_.state;
    const int most = state.pivots + most_pivots();
    state.since = 0;
    state.size = small_tree_.renew(cost, state.far);
    for (;;) {
      const MinAt<T> entering = cheapest(cost, small_tree_.duals());
      if (entering.index >= 0) {
        g_.poll(std::int64_t{s_.n} * s_.ld);
        ++state.pivots;
        small_tree_.exchange(entering.index / G::width, entering.index % G::width, entering.value);
        if (++state.since > most_since + s_.n + s_.m) renew_as_lists(cost, false);
        if (state.pivots == most) return false;
      } else if (state.forbids || state.since > most_since) {
        if (!renew_as_lists(cost, true)) return false;
      } else {
        small_tree_.hang();
        take_small_duals();
        return true;
      }
    }
  }

  /// Duals and flows anew, and forbidden arcs spared or not, which is seldom. Returns false where they cannot be.
  HN_APART bool renew_as_lists(const T* cost, bool spare)
    requires HasSmallTree<G, T>
  {
    TreeState<T>& state = *w_.state;
    state.since = 0;
    small_tree_.hang();
    small_tree_.give(w_.parent, w_.flow);
    for (int x = 0; x < s_.ld + s_.n; ++x) w_.child[x] = -1;
    for (int x = 0; x < s_.ld + s_.n; x = after(x))
      if (x != state.root) w_.hang(x, w_.parent[x]);
    if (spare) {
      state.left = 0;
      if (state.forbids) {
        renew(cost, false);  // how deep nodes lie
        take_small_duals();
        spare_forbidden(cost);
      }
      state.forbids = 0;
      state.far = 0;
    }
    renew(cost, true);
    if (spare && state.left > 0) return false;
    small_tree_.take(s_.n, s_.m, w_.order, w_.parent, w_.flow);
    small_tree_.renew(cost, state.far);
    return true;
  }

  void renew_small(const T* cost)
    requires HasSmallTree<G, T>
  {
    w_.state->size = small_tree_.renew(cost, w_.state->far);
    take_small_duals();
  }

  void take_small_duals() const
    requires HasSmallTree<G, T>
  {
    for (int x = 0; x < s_.ld + s_.n; ++x) w_.dual[x] = small_tree_.duals()[x];
  }

  /// Far more than are ever needed: a bound on the time that nobody can say more of.
  HN_HD int most_pivots() const {
    const int nodes = s_.n + s_.m;
    return nodes < 1 << 14 ? 4 * nodes * nodes : 1 << 30;
  }

  HN_HD T cost_of(const T* cost, int x, int parent) const {
    const T value = cost[x < s_.ld ? (parent - s_.ld) * s_.ld + x : (x - s_.ld) * s_.ld + parent];
    return value > huge / 2 ? w_.state->far : value;
  }

  /// What the first tree begins with. For the leader, like what follows of it.
  HN_HD void take_masses(const T* a, const T* b) const {
    T largest = 0, total = 0;
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      w_.mass[s_.ld + i] = a[i];
      largest = a[i] > largest ? a[i] : largest;
      total += a[i];
    }
    HN_ROLLED
    for (int j = 0; j < s_.m; ++j) {
      w_.demand[j] = b[j];
      largest = b[j] > largest ? b[j] : largest;
    }
    TreeState<T>& state = *w_.state;
    state.dust = 2 * Limits<T>::epsilon * largest;
    state.lost = (s_.n + s_.m) * Limits<T>::epsilon * total;
    state.far = 64 * T(s_.n + s_.m);  // more than a path of other arcs, whose costs are of size 1
    state.root = s_.ld + s_.n - 1;
    state.row = 0;
    state.left = s_.m;
    state.pivots = 0;
    state.forbids = 0;
  }

  /// Row i sends what column j takes; node x hangs from its parent.
  HN_HD void join(const T* cost, int i, int j, int x, int parent) const {
    const T supply = w_.mass[s_.ld + i], demand = w_.demand[j];
    const T moved = supply < demand ? supply : demand;
    if (cost[i * s_.ld + j] > huge / 2) w_.state->forbids = 1;
    w_.mass[s_.ld + i] = supply - moved;
    w_.demand[j] = demand - moved;
    w_.parent[x] = parent;
    w_.flow[x] = moved;
  }

  /// The last row, and what hangs from what.
  HN_HD void plant(const T* cost) const {
    const int root = s_.ld + s_.n - 1;
    HN_ROLLED
    for (int j = 0; j < s_.m; ++j)
      if (w_.closed[j] < huge) join(cost, s_.n - 1, j, j, root);
    w_.parent[root] = -1;
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; ++x) {
      w_.child[x] = -1;
      w_.mass[x] = 0;
    }
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; x = after(x)) {
      if (x == root) continue;
      const int parent = w_.parent[x];
      w_.hang(x, parent);
      w_.mass[x] += w_.flow[x];
      w_.mass[parent] += w_.flow[x];
    }
  }

  HN_HD int cheapest_open(const T* cost, int i) const {
    Var best = g_.load(cost + i * s_.ld) + g_.load(w_.closed + 0);
    Int at = g_.template index<T>(0);
    HN_ROLLED
    for (int j0 = G::width; j0 < s_.ld; j0 += G::width) {
      const Var value = g_.load(cost + i * s_.ld + j0) + g_.load(w_.closed + j0);
      at = G::select(value < best, g_.template index<T>(j0), at);
      best = G::min(best, value);
    }
    const bool single = s_.ld == G::width;
    return (single ? g_.template min_at<T>(best) : g_.template min_at<T>(best, at)).index;
  }

  /// By the lane that has column j.
  HN_HD void close(int j) const {
    const int from = j / G::width * G::width;
    const auto here = g_.template index<T>(from) == G::template splat_int<T>(j);
    g_.store(w_.closed + from, G::select(here, G::splat(2 * huge), g_.load(w_.closed + from)));
  }

  /// The node after x.
  HN_HD int after(int x) const { return x == s_.m - 1 ? s_.ld : x + 1; }

  /// What costs less than the duals of its nodes by most, of the rows that are looked at.
  HN_HD MinAt<T> cheapest(const T* cost, const Array<T>& dual) const {
    // a cycle's cost is rounded by as much as its nodes' duals are
    const T roundings = s_.n + s_.m < 16 ? T(s_.n + s_.m) : T(16);
    const T bound = -roundings * Limits<T>::epsilon * w_.state->size;
    return cheapest_arc<G, T>(g_, s_, cost, dual, bound, w_.state->row);
  }

  /// Duals that make all arcs of the tree tight; and flows from the masses, rather than from the last ones. For the
  /// leader, as is all that follows.
  HN_HD void renew(const T* cost, bool flows) const {
    const int root = w_.state->root;
    w_.order[0] = root;
    w_.dual[root] = 0;
    w_.depth[root] = 0;
    T size = 0;
    int count = 1;
    HN_ROLLED
    for (int t = 0; t < count; ++t) {
      const int x = w_.order[t], below = w_.depth[x] + 1;
      const T dual = w_.dual[x];
      HN_ROLLED
      for (int y = w_.child[x]; y >= 0; y = w_.next[y]) {
        const T value = cost_of(cost, y, x) - dual;
        w_.dual[y] = value;
        w_.depth[y] = below;
        w_.order[count++] = y;
        size = value > size ? value : -value > size ? -value : size;
      }
    }
    w_.state->size = size;
    if (!flows) return;
    HN_ROLLED
    for (int t = 0; t < count; ++t) w_.flow[w_.order[t]] = w_.mass[w_.order[t]];
    HN_ROLLED
    for (int t = count - 1; t > 0; --t) {
      const int x = w_.order[t];
      if (!(w_.flow[x] > 0)) w_.flow[x] = 0;
      w_.flow[w_.parent[x]] -= w_.flow[x];
    }
  }

  /// Duals below node x: nodes of its side by `more`, the others by -more; and how deep they lie.
  HN_HD void shift(int x, T more) const {
    const bool column = x < s_.ld;
    w_.order[0] = x;
    w_.depth[x] = w_.depth[w_.parent[x]] + 1;
    int count = 1;
    HN_ROLLED
    for (int t = 0; t < count; ++t) {
      const int y = w_.order[t], below = w_.depth[y] + 1;
      w_.dual[y] += (y < s_.ld) == column ? more : -more;
      HN_ROLLED
      for (int z = w_.child[y]; z >= 0; z = w_.next[z]) {
        w_.depth[z] = below;
        w_.order[count++] = z;
      }
    }
  }

  /// Forbidden arcs without mass leave the tree for the cheapest of the arcs that a lower cost of theirs would make
  /// tight. Where there is none, nothing can be sent around by them. Notes how many carry mass.
  HN_APART void spare_forbidden(const T* cost) const {
    HN_ROLLED
    for (int x = 0; x < s_.ld + s_.n; x = after(x)) {
      const int parent = w_.parent[x];
      if (parent < 0) continue;
      const int row = (x < s_.ld ? parent : x) - s_.ld, column = x < s_.ld ? x : parent;
      if (!(cost[row * s_.ld + column] > huge / 2)) continue;
      if (w_.flow[x] > w_.state->lost) {
        ++w_.state->left;
        continue;
      }
      w_.mass[s_.ld + row] -= w_.flow[x];  // rounding
      w_.mass[column] -= w_.flow[x];
      shift(x, T(0));
      // nodes below x, and no others, lie at negative depths
      int count = 1;
      HN_ROLLED
      for (int t = 0; t < count; ++t) {
        const int y = w_.order[t];
        w_.depth[y] = -1 - w_.depth[y];
        HN_ROLLED
        for (int z = w_.child[y]; z >= 0; z = w_.next[z]) ++count;
      }
      w_.state->least = huge / 2;
      w_.state->from = -1;
      HN_ROLLED
      for (int i = 0; i < s_.n; ++i) HN_ROLLED
      for (int j = 0; j < s_.m; ++j) {
        const bool in_i = w_.depth[s_.ld + i] < 0, in_j = w_.depth[j] < 0;
        if (in_i == in_j || in_i != (x < s_.ld)) continue;
        const T rest = cost[i * s_.ld + j] - w_.dual[s_.ld + i] - w_.dual[j];
        if (!(cost[i * s_.ld + j] > huge / 2) && rest < w_.state->least) {
          w_.state->least = rest;
          w_.state->from = i;
          w_.state->to = j;
        }
      }
      HN_ROLLED
      for (int t = 0; t < count; ++t) w_.depth[w_.order[t]] = -1 - w_.depth[w_.order[t]];
      if (w_.state->from < 0) continue;
      const int i = s_.ld + w_.state->from, j = w_.state->to, inside = x < s_.ld ? i : j;
      w_.turn(inside, x, x < s_.ld ? j : i, T(0));
      shift(inside, w_.state->least);
      x = -1;  // the arcs have other nodes now
    }
  }

  const G& g_;
  const Shape& s_;
  const SimplexWork<T>& w_;
  bool has_basis_ = false;
  typename SmallTreeOf<G, T>::type small_tree_;
};

}  // namespace hotnas::HOTNAS_ISA
