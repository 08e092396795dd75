// Trees of rows and columns, and mass that moves along them: column j is node j, row i is node ld + i.
#pragma once

#include "arena.h"

namespace hotnas::HOTNAS_ISA {

/// Each node but the roots knows its parent and what flows between the two, always from the row to the column.
template <class T>
struct Forest {
  Array<T> flow;
  Array<int> parent, child, next, last;  // -1: none; children are a list linked both ways
  Array<int> depth;                      // below the root

  HN_HD void hang(int x, int from) const {
    const int first = child[from];
    next[x] = first;
    last[x] = -1;
    if (first >= 0) last[first] = x;
    child[from] = x;
  }

  HN_HD void unhang(int x, int from) const {
    const int after = next[x], before = last[x];
    if (after >= 0) last[after] = before;
    if (before >= 0)
      next[before] = after;
    else if (from >= 0)
      child[from] = after;
  }

  /// What is below the arc of node `top`, or all of its tree where it is the root, hangs from `above` now, by node `x`.
  HN_HD void turn(int x, int top, int above, T moved) const {
    HN_ROLLED
    for (;;) {
      const int from = parent[x];
      const T old = flow[x];
      unhang(x, from);
      parent[x] = above;
      flow[x] = moved;
      hang(x, above);
      if (x == top) return;
      above = x;
      x = from;
      moved = old;
    }
  }

  /// Arc (i, j), both of whose nodes are in one tree, enters it: mass goes around the cycle that it closes, and what runs
  /// dry leaves. Of several that do, the last one on the way around from the cycle's top. Returns the node of the new arc
  /// that lies below the other.
  HN_HD int exchange(int ld, int i, int j) const {
    // mass comes down from the top of the cycle to i, and goes up there from j
    T down = Limits<T>::huge, up = down;
    int dry_down = -1, dry_up = -1;
    int x = ld + i, y = j;
    HN_ROLLED
    while (x != y) {
      if (depth[x] >= depth[y]) {
        if (x >= ld && flow[x] < down) {
          down = flow[x];
          dry_down = x;
        }
        x = parent[x];
      } else {
        if (y < ld && flow[y] <= up) {
          up = flow[y];
          dry_up = y;
        }
        y = parent[y];
      }
    }
    const bool by_up = up <= down;
    const T moved = by_up ? up : down;
    if (moved > 0) {
      HN_ROLLED
      for (int z = ld + i; z != x; z = parent[z]) flow[z] += z < ld ? moved : -moved;
      HN_ROLLED
      for (int z = j; z != x; z = parent[z]) flow[z] += z < ld ? -moved : moved;
    }
    const int below = by_up ? j : ld + i;
    turn(below, by_up ? dry_up : dry_down, by_up ? ld + i : j, moved);
    return below;
  }
};

template <class T>
HN_HD void take_forest(Arena& arena, std::size_t nodes, Forest<T>& f) {
  f.flow = arena.take<T>(nodes);
  f.parent = arena.take<int>(nodes);
  f.child = arena.take<int>(nodes);
  f.next = arena.take<int>(nodes);
  f.last = arena.take<int>(nodes);
  f.depth = arena.take<int>(nodes);
}

/// Sizes of a problem after rows and columns without mass were removed.
struct Shape {
  int n, m;     // rows, columns
  int ld, ldn;  // m and n rounded up to the lane width
  bool assignment;
};

/// Rows whose costs are looked at together, for one arc: all of a small problem. Not by lanes, so that their number
/// changes no pivot.
HN_HD int rows_at_once(const Shape& s) {
  constexpr int most_looked_at = 512;
  const int some = (most_looked_at + s.m - 1) / s.m;
  return some < s.n ? some : s.n;
}

/// The arc that costs least beside the duals of its nodes, as its place in the matrix; -1 where nothing costs less than
/// `bound`. Some rows are looked at, from row `from` on, and more only where none of them has one.
template <class G, class T>
HN_HD MinAt<T> cheapest_arc(const G& g, const Shape& s, const std::type_identity_t<T>* cost,
                            const std::type_identity_t<Array<T>>& dual, T bound, int from) {
  using Var = typename G::template Var<T>;
  const int rows = rows_at_once(s);
  HN_ROLLED
  for (int seen = 0; seen < s.n; seen += rows) {
    const int to = from + rows < s.n ? from + rows : s.n;
    Var best = G::splat(bound);
    auto at = G::template splat_int<T>(-1);
    HN_ROLLED
    for (int i = from; i < to; ++i) {
      const Var u = G::splat(dual[s.ld + i]);
      HN_ROLLED
      for (int j0 = 0; j0 < s.ld; j0 += G::width) {
        const Var rest = (g.load(cost + i * s.ld + j0) - g.load(dual + j0)) - u;
        at = G::select(rest < best, g.template index<T>(i * s.ld + j0), at);
        best = G::min(best, rest);
      }
    }
    const MinAt<T> least = g.template min_at<T>(best, at);
    if (least.value < bound) return least;
    from = to == s.n ? 0 : to;
  }
  return {0, -1};
}

/// u_i = min_j (cost_ij - v_j): duals of rows that are feasible up to one rounding.
template <class G, class T>
HN_HD void settle_rows(const G& g, const Shape& s, const std::type_identity_t<T>* cost,
                       const std::type_identity_t<Array<T>>& dual) {
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    auto least = G::splat(2 * Limits<T>::huge);
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width)
      least = G::min(least, g.load(cost + i * s.ld + j0) - g.load(dual + j0));
    const T value = -g.max_of(-least);
    if (g.leader()) dual[s.ld + i] = value;
  }
  g.sync();
}

}  // namespace hotnas::HOTNAS_ISA
