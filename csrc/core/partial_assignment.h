// Partial assignment: as many rows and columns as are asked for, of one unit of mass each, are matched at least cost.
//
// The last row and the last column are dummies, which take what is left at costs of their own, and never of each other:
//   u_i + v_j <= cost_ij, equality where matched;  u_i <= price + cost of i and the dummy column, equality where i is left;
//   v_j <= cost of the dummy row and j, equality where j is left.
// At a given price rows enter one by one, each by a shortest path that ends at a free column, or at a row that is better
// left. Then the price rises by the shortest paths from all rows that are left, and each of them matches one more. The
// first price is one at which no more can be matched than are asked for: all but so many rows, and all but so many columns,
// have no arc below it. What is left over from whole units goes half the way of one more path: the plan lies between two
// matchings.
// Complexity: O(n m) per path, of which there are fewer than rows.
// Reference: Dell'Amico and Martello, The k-cardinality assignment problem, 1997.
#pragma once

#include "forest.h"

namespace hotnas::HOTNAS_ISA {

/// Path lengths to the open columns through row `me`, which is at distance u - base; `least` and `at` become the nearest.
/// see(j0, reach): for each row of lanes.
template <class G, class T, class Work, class See>
HN_HD void relax_row(const G& g, const Shape& s, const Work& w, const std::type_identity_t<T>* row,
                     std::type_identity_t<T> base, int me, typename G::template Var<T>& least,
                     typename G::template Int<T>& at, See see) {
  const auto from = G::splat(base);
  const auto self = G::template splat_int<T>(me);
  least = G::splat(2 * Limits<T>::huge);
  at = g.template index<T>(0);
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const auto price = g.load(w.price + j0);
    const auto through = g.load(row + j0) - from - price;
    auto reach = g.load(w.reach + j0);
    const auto via = g.template load_int<T>(w.via + j0);
    g.template store_int<T>(w.via + j0, G::select(through < reach, self, via));
    reach = G::min(reach, through);
    g.store(w.reach + j0, reach);
    at = G::select(reach < least, g.template index<T>(j0), at);
    least = G::min(least, reach);
    see(j0, reach);
  }
}

/// Over the columns of one row; a row that fits the lanes needs no positions.
template <class G, class T>
HN_HD MinAt<T> nearest(const G& g, const Shape& s, typename G::template Var<T> least,
                       typename G::template Int<T> at) {
  return s.ld == G::width ? g.template min_at<T>(least) : g.template min_at<T>(least, at);
}

/// Work: duals u, v; reach, price, via; row_dist, col_dist, rows, cols; row_of_col, col_of_row; and later, row_least.
template <class G, class T, class Work>
class PartialAssignment {
  using Var = typename G::template Var<T>;
  using Int = typename G::template Int<T>;
  static constexpr T huge = Limits<T>::huge;
  static constexpr int left = -1, waiting = -2;  // rows without a column
#ifdef __CUDACC__
  static constexpr bool is_there =
      false;  // the fused kernels would spill registers: the simplex serves there
#else
  static constexpr bool is_there = true;
#endif

 public:
  HN_HD PartialAssignment(const G& g, const Shape& s, const Work& w)
      : g_(g), s_(s), w_(w), u_(w.simplex.dual_of_rows(s)) {}

  /// Whether a problem with both dummies is such: then this solves it, and those of other costs that forbid the same.
  HN_APART bool set_out(const T* cost, const T* a, const T* b) {
    const int rows = s_.n - 1, columns = s_.m - 1;
    if (!is_there || s_.assignment || rows < 1 || columns < 1) return false;
    unit_ = a[0];
    bool such = spares_dummies(cost);
    HN_ROLLED
    for (int i = 0; i < rows; ++i) such &= a[i] == unit_;
    HN_ROLLED
    for (int j = 0; j < columns; ++j) such &= b[j] == unit_;
    if (!such) return false;
    const T slack = 8 * T(s_.n + s_.m) * Limits<T>::epsilon;
    const T matched = T(rows) - b[columns] / unit_ + slack;
    if (!(matched >= 0)) return false;
    asked_ = static_cast<int>(matched);
    part_ = matched - T(asked_) > 2 * slack ? T(rows - asked_) * unit_ - b[columns] : T(0);
    fits_ = asked_ < rows && asked_ < columns;
    return fits_;
  }

