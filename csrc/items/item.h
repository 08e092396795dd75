// What the items of all operators share.
#pragma once

#include "../core/gather.h"

namespace hotnas::HOTNAS_ISA {

using std::int32_t;
using std::int64_t;

struct Nodes {
  int n, m;
};

/// The launcher's part of a work space: lanes per problem, atoms that FGW keeps apart, and the most nodes of
/// each side, with mass or without.
struct Sizing {
  int width, atoms, nodes_x, nodes_y;
};

HN_HD bool failed(Status status) {
  return status == Status::nonfinite || status == Status::infeasible;
}

/// Duals of the absent nodes: the largest that `count` nodes of the other side allow, 0 where none of them
/// does. allowed(i, k) is what node k allows node i.
template <class G, class T, class Allowed>
HN_HD void extend_dual(const G& g, const Side<T>& side, int count, T* dual, Allowed allowed) {
  HN_ROLLED
  for (int i = g.begin(); i < side.nodes; i += g.step()) {
    if (side.mass[i] > 0) continue;
    T least = 0;
    bool found = false;
    HN_ROLLED
    for (int k = 0; k < count; ++k) {
      const T value = allowed(i, k);
      if (value - value != 0 || (found && value >= least)) continue;  // what absent nodes hold
      least = value;
      found = true;
    }
    dual[i] = least;
  }
}

/// Duals of the absent nodes of both sides, none of which pays more than its cost at(i, j): rows by the columns
/// with mass, columns by all rows.
template <class G, class T, class Cost>
HN_HD void extend_duals(const G& g, const Side<T>& a, const Side<T>& b, const Support& x,
                        const Support& y, T* f, T* dual, Cost at) {
  if (y.count == 0 || (x.count == a.nodes && y.count == b.nodes)) return;
  g.sync();
  extend_dual(g, a, y.count, f, [&](int i, int k) { return at(i, y.node[k]) - dual[y.node[k]]; });
  g.sync();
  if constexpr (one_thread<G, T>) {  // costs lie row by row, and so they are read
    for (int j = 0; j < b.nodes; ++j)
      if (!(b.mass[j] > 0)) dual[j] = T(INFINITY);
    for (int i = 0; i < a.nodes; ++i)
      for (int j = 0; j < b.nodes; ++j) {
        if (b.mass[j] > 0) continue;
        const T value = at(i, j) - f[i];
        if (value - value == 0 && value < dual[j]) dual[j] = value;
      }
    for (int j = 0; j < b.nodes; ++j)
      if (dual[j] == T(INFINITY)) dual[j] = 0;
  } else {
    extend_dual(g, b, a.nodes, dual, [&](int j, int i) { return at(i, j) - f[i]; });
  }
}

/// 0, or NaN on a lane one of whose values, as it wrote them, is no number.
template <class T, class G>
HN_HD T defects(const G& g, const T* values, int count) {
  T defect = 0;
  HN_ROLLED
  for (int i = g.begin(); i < count; i += g.step()) defect += values[i] - values[i];
  return defect;
}

/// What problems between two lists of masses have in common.
template <class Args, class T>
struct BatchItem {
  using Arguments = Args;
  using Scalar = T;  // the caller's
  using Lane = T;    // what lanes hold

  HN_HD static Nodes nodes(const Args& p) { return {p.n, p.m}; }
  HN_HD static bool sides(const Args& p, int64_t item, Side<T>& a, Side<T>& b) {
    a = {p.a + item * p.n, p.n};
    b = {p.b + item * p.m, p.m};
    return true;
  }
  HN_HD static int64_t matrix(const Args& p) { return static_cast<int64_t>(p.n) * p.m; }
  HN_HD static int64_t own(const Args& p) { return static_cast<int64_t>(p.n) * p.n; }
  HN_HD static int64_t other(const Args& p) { return static_cast<int64_t>(p.m) * p.m; }
};

}  // namespace hotnas::HOTNAS_ISA
