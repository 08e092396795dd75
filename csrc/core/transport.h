// Exact optimal transport between two small discrete measures.
//
// min <cost, T>  over  T >= 0, T 1 = a, T' 1 = b;   u_i + v_j <= cost_ij, equality where T_ij > 0.
//
// Equal sizes with uniform masses are the assignment problem: shortest augmenting paths with duals (Dijkstra on reduced
// costs, one dense row relaxed across the lanes at a time; Jonker and Volgenant, 1987). Any v is a valid start, so the
// duals of a neighbouring problem make a warm start: in conditional gradient the cost changes little between calls and
// few paths remain to be searched. Among columns that are equally near, those without a row come first: where costs tie,
// a search so ends at once and not after all columns at its distance. A part of masses that are all equal is a partial
// assignment (partial_assignment.h). Other masses go to the network simplex (simplex.h), which keeps its tree.
// Complexity: O(n m) per augmenting path, n of them at most.
//
// Costs are of a size far below `huge`, or `huge`, which forbids the arc; every row and column has one that is allowed;
// masses are finite and not negative: csrc/items sees to that. What is sent uses no forbidden arc.
#pragma once

#include "partial_assignment.h"
#include "simplex.h"

namespace hotnas::HOTNAS_ISA {

/// Whether the last row and the last column are dummies, which take what a partial coupling leaves.
struct Dummies {
  bool row, column;

  HN_HD bool any() const { return row || column; }
  HN_HD bool both() const { return row && column; }
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
  SimplexWork<T> simplex;
  Array<T> v;                   // duals of columns, (ld)
  Array<T> reach, price;        // path length to each open column; v, or -huge when closed
  Array<LaneInt<T>> via;        // row before each column
  Array<T> row_dist, col_dist;  // (n), (ld)
  Array<T> taken;               // (ld), of columns: 0 without a row, else huge
  Array<int> rows, cols;        // search order
  Array<int> row_of_col, col_of_row;
  Array<int> later;    // (n), of a partial assignment: columns of rows, one path on
  Array<T> row_least;  // (ldn), of the same: the least that a row costs
};

template <class T>
HN_HD TransportWork<T> take_transport(Arena& arena, const Shape& s) {
  TransportWork<T> w{};
  w.simplex = take_simplex<T>(arena, s);
  w.v = w.simplex.dual;
  w.reach = arena.take<T>(s.ld);
  w.price = arena.take<T>(s.ld);
  w.via = arena.take<LaneInt<T>>(s.ld);
  w.row_dist = arena.take<T>(s.n);
  w.col_dist = arena.take<T>(s.ld);
  w.taken = arena.take<T>(s.ld);
  w.rows = arena.take<int>(s.ldn + s.n);
  w.cols = arena.take<int>(s.ld);
  w.row_of_col = arena.take<int>(s.ld);
  w.col_of_row = arena.take<int>(s.n);
  w.later = arena.take_far<int>(s.n);
  w.row_least = arena.take_far<T>(s.ldn);
  return w;
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

/// Chooses the open constant of duals so that <u, a> = <v, b>, each lane its own.
template <class G, class T>
HN_HD void centre_duals(const G& g, const Shape& s, const Array<T>& a, const Array<T>& b,
                        const Array<T>& u, const Array<T>& v) {
  T apart = 0, masses = 0;
  HN_ROLLED
  for (int i = g.begin(); i < s.n; i += g.step()) {
    apart -= a[i] * u[i];
    masses += a[i];
  }
  HN_ROLLED
  for (int j = g.begin(); j < s.m; j += g.step()) {
    apart += b[j] * v[j];
    masses += b[j];
  }
  const T shift = g.total(apart) / g.total(masses);
  HN_ROLLED
  for (int i = g.begin(); i < s.n; i += g.step()) u[i] += shift;
  HN_ROLLED
  for (int j = g.begin(); j < s.m; j += g.step()) v[j] -= shift;
}

template <class G, class T>
class Transport {
  using Var = typename G::template Var<T>;
  using Int = typename G::template Int<T>;
  static constexpr T huge = Limits<T>::huge;

 public:
  HN_HD Transport(const G& g, const Shape& s, const TransportWork<T>& w)
      : g_(g),
        s_(s),
        w_(w),
        u_(w.simplex.dual_of_rows(s)),
        simplex_(g, s, w.simplex),
        partial_(g, s, w) {}

  /// Duals of rows, (n).
  HN_HD const Array<T>& u() const { return u_; }

  /// Augmenting paths and pivots so far: what the cheapest arcs alone could not match.
  HN_HD int paths() const { return paths_ + simplex_.pivots() + partial_.paths(); }

  /// Before the first problem of some masses a (n), b (m): cold duals, and a first tree. Where a tree is there already, it
  /// is a better start.
  HN_HD void set_out(const T* cost, const T* a, const T* b, bool with_dummies = false) {
    if (simplex_.has_basis() || partial_.fits()) return;
    if (with_dummies && partial_.set_out(cost, a, b)) return;
    cold(cost);
    if (with_dummies) price_dummies(cost, a, b);
    if (!s_.assignment) simplex_.begin(cost, a, b);
  }

  /// Column duals v_j = min_i cost_ij, for costs that have nothing to do with those before.
  HN_HD void cold(const T* cost) const {
    if (simplex_.has_basis() || partial_.fits()) return;
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var least = g_.load(cost + j0);
      HN_ROLLED
      for (int i = 1; i < s_.n; ++i) least = G::min(least, g_.load(cost + i * s_.ld + j0));
      const auto real = g_.template index<T>(j0) < G::template splat_int<T>(s_.m);
      g_.store(w_.v + j0, G::select(real, least, G::splat(-huge)));
    }
  }

  /// After `set_out`: leaves duals in u, v and the coupling in the work space. Returns false when forbidden arcs leave
  /// none.
  HN_HD bool solve(const T* cost) {
    if (partial_.fits()) return partial_.solve(cost);
    if (!s_.assignment) return simplex_.solve(cost);
#ifdef __CUDACC__
    if constexpr (G::width <= 32) return assign<false>(cost);  // both would spill registers
#endif
    return s_.n <= most_in_order ? assign<false>(cost) : assign<true>(cost);
  }

  /// After solve(): duals with no more rounding than they need, which no cost is below by more than that.
  HN_HD void settle(const T* cost) {
    if (partial_.fits())
      settle_rows<G, T>(g_, s_, cost, w_.simplex.dual);
    else if (!s_.assignment)
      simplex_.settle(cost);
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
      if (g_.leader()) {
        const auto put = [&](int t, int i, int j, T mass) { out.set(t, i, j, s_.ld, mass * unit); };
        *out.count = partial_.fits() ? partial_.list(put) : simplex_.list(put);
      }
    }
    g_.sync();
  }