  HN_HD bool fits() const { return is_there && fits_; }
  HN_HD int paths() const { return paths_; }

  /// Leaves duals in u, v and the matchings in the work space. Returns false when forbidden arcs leave none.
  HN_APART bool solve(const T* cost) {
    int matched = 0;
    T slack = 16 * Limits<T>::epsilon;
    HN_ROLLED
    for (; slack < 4 * far(); slack *= 64) {  // once, but for rounding among ties
      open(cost, slack);
      HN_ROLLED
      for (int i = 0; i < s_.n - 1; ++i)
        if (w_.col_of_row[i] == waiting && !enter(cost, i)) return false;
      matched = 0;
      HN_ROLLED
      for (int i = 0; i < s_.n - 1; ++i) matched += w_.col_of_row[i] >= 0 ? 1 : 0;
      if (matched <= asked_) break;
    }
    if (matched > asked_) return false;  // the costs are not numbers
    HN_ROLLED
    for (; matched < asked_; ++matched)
      if (!extend(cost, w_.col_of_row)) return false;
    if (part_ > 0) {
      HN_ROLLED
      for (int i = g_.begin(); i < s_.n - 1; i += g_.step()) w_.later[i] = w_.col_of_row[i];
      if (!extend(cost, w_.later)) return false;
    }
    if (g_.leader()) {
      u_[s_.n - 1] = 0;
      w_.v[s_.m - 1] = -price_;
    }
    g_.sync();
    return true;
  }

  /// put(t, row, column, mass) for each entry of the coupling; returns their number. For the leader.
  template <class Put>
  HN_HD int list(Put put) const {
    const int rows = s_.n - 1, columns = s_.m - 1;
    int count = 0;
    HN_ROLLED
    for (int i = 0; i < rows; ++i) {
      const int j = w_.col_of_row[i], next = part_ > 0 ? w_.later[i] : j;
      put(count++, i, j < 0 ? columns : j, next == j ? unit_ : unit_ - part_);
      if (next != j) put(count++, i, next, part_);
    }
    HN_ROLLED
    for (int j = 0; j < columns; ++j)
      if (w_.row_of_col[j] < 0)
        put(count++, rows, j, part_ > 0 && j == sink_ ? unit_ - part_ : unit_);
    return count;
  }

 private:
  /// More than any path, of costs of size 1.
  HN_HD T far() const { return 64 * T(s_.n + s_.m); }

  HN_HD T to_dummy(const T* cost, int i) const { return cost[i * s_.ld + s_.m - 1]; }

