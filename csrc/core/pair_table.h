// Pair costs of small problems, kept from one coupling to the next: those of moving node k to node l, for all other
// pairs of nodes, are the same whatever else a coupling does. The couplings that one problem meets have a few dozen such
// moves between them, each of which many of them make, and B(V) is a sum of what is kept.
//
// Of magnitudes alone: a compiler contracts products, and squares would be rounded in another way than in pair_cost.
// For groups whose lanes are one thread: they say by a member `tabulates` whether the table of a type is small enough.
#pragma once

#include "pair_cost.h"

namespace hotnas::HOTNAS_ISA {

template <class G, class T>
concept Tabulates = requires { requires G::template tabulates<T>; };

/// Of a group that keeps nothing.
template <class G, class T>
struct PairTable {};

template <class G, class T>
  requires Tabulates<G, T>
class PairTable<G, T> {
  using Var = typename G::template Var<T>;
  static constexpr int width = G::width, entry = width * width;

 public:
  static bool fits(const Shape& s) { return s.n <= width && s.ld == width; }

  /// B(V), (n, ld), of the first `count` entries of V; to the bit that of `pair_cost`.
  template <class Terms>
  void sum(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
           const Vertex<T>& v, int count, T* out) {
    const bool one_way = terms.pairs() != Pairs::ordered && *c.symmetric;
    Var sum[width];
    for (int r = 0; r < width; ++r) sum[r] = G::splat(T(0));
    for (int t = 0; t < count; ++t) {
      const int move = v.row[t] * width + v.col[t];
      const T* costs = costs_ + move * entry;
      if (!(known_ >> move & 1)) find(g, s, terms, c, one_way, v.row[t], v.col[t]);
      const Var mass = G::splat(one_way ? v.mass[t] + v.mass[t] : v.mass[t]);
      for (int r = 0; r < width; ++r) sum[r] += mass * g.load(costs + r * width);
    }
    for (int r = 0; r < width; ++r)
      if (r < s.n) g.store(out + r * width, sum[r]);
  }

 private:
  /// What moving k to l costs all other pairs.
  template <class Terms>
  HN_APART void find(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                     bool one_way, int k, int l) {
    const Pairs pairs = terms.pairs();
    const auto column = g.template index<T>(0), at = G::template splat_int<T>(l);
    const Var into = g.load(c.cyt + l * width), from = g.load(c.cy + l * width);
    const Var none = G::splat(T(0));
    T* costs = costs_ + (k * width + l) * entry;
    for (int i = 0; i < width; ++i) {
      Var value = none;
      if (i < s.n && !(i == k && pairs != Pairs::all)) {
        const Var to_k = G::abs(G::splat(c.cx[i * s.ldn + k]) - into);
        const Var from_k = G::abs(G::splat(c.cx[k * s.ldn + i]) - from);
        if (pairs == Pairs::ordered)
          value = i < k ? G::select(column < at, to_k, none) : G::select(column > at, from_k, none);
        else
          value = one_way ? from_k : to_k + from_k;
        if (pairs == Pairs::directed) value = G::select(column == at, none, value);
      }
      g.store(costs + i * width, value);
    }
    known_ |= std::uint64_t{1} << (k * width + l);
  }

  static_assert(entry <= 64);
  std::uint64_t known_ = 0;
  alignas(64) T costs_[entry * entry];  // (k, l, i, j)
};

}  // namespace hotnas::HOTNAS_ISA
