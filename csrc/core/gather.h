// One item of a batch, from the caller's arrays into the work space: which nodes carry mass, whether the
// masses can be matched, and the rows and columns between those nodes.
#pragma once

#include "arguments.h"
#include "pair_cost.h"
#include "scale.h"

namespace hotnas::HOTNAS_ISA {

/// One side of a problem in the caller's arrays; no masses means that every node is present.
template <class T>
struct Side {
  const T* mass;
  int nodes;
};

/// The nodes that carry mass, and whether all carry the same.
struct Support {
  Array<int> node;
  int count;
  bool uniform;
};

/// Room for the nodes with mass.
struct GatherWork {
  Array<int> x, y;
};

HN_HD GatherWork take_gather(Arena& arena, int n, int m) {
  return {arena.take_far<int>(n), arena.take_far<int>(m)};
}

template <class G, class T>
HN_HD void fill(const G& g, std::type_identity_t<T>* to, std::size_t count, T value) {
  HN_ROLLED
  for (std::size_t e = g.begin(); e < count; e += g.step()) to[e] = value;
}

/// Masses that can be matched: finite, not negative, equal totals up to rounding.
template <class G, class T>
HN_HD Status check_masses(const G& g, const Side<T>& a, const Side<T>& b) {
  T total_a = 0, total_b = 0, negative = 0;
  HN_ROLLED
  for (int i = g.begin(); i < a.nodes; i += g.step()) {
    total_a += a.mass[i];
    if (a.mass[i] < 0) negative = 1;
  }
  HN_ROLLED
  for (int j = g.begin(); j < b.nodes; j += g.step()) {
    total_b += b.mass[j];
    if (b.mass[j] < 0) negative = 1;
  }
  total_a = g.total(total_a);
  total_b = g.total(total_b);
  negative = g.total(negative);
  if (!(total_a - total_a == 0) || !(total_b - total_b == 0)) return Status::nonfinite;
  const T larger = total_a < total_b ? total_b : total_a;
  const T gap = total_a < total_b ? total_b - total_a : total_a - total_b;
  return negative > 0 || gap > Limits<T>::root_epsilon * larger ? Status::infeasible
                                                                : Status::converged;
}

/// Lists all nodes.
template <class G>
HN_HD Support list_nodes(const G& g, int nodes, Array<int> list) {
  HN_ROLLED
  for (int i = g.begin(); i < nodes; i += g.step()) list[i] = i;
  g.sync();
  return {list, nodes, true};
}

/// Lists the nodes that carry mass, in order.
template <class G, class T>
HN_HD Support list_support(const G& g, const Side<T>& side, Array<int> list) {
  int count = 0;
  T others = 0;
  if constexpr (std::is_same_v<typename G::template Var<T>, T>) {
    const int rows = padded<G>(side.nodes);
    for (int i0 = 0; i0 < rows; i0 += G::width) {
      const int i = static_cast<int>(g.template index<T>(i0));
      count = g.template append<T>(i < side.nodes && side.mass[i] > 0, i0, list, count);
    }
    g.sync();
    HN_ROLLED
    for (int t = g.begin(); t < count; t += g.step())
      if (side.mass[list[t]] != side.mass[list[0]]) others = 1;
  } else {  // one thread holds all lanes, and is quicker without them
    T first = 0;
    for (int i = 0; i < side.nodes; ++i) {
      const T mass = side.mass[i];
      first = count ? first : mass;
      if (mass > 0 && mass != first) others = 1;
      list[count] = i;
      count += mass > 0 ? 1 : 0;
    }
  }
  return {list, count, g.total(others) == 0};
}

template <class G>
HN_HD Shape shape_of(const Support& x, const Support& y) {
  return {x.count, y.count, padded<G>(y.count), padded<G>(x.count),
          x.count == y.count && x.uniform && y.uniform};
}

/// Which dummies there are where the last of the caller's n and m nodes may be.
HN_HD Dummies list_dummies(const Support& x, const Support& y, int n, int m, bool may_be) {
  if (!may_be || x.count == 0 || y.count == 0) return {false, false};
  return {x.node[x.count - 1] == n - 1, y.node[y.count - 1] == m - 1};
}

/// What the loaded masses count: a unit is `unit` of a total of 1 to 2, times 2^exponent in the caller's.
template <class T>
struct MassUnit {
  T unit;
  int exponent;
};

/// Masses in units: whole numbers where both sides are uniform, so that no dust is left over.
template <class G, class T>
HN_HD MassUnit<T> load_masses(const G& g, const Support& x, const Support& y, const T* a,
                              const T* b, std::type_identity_t<T>* out_a,
                              std::type_identity_t<T>* out_b) {
  const bool whole = x.uniform && y.uniform;
  const bool equal = x.count == y.count;
  T total = 0;
  HN_ROLLED
  for (int i = g.begin(); i < x.count; i += g.step()) total += a[x.node[i]];
  total = g.total(total);
  const int exponent = exponent_of(total);
  const T factor = power_of_two<T>(-exponent);
  HN_ROLLED
  for (int i = g.begin(); i < x.count; i += g.step())
    out_a[i] = whole ? T(equal ? 1 : y.count) : a[x.node[i]] * factor;
  HN_ROLLED
  for (int j = g.begin(); j < y.count; j += g.step())
    out_b[j] = whole ? T(equal ? 1 : x.count) : b[y.node[j]] * factor;
  if (!whole || x.count == 0) return {1, exponent};
  return {equal ? a[x.node[0]] * factor : total * factor / (T(x.count) * T(y.count)), exponent};
}

/// Whether those are the first nodes.
HN_HD bool has_no_gaps(const Support& x) {
  return x.count > 0 && x.node[x.count - 1] == x.count - 1;
}

/// Rows and columns with mass of a (.., stride) matrix, padded with zeros; each lane its own columns. Returns 0, or NaN
/// on a lane that met what is no number.
template <class G, class T>
HN_HD T load_matrix(const G& g, const Support& x, const Support& y, const T* from, int stride,
                    int ld, std::type_identity_t<T>* to) {
  T defect = 0;
  if constexpr (one_thread<G, T>) {  // whole rows at once
    if (has_no_gaps(y)) {
      auto on_lanes = G::splat(T(0));
      for (int i = 0; i < x.count; ++i) {
        const T* row = from + static_cast<std::size_t>(x.node[i]) * stride;
        T* out = to + i * ld;
        for (int j = 0; j < y.count; ++j) out[j] = row[j];
        for (int j = y.count; j < ld; ++j) out[j] = 0;
        for (int j0 = 0; j0 < ld; j0 += G::width) {
          const auto value = g.load(out + j0);
          on_lanes += value - value;
        }
      }
      return g.sum(on_lanes);
    }
  }
  HN_ROLLED
  for (int i = 0; i < x.count; ++i) {
    const T* row = from + static_cast<std::size_t>(x.node[i]) * stride;
    T* out = to + i * ld;
    int j = g.begin();
    HN_ROLLED
    for (; j < y.count; j += g.step()) {
      const T value = row[y.node[j]];
      out[j] = value;
      defect += value - value;
    }
    HN_ROLLED
    for (; j < ld; j += g.step()) out[j] = 0;
  }
  return defect;
}

/// The structures of both sides; returns as load_matrix.
template <class G, class T>
HN_HD T load_structures(const G& g, const Shape& s, const Support& x, const Support& y,
                        const T* struct_x, int n, const T* struct_y, int m,
                        const Structures<T>& c) {
  T defect = load_matrix(g, x, x, struct_x, n, s.ldn, c.cx);
  HN_ROLLED
  for (int l = 0; l < s.m; ++l) {
    int j = g.begin();
    HN_ROLLED
    for (; j < s.m; j += g.step())
      c.cyt[l * s.ld + j] = struct_y[static_cast<std::size_t>(y.node[j]) * m + y.node[l]];
    HN_ROLLED
    for (; j < s.ld; j += g.step()) c.cyt[l * s.ld + j] = 0;
  }
  defect += load_matrix(g, y, y, struct_y, m, s.ld, c.cy);
  g.sync();
  T differ = 0;
  HN_ROLLED
  for (int i = 1 + g.begin(); differ == 0 && i < s.n; i += g.step()) HN_ROLLED
  for (int k = 0; k < i; ++k)
    if (!(c.cx[i * s.ldn + k] == c.cx[k * s.ldn + i])) differ = 1;
  HN_ROLLED
  for (int l = 1 + g.begin(); differ == 0 && l < s.m; l += g.step()) HN_ROLLED
  for (int j = 0; j < l; ++j)
    if (!(c.cy[l * s.ld + j] == c.cyt[l * s.ld + j])) differ = 1;
  differ = g.total(differ);
  if (g.leader()) *c.symmetric = differ == 0 ? 1 : 0;
  g.sync();  // all lanes have compared, before any of them scales
  return defect;
}

/// Results that are in the caller's unit already.
struct SameUnit {
  template <class T>
  HN_HD T operator()(T value) const {
    return value;
  }
};

/// Writes an (n, ld) matrix of the work space to its places in an (.., stride) matrix of the caller.
template <class G, class T, class Unit = SameUnit>
HN_HD void store_matrix(const G& g, const Support& x, const Support& y,
                        const std::type_identity_t<T>* from, int ld, T* to, int stride,
                        Unit unit = {}) {
  if constexpr (one_thread<G, T>) {  // whole rows at once
    if (has_no_gaps(y)) {
      for (int i = 0; i < x.count; ++i) {
        T* row = to + static_cast<std::size_t>(x.node[i]) * stride;
        for (int j = 0; j < y.count; ++j) row[j] = unit(from[i * ld + j]);
      }
      return;
    }
  }
  HN_ROLLED
  for (int i = 0; i < x.count; ++i) {
    T* row = to + static_cast<std::size_t>(x.node[i]) * stride;
    HN_ROLLED
    for (int j = g.begin(); j < y.count; j += g.step()) row[y.node[j]] = unit(from[i * ld + j]);
  }
}

template <class G, class T, class Unit = SameUnit>
HN_HD void store_vector(const G& g, const Support& x, const std::type_identity_t<T>* from, T* to,
                        Unit unit = {}) {
  HN_ROLLED
  for (int i = g.begin(); i < x.count; i += g.step()) to[x.node[i]] = unit(from[i]);
}

}  // namespace hotnas::HOTNAS_ISA
