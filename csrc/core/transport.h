// Exact optimal transport between two small discrete measures, by successive shortest augmenting
// paths with duals (Dijkstra on reduced costs, one dense row relaxed across the lanes at a time).
//
// min <cost, T>  over  T >= 0, T 1 = a, T' 1 = b;   u_i + v_j <= cost_ij, equality where T_ij > 0.
//
// Any v is a valid start, so the duals of a neighbouring problem make a warm start: in conditional
// gradient the cost changes little between calls and few paths remain to be searched. Equal sizes
// with uniform masses are the assignment problem: one row per column, no flow matrix.
// Complexity: O(n m) per augmenting path, n of them for assignment, about n + m otherwise.
//
// Costs are of a size far below `huge`, or `huge`, which forbids the arc; every row and column has one that is allowed;
// masses are finite and not negative: csrc/items sees to that. No path leads over a forbidden arc, so that what
// cannot be moved without is left.
#pragma once

#include "arena.h"

namespace hotnas::HOTNAS_ISA {

/// Sizes of a problem after rows and columns without mass were removed.
struct Shape {
  int n, m;     // rows, columns
  int ld, ldn;  // m and n rounded up to the lane width
  bool assignment;
  int paired_n = n,
      paired_m = m;  // rows and columns, the first ones, that take part in pairs (pair_cost.h)
};

/// A sparse coupling: mass[t] moves from row[t] to col[t]; place[t] = row[t] * ld + col[t].
template <class T>
struct Vertex {
  Array<int> count, row, col;
  Array<LaneInt<T>> place;
  Array<T> mass;

  HN_HD void set(int t, int i, int j, int ld, T moved) const {
    row[t] = i;
    col[t] = j;
    place[t] = i * ld + j;
    mass[t] = moved;
  }
};

template <class T>
HN_HD Vertex<T> take_vertex(Arena& arena, std::size_t most) {
  return {arena.take_far<int>(1), arena.take_far<int>(most), arena.take_far<int>(most),
          arena.take_far<LaneInt<T>>(most), arena.take_far<T>(most)};
}

/// <matrix, V> for an (n, ld) matrix; the entries of V lie on lanes.
template <class G, class T>
HN_HD T inner(const G& g, const std::type_identity_t<T>* matrix, const Vertex<T>& v) {
  using Var = typename G::template Var<T>;
  const int count = *v.count;
  const auto last = G::template splat_int<T>(count);
  Var sum = G::splat(T(0));
  HN_ROLLED
  for (int t0 = 0; t0 < count; t0 += G::width) {
    const auto real = g.template index<T>(t0) < last;
    const auto place =
        G::select(real, g.template load_int<T>(v.place + t0), G::template splat_int<T>(0));
    const Var mass = G::select(real, g.load(v.mass + t0), G::splat(T(0)));
    sum += mass * G::gather(matrix, place);
  }
  return g.sum(sum);
}

/// Room for a vertex, which has fewer than n + m entries, and for one column more than that; lists are
/// read a row of lanes at a time.
HN_HD std::size_t vertex_capacity(const Shape& s) {
  return s.assignment ? s.ldn : s.ld + 2 * s.ldn;
}

template <class T>
struct TransportWork {
  Array<T> u, v;            // duals, (n), (ld)
  Array<T> supply, demand;  // what is still to be moved, (n), (ld)
  Array<T> reach, price;    // path length to each open column; v, or -huge when closed
  Array<LaneInt<T>> via;    // row before each column
  Array<T> row_dist, col_dist, labelled;  // (n), (ld), (ldn)
  Array<int> before, rows, cols;          // column before each row; search order
  Array<T> flow, flow_of_row;             // by column (m, ldn), by row (n, ld); general masses
  Array<int> row_of_col, col_of_row;      // assignment
};

template <class T>
HN_HD TransportWork<T> take_transport(Arena& arena, const Shape& s) {
  TransportWork<T> w{};
  w.u = arena.take<T>(s.n);
  w.v = arena.take<T>(s.ld);
  w.supply = arena.take<T>(s.n);
  w.demand = arena.take<T>(s.ld);
  w.reach = arena.take<T>(s.ld);
  w.price = arena.take<T>(s.ld);
  w.via = arena.take<LaneInt<T>>(s.ld);
  w.row_dist = arena.take<T>(s.n);
  w.col_dist = arena.take<T>(s.ld);
  w.labelled = arena.take<T>(s.ldn);
  w.before = arena.take<int>(s.n);
  w.rows = arena.take<int>(s.ldn + s.n);
  w.cols = arena.take<int>(s.ld);
  w.row_of_col = arena.take<int>(s.ld);
  w.col_of_row = arena.take<int>(s.n);
  if (!s.assignment) {
    w.flow = arena.take_far<T>(static_cast<std::size_t>(s.m) * s.ldn);
    w.flow_of_row = arena.take<T>(static_cast<std::size_t>(s.n) * s.ld);
  }
  return w;
}

/// Whether a cost forbids its arc.
template <class G, class T>
HN_HD auto is_forbidden(typename G::template Var<T> cost) {
  return cost > G::splat(Limits<T>::huge / 2);
}

/// Whether every row and every column of costs (n, ld) has an arc that is not forbidden.
template <class G, class T>
HN_HD bool all_have_arcs(const G& g, const Shape& s, const std::type_identity_t<T>* cost) {
  using Var = typename G::template Var<T>;
  const Var none = G::splat(T(0)), one = G::splat(T(1));
  bool all = true;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    Var any = none;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const auto real = g.template index<T>(j0) < G::template splat_int<T>(s.m);
      const Var allowed = G::select(is_forbidden<G, T>(g.load(cost + i * s.ld + j0)), none, one);
      any = G::max(any, G::select(real, allowed, none));
    }
    all &= g.max_of(any) > 0;
  }
  Var without = none;
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    Var least = g.load(cost + j0);
    HN_ROLLED
    for (int i = 1; i < s.n; ++i) least = G::min(least, g.load(cost + i * s.ld + j0));
    without = G::max(without, G::select(is_forbidden<G, T>(least), one, none));
  }
  return all && g.max_of(without) == 0;
}