  /// Whether of the dummies' arcs the one between them is forbidden, and no other.
  HN_HD bool spares_dummies(const T* cost) const {
    const int rows = s_.n - 1, columns = s_.m - 1;
    const auto last = G::template splat_int<T>(columns);
    Var between = G::splat(T(0)), most = between;
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const auto column = g_.template index<T>(j0);
      const Var own = g_.load(cost + rows * s_.ld + j0);
      between = G::select(column == last, own, between);
      most = G::max(most, G::select(column < last, own, most));
    }
    const int from = columns / G::width * G::width;
    const auto here = g_.template index<T>(from) == last;
    HN_ROLLED
    for (int i = 0; i < rows; ++i)
      most = G::max(most, G::select(here, g_.load(cost + i * s_.ld + from), most));
    return g_.max_of(between) > huge / 2 && g_.max_of(most) < huge / 2;
  }

  /// Duals at the first price, and what rows and columns match by their cheapest arcs.
  HN_HD void open(const T* cost, T slack) {
    const int rows = s_.n - 1, columns = s_.m - 1;
    g_.sync();  // the costs are complete
    const auto real = G::template splat_int<T>(columns);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      const auto here = g_.template index<T>(j0) < real;
      Var low = G::splat(2 * huge);
      HN_ROLLED
      for (int i = 0; i < rows; ++i)
        low = G::min(low, g_.load(cost + i * s_.ld + j0) - G::splat(to_dummy(cost, i)));
      const Var alone = g_.load(cost + rows * s_.ld + j0);
      g_.store(w_.v + j0, G::select(here, alone, G::splat(-huge)));
      g_.store(w_.reach + j0, G::select(here, low - alone, G::splat(2 * huge)));
    }
    HN_ROLLED
    for (int j = g_.begin(); j < columns; j += g_.step()) w_.row_of_col[j] = -1;
    HN_ROLLED
    for (int i = rows + g_.begin(); i < s_.ldn; i += g_.step()) w_.row_least[i] = 2 * huge;
    HN_ROLLED
    for (int i = 0; i < rows; ++i) {
      Var least = G::splat(2 * huge);
      Int at = g_.template index<T>(0);
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const Var rest = g_.load(cost + i * s_.ld + j0) - g_.load(w_.v + j0);
        at = G::select(rest < least, g_.template index<T>(j0), at);
        least = G::min(least, rest);
      }
      const MinAt<T> found = nearest<G, T>(g_, s_, least, at);
      if (g_.leader()) {
        u_[i] = found.value;
        w_.row_least[i] = found.value - to_dummy(cost, i);
        w_.col_of_row[i] = found.index;
      }
    }
    g_.sync();
    const T by_rows = next_least(w_.row_least, rows, s_.ldn);
    const T by_columns = next_least(w_.reach, columns, s_.ld);
    price_ = by_rows < by_columns ? by_columns : by_rows;
    price_ = (price_ < far() ? price_ : far()) - slack;
    if (g_.leader()) {
      HN_ROLLED
      for (int i = 0; i < rows; ++i) {
        const int j = w_.col_of_row[i];
        if (!(w_.row_least[i] < price_)) {
          u_[i] = price_ + to_dummy(cost, i);
          w_.col_of_row[i] = left;
        } else if (w_.row_of_col[j] < 0) {
          w_.row_of_col[j] = i;
        } else {
          w_.col_of_row[i] = waiting;
        }
      }
    }
    g_.sync();
  }

  /// The least of `count` values that asked_ others are not above, of which more than asked_ are.
  HN_HD T next_least(const T* values, int count, int padded) const {
    const Var most = G::splat(T(asked_) + T(0.5)), none = G::splat(T(0)), one = G::splat(T(1));
    Var best = G::splat(-huge);
    HN_ROLLED
    for (int k0 = 0; k0 < padded; k0 += G::width) {
      const Var value = g_.load(values + k0);
      Var below = none;
      HN_ROLLED
      for (int k = 0; k < count; ++k) below += G::select(G::splat(values[k]) < value, one, none);
      best = G::max(best, G::select(below < most, value, best));
    }
    return g_.max_of(best);
  }

  HN_HD MinAt<T> relax(const T* cost, int i, T distance) const {
    Var least;
    Int at;
    relax_row<G, T>(g_, s_, w_, cost + i * s_.ld, u_[i] - distance, i, least, at, [](int, Var) {});
    return nearest<G, T>(g_, s_, least, at);
  }

  /// Row `source` gets a column, or a row of its path loses its own.
  HN_HD bool enter(const T* cost, int source) {
    ++paths_;
    g_.poll(std::int64_t{s_.n} * s_.ld);  // what a search visits at most
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      g_.store(w_.reach + j0, G::splat(huge));
      g_.store(w_.price + j0, g_.load(w_.v + j0));
    }
    int at = source, out = -1, settled = 0, sink = -1;
    T mu = 0, until = 2 * huge;
    HN_ROLLED
    for (;;) {
      const T leaves = mu + (price_ + to_dummy(cost, at) - u_[at]);
      if (leaves < until) {
        until = leaves;
        out = at;
      }
      const MinAt<T> next = relax(cost, at, mu);
      if (until <= next.value || !(next.value <= huge / 2) || settled == s_.m) break;
      mu = next.value > mu ? next.value : mu;
      const int j = next.index;
      at = w_.row_of_col[j];
      if (at < 0) {
        sink = j;
        break;
      }
      settle(settled++, j, at, mu);
    }
    if (sink < 0) mu = until > mu ? until : mu;
    if (!(mu <= huge / 2)) return false;  // the costs are not numbers
    g_.sync();                            // the search is over on every lane, and `via` is complete
    raise(settled, mu, sink < 0 ? out : -1, price_ + to_dummy(cost, out));
    if (g_.leader() && !(sink < 0 && out == source)) u_[source] += mu;
    if (g_.leader()) {
      if (sink < 0) {
        const int freed = w_.col_of_row[out];
        w_.col_of_row[out] = left;
        if (out == source)
          u_[source] = price_ + to_dummy(cost, source);
        else
          flip(w_.col_of_row, freed);
      } else {
        flip(w_.col_of_row, sink);
      }
    }
    g_.sync();
    return true;
  }

  /// One more row of those that are left is matched, in `columns` of rows.
  HN_HD bool extend(const T* cost, const Array<int>& columns) {
    ++paths_;
    g_.poll(std::int64_t{s_.n} * s_.ld);
    Var least = G::splat(2 * huge);
    Int at = g_.template index<T>(0);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
      Var reach = G::splat(2 * huge);
      Int via = G::template splat_int<T>(0);
      HN_ROLLED
      for (int i = 0; i < s_.n - 1; ++i) {
        if (w_.col_of_row[i] != left) continue;
        const Var through = g_.load(cost + i * s_.ld + j0) - G::splat(u_[i]);
        via = G::select(through < reach, G::template splat_int<T>(i), via);
        reach = G::min(reach, through);
      }
      const Var price = g_.load(w_.v + j0);
      reach = reach - price;
      g_.store(w_.price + j0, price);
      g_.store(w_.reach + j0, reach);
      g_.template store_int<T>(w_.via + j0, via);
      at = G::select(reach < least, g_.template index<T>(j0), at);
      least = G::min(least, reach);
    }
    MinAt<T> next = nearest<G, T>(g_, s_, least, at);
    int settled = 0;
    T mu = 0;
    HN_ROLLED
    for (;;) {
      // every column is closed, or the costs are not numbers
      if (!(next.value <= huge / 2) || settled == s_.m) return false;
      mu = next.value > mu ? next.value : mu;
      const int i = w_.row_of_col[next.index];
      if (i < 0) break;
      settle(settled++, next.index, i, mu);
      next = relax(cost, i, mu);
    }
    sink_ = next.index;
    price_ += mu;
    g_.sync();  // the search is over on every lane, and `via` is complete
    raise(settled, mu, -1, T(0));
    HN_ROLLED
    for (int i = g_.begin(); i < s_.n - 1; i += g_.step())
      if (w_.col_of_row[i] == left) u_[i] = price_ + to_dummy(cost, i);
    g_.sync();  // what is left has been read
    if (g_.leader()) flip(columns, sink_);
    g_.sync();
    return true;
  }

  /// Column j, at distance mu, is closed, and its row i is the next.
  HN_HD void settle(int t, int j, int i, T mu) const {
    g_.sync();
    if (g_.leader()) {
      w_.cols[t] = j;
      w_.col_dist[j] = mu;
      w_.price[j] = -huge;
      w_.reach[j] = huge;
      w_.rows[t] = i;
      w_.row_dist[i] = mu;
    }
    g_.sync();
  }

  /// Duals of what a search has settled; that of row `out` becomes `value`.
  HN_HD void raise(int settled, T mu, int out, T value) const {
    HN_ROLLED
    for (int t = g_.begin(); t < settled; t += g_.step()) {
      const int i = w_.rows[t], j = w_.cols[t];
      u_[i] = i == out ? value : u_[i] + (mu - w_.row_dist[i]);
      w_.v[j] -= mu - w_.col_dist[j];
    }
  }

  /// Column j goes to the row before it, the column of that to the row before, up to one that had none. For the leader.
  HN_HD void flip(const Array<int>& columns, int j) const {
    const bool whole = static_cast<const int*>(columns) == static_cast<const int*>(w_.col_of_row);
    HN_ROLLED
    for (int count = 0; count < s_.m && j >= 0; ++count) {
      const int i = static_cast<int>(w_.via[j]);
      const int next = columns[i];
      columns[i] = j;
      if (whole) w_.row_of_col[j] = i;
      j = next;
    }
  }

  const G& g_;
  const Shape& s_;
  const Work& w_;
  const Array<T> u_;
  bool fits_ = false;
  int asked_ = 0, paths_ = 0, sink_ = -1;
  T unit_ = 0, part_ = 0, price_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