 private:
  /// Where the last row and column are dummies. The duals of the real columns are 0 then; that of the
  /// dummy says from which cost on a row goes there: the least at which as much mass as is moved finds columns.
  HN_APART void price_dummies(const T* cost, const T* a, const T* b) const {
    const int rows = s_.n - 1, columns = s_.m - 1;
    if (rows == 0) return;
    T moved = -a[rows];
    HN_ROLLED
    for (int j = 0; j < columns; ++j) moved += b[j];
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var least = g_.load(cost + j0);
      HN_ROLLED
      for (int i = 1; i < rows; ++i) least = G::min(least, g_.load(cost + i * s_.ld + j0));
      g_.store(w_.reach + j0, least);
    }
    g_.sync();
    Var best = G::splat(huge);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const Var least = g_.load(w_.reach + j0);
      Var served = G::splat(T(0));
      HN_ROLLED
      for (int k = 0; k < columns; ++k)
        served += G::select(least < G::splat(w_.reach[k]), G::splat(T(0)), G::splat(b[k]));
      const auto real = g_.template index<T>(j0) < G::template splat_int<T>(columns);
      const Var enough = G::select(served < G::splat(moved), G::splat(huge), least);
      best = G::min(best, G::select(real, enough, best));
    }
    const T price = -g_.max_of(-best);
    if (price < huge / 2 && g_.leader()) w_.v[columns] = -price;  // the tree meets first
  }

  /// Rows up to which columns that tie are taken in their order: there are few of them, and looking for one without a
  /// row costs more than it saves.
  static constexpr int most_in_order = 16;

  /// FreeFirst: of columns, and of rows, that tie, those without a partner come first.
  template <bool FreeFirst>
  HN_HD bool assign(const T* cost) {
    HN_ROLLED
    for (int j = g_.begin(); j < s_.ld; j += g_.step()) {
      if (j < s_.m) w_.row_of_col[j] = -1;
      if (FreeFirst) w_.taken[j] = j < s_.m ? T(0) : huge;
    }
    g_.sync();
    take_tight_rows<FreeFirst>(cost);
    take_tight_columns<FreeFirst>(cost);
    HN_ROLLED
    for (int row = 0; row < s_.n; ++row)
      if (w_.col_of_row[row] < 0 && !augment<FreeFirst>(cost, row)) return false;
    return true;
  }

  /// u_i = min_j (cost_ij - v_j), and as much mass as possible over that cheapest arc.
  template <bool FreeFirst>
  HN_HD void take_tight_rows(const T* cost) const {
    HN_ROLLED
    for (int i = 0; i < s_.n; ++i) {
      const T* row = cost + i * s_.ld;
      Var best = g_.load(row) - g_.load(w_.v + 0), least_free = best;
      if (FreeFirst) least_free += g_.load(w_.taken + 0);
      Int at = g_.template index<T>(0), free_at = at;
      HN_ROLLED
      for (int j0 = G::width; j0 < s_.ld; j0 += G::width) {
        const Var reduced = g_.load(row + j0) - g_.load(w_.v + j0);
        if constexpr (FreeFirst) {
          const Var open = reduced + g_.load(w_.taken + j0);
          free_at = G::select(open < least_free, g_.template index<T>(j0), free_at);
          least_free = G::min(least_free, open);
        } else {
          at = G::select(reduced < best, g_.template index<T>(j0), at);
        }
        best = G::min(best, reduced);
      }
      MinAt<T> least =
          nearest<G, T>(g_, s_, FreeFirst ? least_free : best, FreeFirst ? free_at : at);
      bool free;
      if constexpr (FreeFirst) {
        const T value = -g_.max_of(-best);
        free = least.value == value;
        least.value = value;
      } else {
        free = w_.row_of_col[least.index] < 0;
      }
      g_.sync();
      if (g_.leader()) {
        u_[i] = least.value;
        w_.col_of_row[i] = free ? least.index : -1;
        if (free) w_.row_of_col[least.index] = i;
        if (FreeFirst && free) w_.taken[least.index] = huge;
      }
      g_.sync();
    }
  }

  /// v_j = min_i (cost_ij - u_i), never less than before, and what its cheapest row still has to give.
  /// Columns lie on lanes, so this costs less than one search for a path and saves several.
  template <bool FreeFirst>
  HN_HD void take_tight_columns(const T* cost) const {
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var best = g_.load(cost + j0) - G::splat(u_[0]);
      Int at = G::template splat_int<T>(0);
      HN_ROLLED
      for (int i = 1; i < s_.n; ++i) {
        const Var reduced = g_.load(cost + i * s_.ld + j0) - G::splat(u_[i]);
        if (FreeFirst && w_.col_of_row[i] < 0)
          at = G::select(reduced <= best, G::template splat_int<T>(i), at);
        else
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
        if (w_.row_of_col[j] < 0 && w_.col_of_row[i] < 0) {
          w_.row_of_col[j] = i;
          w_.col_of_row[i] = j;
          if (FreeFirst) w_.taken[j] = huge;
        }
      }
    }
    g_.sync();
  }

  /// Path lengths to the open columns through row i at distance mu; the nearest open column. FreeFirst: and the
  /// distance of the nearest one without a row.
  template <bool FreeFirst>
  HN_HD MinAt<T> relax(const T* cost, int i, T mu, T& to_free) const {
    Var best, free = G::splat(2 * huge);
    Int at;
    relax_row<G, T>(g_, s_, w_, cost + i * s_.ld, u_[i] - mu, i, best, at, [&](int j0, Var reach) {
      if constexpr (FreeFirst) free = G::min(free, reach + g_.load(w_.taken + j0));
    });
    if constexpr (FreeFirst) to_free = -g_.max_of(-free);
    return nearest<G, T>(g_, s_, best, at);
  }

  /// The first of the nearest columns without a row.
  HN_HD int nearest_free() const {
    Var best = G::splat(2 * huge);
    Int at = g_.template index<T>(0);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const Var free = g_.load(w_.reach + j0) + g_.load(w_.taken + j0);
      at = G::select(free < best, g_.template index<T>(j0), at);
      best = G::min(best, free);
    }
    return nearest<G, T>(g_, s_, best, at).index;
  }

  /// Matches `source` along one shortest path.
  template <bool FreeFirst>
  HN_HD bool augment(const T* cost, int source) {
    ++paths_;
    g_.poll(std::int64_t{s_.n} * s_.ld);  // what a search visits at most
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      g_.store(w_.reach + j0, G::splat(huge));
      g_.store(w_.price + j0, g_.load(w_.v + j0));
    }
    if (g_.leader()) {
      w_.rows[0] = source;
      w_.row_dist[source] = 0;
    }
    g_.sync();
    int settled = 0, sink = -1;
    T mu = 0;
    HN_ROLLED
    for (;;) {
      T to_free = 2 * huge;
      const MinAt<T> next = relax<FreeFirst>(cost, w_.rows[settled], mu, to_free);
      // every column is closed, or the costs are not numbers
      if (!(next.value <= huge / 2) || settled == s_.m) return false;
      mu = next.value > mu ? next.value : mu;
      const bool ends = FreeFirst && to_free == next.value;
      const int j = ends ? nearest_free() : next.index, i = ends ? -1 : w_.row_of_col[j];
      if (i < 0) {
        sink = j;
        break;
      }
      g_.sync();
      if (g_.leader()) {
        w_.cols[settled] = j;
        w_.col_dist[j] = mu;
        w_.price[j] = -huge;
        w_.reach[j] = huge;
        w_.rows[settled + 1] = i;
        w_.row_dist[i] = mu;
      }
      ++settled;
      g_.sync();
    }
    g_.sync();  // the search is over on every lane, and `via` is complete
    HN_ROLLED
    for (int t = g_.begin(); t <= settled; t += g_.step()) {
      const int i = w_.rows[t];
      u_[i] += mu - w_.row_dist[i];
    }
    HN_ROLLED
    for (int t = g_.begin(); t < settled; t += g_.step()) {
      const int j = w_.cols[t];
      w_.v[j] -= mu - w_.col_dist[j];
    }
    if (FreeFirst && g_.leader()) w_.taken[sink] = huge;
    flip(source, sink);
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

  const G& g_;
  const Shape& s_;
  const TransportWork<T>& w_;
  const Array<T> u_;
  Simplex<G, T> simplex_;
  PartialAssignment<G, T, TransportWork<T>> partial_;
  int paths_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