template <class G, class T>
class Transport {
  using Var = typename G::template Var<T>;
  using Int = typename G::template Int<T>;
  static constexpr T huge = Limits<T>::huge;

 public:
  HN_HD Transport(const G& g, const Shape& s, const TransportWork<T>& w) : g_(g), s_(s), w_(w) {}

  /// Augmenting paths searched so far: what the cheapest arcs alone could not match.
  HN_HD int paths() const { return paths_; }

  /// Column duals v_j = min_i cost_ij: the start of a problem without a neighbour. With dummies on both sides those of
  /// the real columns are 0 then, and that of the dummy says from which cost on a row goes there: the least at which
  /// as much mass as is moved finds columns.
  HN_HD void cold(const T* cost, const T* a, const T* b) const {
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var least = g_.load(cost + j0);
      HN_ROLLED
      for (int i = 1; i < s_.n; ++i) least = G::min(least, g_.load(cost + i * s_.ld + j0));
      const auto real = g_.template index<T>(j0) < G::template splat_int<T>(s_.m);
      g_.store(w_.v + j0, G::select(real, least, G::splat(-huge)));
    }
    if (s_.paired_n == s_.n || s_.paired_m == s_.m || s_.paired_n == 0) return;
    T moved = -a[s_.paired_n];
    HN_ROLLED
    for (int j = 0; j < s_.paired_m; ++j) moved += b[j];
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var least = g_.load(cost + j0);
      HN_ROLLED
      for (int i = 1; i < s_.paired_n; ++i) least = G::min(least, g_.load(cost + i * s_.ld + j0));
      g_.store(w_.reach + j0, least);
    }
    g_.sync();
    Var best = G::splat(huge);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const Var least = g_.load(w_.reach + j0);
      Var served = G::splat(T(0));
      HN_ROLLED
      for (int k = 0; k < s_.paired_m; ++k)
        served += G::select(least < G::splat(w_.reach[k]), G::splat(T(0)), G::splat(b[k]));
      const auto real = g_.template index<T>(j0) < G::template splat_int<T>(s_.paired_m);
      const Var enough = G::select(served < G::splat(moved), G::splat(huge), least);
      best = G::min(best, G::select(real, enough, best));
    }
    const T price = -g_.max_of(-best);
    if (price < huge / 2 && g_.leader()) w_.v[s_.paired_m] = -price;  // solve() meets first
  }

  /// Solves for masses a (n), b (m); leaves duals in u, v and the coupling in the work space.
  /// Returns false when mass was left beyond the difference of the totals; there is no coupling then.
  HN_HD bool solve(const T* cost, const T* a, const T* b) {
    T slack = 0, excess = 0;
    if (s_.assignment) {
      HN_ROLLED
      for (int j = g_.begin(); j < s_.m; j += g_.step()) w_.row_of_col[j] = -1;
    } else {
      T largest = 0, total = 0;
      HN_ROLLED
      for (int i = 0; i < s_.n; ++i) {
        largest = a[i] > largest ? a[i] : largest;
        total += a[i];
      }
      excess = total;
      HN_ROLLED
      for (int j = 0; j < s_.m; ++j) {
        largest = b[j] > largest ? b[j] : largest;
        excess -= b[j];
      }
      slack = 2 * Limits<T>::epsilon * largest;
      // what the columns cannot take, and what is left over by rounding
      excess = (excess > 0 ? excess : T(0)) + (s_.n + s_.m) * Limits<T>::epsilon * total;
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n; i += g_.step()) w_.supply[i] = a[i];
      HN_ROLLED
      for (int j = g_.begin(); j < s_.m; j += g_.step()) w_.demand[j] = b[j];
      const Var none = G::splat(T(0));
      HN_ROLLED
      for (int e = 0; e < s_.m * s_.ldn; e += G::width) g_.store(w_.flow + e, none);
      HN_ROLLED
      for (int e = 0; e < s_.n * s_.ld; e += G::width) g_.store(w_.flow_of_row + e, none);
    }
    g_.sync();
    take_tight_rows(cost);
    take_tight_columns(cost);
    const int most = paths_ + most_paths();
    HN_ROLLED
    for (int row = 0; row < s_.n; ++row) {
      if (s_.assignment) {
        if (w_.col_of_row[row] < 0 && !augment(cost, row, slack)) return false;
      } else {
        HN_ROLLED
        while (w_.supply[row] > slack) {
          if (augment(cost, row, slack) && paths_ < most) continue;
          excess -= w_.supply[row];
          break;
        }
        if (!(excess >= 0)) return false;
      }
    }
    return true;
  }

  /// The coupling as a list; unit converts integer units of mass into masses.
  HN_HD void extract(const Vertex<T>& out, T unit) const {
    if (s_.assignment) {
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n; i += g_.step()) {
        out.set(i, i, w_.col_of_row[i], s_.ld, unit);
      }
      if (g_.leader()) *out.count = s_.n;
    } else {
      int count = 0;  // the support is a forest, so there is room
      HN_ROLLED
      for (int j = 0; j < s_.m && count < s_.n + s_.m; ++j) {
        const int from = count;
        HN_ROLLED
        for (int i0 = 0; i0 < s_.ldn; i0 += G::width) {
          const auto moved = g_.load(w_.flow + j * s_.ldn + i0) > G::splat(T(0));
          count = g_.template append<T>(moved, i0, out.row, count);
        }
        g_.sync();
        HN_ROLLED
        for (int t = from + g_.begin(); t < count; t += g_.step()) {
          const int i = out.row[t];
          out.set(t, i, j, s_.ld, w_.flow[j * s_.ldn + i] * unit);
        }
      }
      if (g_.leader()) *out.count = count;
    }
    g_.sync();
  }

 private:
  /// Far more than are ever needed: a bound on the time that nobody can say more of.
  HN_HD int most_paths() const {
    const int nodes = s_.n + s_.m;
    return nodes < 1 << 14 ? 4 * nodes * nodes : 1 << 30;
  }

  /// Over the columns of one row; a row that fits the lanes needs no positions.
  HN_HD MinAt<T> minimum(Var best, Int at) const {
    return s_.ld == G::width ? g_.template min_at<T>(best) : g_.template min_at<T>(best, at);
  }

  /// u_i = min_j (cost_ij - v_j), and as much mass as possible over that cheapest arc.
  HN_HD void take_tight_rows(const T* cost) const {
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const T* row = cost + i * s_.ld;
      Var best = g_.load(row) - g_.load(w_.v + 0);
      Int at = g_.template index<T>(0);
      HN_ROLLED
      for (int j0 = G::width; j0 < s_.ld; j0 += G::width) {
        const Var reduced = g_.load(row + j0) - g_.load(w_.v + j0);
        at = G::select(reduced < best, g_.template index<T>(j0), at);
        best = G::min(best, reduced);
      }
      const MinAt<T> least = minimum(best, at);
      if (s_.assignment) {
        const bool free = w_.row_of_col[least.index] < 0;
        g_.sync();
        if (g_.leader()) {
          w_.u[i] = least.value;
          w_.col_of_row[i] = free ? least.index : -1;
          if (free) w_.row_of_col[least.index] = i;
        }
      } else {
        const T supply = w_.supply[i], demand = w_.demand[least.index];
        const T moved = supply < demand ? supply : demand;
        g_.sync();
        if (g_.leader()) {
          w_.u[i] = least.value;
          w_.supply[i] = supply - moved;
          w_.demand[least.index] = demand - moved;
          move(i, least.index, moved);
        }
      }
      g_.sync();
    }
  }

  /// v_j = min_i (cost_ij - u_i), never less than before, and what its cheapest row still has to give.
  /// Columns lie on lanes, so this costs less than one search for a path and saves several.
  HN_HD void take_tight_columns(const T* cost) const {
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var best = g_.load(cost + j0) - G::splat(w_.u[0]);
      Int at = G::template splat_int<T>(0);
      HN_ROLLED
      for (int i = 1; i < s_.n; ++i) {
        const Var reduced = g_.load(cost + i * s_.ld + j0) - G::splat(w_.u[i]);
        at = G::select(reduced < best, G::template splat_int<T>(i), at);
        best = G::min(best, reduced);
      }
      const auto real = g_.template index<T>(j0) < G::template splat_int<T>(s_.m);
      g_.store(w_.v + j0, G::select(real, best, G::splat(-huge)));
      g_.template store_int<T>(w_.via + j0, at);
    }
    g_.sync();
    if (g_.leader()) {
      HN_ROLLED
      for (int j = 0; j < s_.m; ++j) {
        const int i = static_cast<int>(w_.via[j]);
        if (s_.assignment) {
          if (w_.row_of_col[j] < 0 && w_.col_of_row[i] < 0) {
            w_.row_of_col[j] = i;
            w_.col_of_row[i] = j;
          }
        } else {
          const T supply = w_.supply[i], demand = w_.demand[j];
          const T moved = supply < demand ? supply : demand;
          w_.supply[i] = supply - moved;
          w_.demand[j] = demand - moved;
          move(i, j, moved);
        }
      }
    }
    g_.sync();
  }

  /// Path lengths to the open columns through row i at distance mu; the nearest open column.
  /// Columns that row i already serves come before all others, whatever rounding makes of their lengths: a whole
  /// tree of the support is explored before a path leaves it, so no path closes a cycle and the coupling
  /// stays a vertex.
  HN_HD MinAt<T> relax(const T* cost, int i, T mu) const {
    const Var base = G::splat(w_.u[i] - mu);
    const T* row = cost + i * s_.ld;
    const Int me = G::template splat_int<T>(i);
    Var best = G::splat(2 * huge);
    Int at = g_.template index<T>(0);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const Var price = g_.load(w_.price + j0);
      Var through = g_.load(row + j0) - base - price;
      if (!s_.assignment) {
        const auto linked = (g_.load(w_.flow_of_row + i * s_.ld + j0) > G::splat(T(0))) &
                            (price > G::splat(-huge / 2));
        through = G::select(linked, G::splat(-huge), through);
      }
      Var reach = g_.load(w_.reach + j0);
      const Int via = g_.template load_int<T>(w_.via + j0);
      g_.template store_int<T>(w_.via + j0, G::select(through < reach, me, via));
      reach = G::min(reach, through);
      g_.store(w_.reach + j0, reach);
      at = G::select(reach < best, g_.template index<T>(j0), at);
      best = G::min(best, reach);
    }
    return minimum(best, at);
  }

  /// The nearest open column once more, after one was closed without opening a row.
  HN_HD MinAt<T> nearest() const {
    Var best = g_.load(w_.reach + 0);
    Int at = g_.template index<T>(0);
    HN_ROLLED
    for (int j0 = G::width; j0 < s_.ld; j0 += G::width) {
      const Var reach = g_.load(w_.reach + j0);
      at = G::select(reach < best, g_.template index<T>(j0), at);
      best = G::min(best, reach);
    }
    return minimum(best, at);
  }

  /// Sends what one shortest path from `source` can carry.
  HN_HD bool augment(const T* cost, int source, T slack) {
    ++paths_;
    g_.poll(std::int64_t{s_.n} * s_.ld);  // what a search visits at most
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      g_.store(w_.reach + j0, G::splat(huge));
      g_.store(w_.price + j0, g_.load(w_.v + j0));
    }
    if (!s_.assignment) {
      HN_ROLLED
      for (int i0 = 0; i0 < s_.ldn; i0 += G::width) g_.store(w_.labelled + i0, G::splat(T(0)));
      g_.sync();
    }
    if (g_.leader()) {
      w_.rows[0] = source;
      w_.row_dist[source] = 0;
      w_.before[source] = -1;
      if (!s_.assignment) w_.labelled[source] = 1;
    }
    g_.sync();
    int num_rows = 1, num_cols = 0, scanned = 0, sink = -1;
    T mu = 0;
    HN_ROLLED
    while (sink < 0) {
      MinAt<T> next;
      if (scanned < num_rows) {
        HN_ROLLED
        while (scanned < num_rows) next = relax(cost, w_.rows[scanned++], mu);
      } else {
        next = nearest();
      }
      // every column is closed, or the costs are not numbers
      if (!(next.value <= huge / 2) || num_cols == s_.m) return false;
      mu = next.value > mu ? next.value : mu;
      const int j = next.index;
      if (s_.assignment ? w_.row_of_col[j] < 0 : w_.demand[j] > slack) {
        sink = j;
        break;
      }
      g_.sync();
      if (g_.leader()) {
        w_.cols[num_cols] = j;
        w_.col_dist[j] = mu;
        w_.price[j] = -huge;
        w_.reach[j] = huge;
      }
      ++num_cols;
      if (s_.assignment) {
        const int i = w_.row_of_col[j];
        if (g_.leader()) {
          w_.rows[num_rows] = i;
          w_.row_dist[i] = mu;
          w_.before[i] = j;
        }
        ++num_rows;
      } else {
        const int from = num_rows;
        HN_ROLLED
        for (int i0 = 0; i0 < s_.ldn; i0 += G::width) {
          const auto fresh = (g_.load(w_.flow + j * s_.ldn + i0) > G::splat(T(0))) &
                             (g_.load(w_.labelled + i0) == G::splat(T(0)));
          num_rows = g_.template append<T>(fresh, i0, w_.rows, num_rows);
        }
        g_.sync();
        HN_ROLLED
        for (int t = from + g_.begin(); t < num_rows; t += g_.step()) {
          const int i = w_.rows[t];
          w_.row_dist[i] = mu;
          w_.before[i] = j;
          w_.labelled[i] = 1;
        }
      }
      g_.sync();
    }
    g_.sync();  // the search is over on every lane, and `via` is complete
    HN_ROLLED
    for (int t = g_.begin(); t < num_rows; t += g_.step()) {
      const int i = w_.rows[t];
      w_.u[i] += mu - w_.row_dist[i];
    }
    HN_ROLLED
    for (int t = g_.begin(); t < num_cols; t += g_.step()) {
      const int j = w_.cols[t];
      w_.v[j] -= mu - w_.col_dist[j];
    }
    if (s_.assignment)
      flip(source, sink);
    else
      push(source, sink);
    g_.sync();
    return true;
  }

  HN_HD void flip(int source, int sink) const {
    if (!g_.leader()) return;
    HN_ROLLED
    for (int j = sink, columns = 0; columns < s_.m; ++columns) {
      const int i = static_cast<int>(w_.via[j]);
      w_.row_of_col[j] = i;
      const int next = w_.col_of_row[i];
      w_.col_of_row[i] = j;
      if (i == source) break;
      j = next;
    }
  }

  HN_HD void push(int source, int sink) const {
    if (!g_.leader()) return;
    T moved = w_.supply[source] < w_.demand[sink] ? w_.supply[source] : w_.demand[sink];
    HN_ROLLED
    for (int j = sink;;) {
      const int i = static_cast<int>(w_.via[j]);
      if (i == source) break;
      j = w_.before[i];
      const T held = w_.flow[j * s_.ldn + i];
      moved = held < moved ? held : moved;
    }
    w_.supply[source] -= moved;
    w_.demand[sink] -= moved;
    HN_ROLLED
    for (int j = sink;;) {
      const int i = static_cast<int>(w_.via[j]);
      move(i, j, moved);
      if (i == source) break;
      j = w_.before[i];
      move(i, j, -moved);
    }
  }

  /// Changes one flow in both layouts; for the leader.
  HN_HD void move(int i, int j, T mass) const {
    w_.flow[j * s_.ldn + i] += mass;
    w_.flow_of_row[i * s_.ld + j] += mass;
  }

  const G& g_;
  const Shape& s_;
  const TransportWork<T>& w_;
  int paths_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
