// The quadratic term of fused Gromov-Wasserstein on a sparse coupling V:
//   B(V)_ij = sum_kl V_kl ( L(Cx_ik - Cy_jl) + L(Cx_ki - Cy_lj) )   over the pair set,
// so that  grad F = (1 - alpha) cost + alpha B(T)  and  F = (1 - alpha) <cost, T> + alpha/2 <B(T), T>.
// V has few entries, so B costs O(|V| n m) where the full sum costs n^2 m^2. Columns lie on lanes.
#pragma once

#include "group.h"
#include "transport.h"

namespace hotnas::HOTNAS_ISA {

enum class Loss : int { l1 = 0, l2 = 1 };
enum class Pairs : int { all = 0, directed = 1, ordered = 2 };

/// Structures laid out for the kernel: cx (n, n); cy[l * ld + j] = Cy_lj, cyt[l * ld + j] = Cy_jl.
template <class T>
struct Structures {
  T *cx, *cy, *cyt;
};

template <class T>
HN_HD Structures<T> take_structures(Arena& arena, const Shape& s) {
  const std::size_t across = static_cast<std::size_t>(s.m) * s.ld;
  return {arena.take<T>(static_cast<std::size_t>(s.n) * s.n), arena.take<T>(across),
          arena.take<T>(across)};
}

template <class G, Loss L, class Var>
HN_HD Var loss(Var difference) {
  if constexpr (L == Loss::l1)
    return G::abs(difference);
  else
    return difference * difference;
}

/// Rows [i, i + R) of B(V), written to out.
template <Loss L, Pairs P, int R, class G, class T>
HN_HD void pair_cost_rows(const G& g, const Shape& s, const Structures<T>& c, const Vertex<T>& v,
                          int count, int i, T* out) {
  using Var = typename G::template Var<T>;
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const auto column = g.template index<T>(j0);
    Var sum[R];
    for (int r = 0; r < R; ++r) sum[r] = G::splat(T(0));
    for (int t = 0; t < count; ++t) {
      const int k = v.row[t], l = v.col[t];
      const Var into = g.load(c.cyt + l * s.ld + j0), from = g.load(c.cy + l * s.ld + j0);
      const Var mass = G::splat(v.mass[t]), none = G::splat(T(0));
      const auto at = G::template splat_int<T>(l);
      if constexpr (P == Pairs::ordered) {
        const Var before = G::select(column < at, mass, none);
        const Var after = G::select(column > at, mass, none);
        for (int r = 0; r < R; ++r) {
          if (i + r < k)
            sum[r] += before * loss<G, L>(G::splat(c.cx[(i + r) * s.n + k]) - into);
          else if (i + r > k)
            sum[r] += after * loss<G, L>(G::splat(c.cx[k * s.n + i + r]) - from);
        }
      } else {
        const Var apart = P == Pairs::all ? mass : G::select(column == at, none, mass);
        for (int r = 0; r < R; ++r) {
          if (P == Pairs::directed && i + r == k) continue;
          const Var both = loss<G, L>(G::splat(c.cx[(i + r) * s.n + k]) - into) +
                           loss<G, L>(G::splat(c.cx[k * s.n + i + r]) - from);
          sum[r] += apart * both;
        }
      }
    }
    for (int r = 0; r < R; ++r) g.store(out + (i + r) * s.ld + j0, sum[r]);
  }
}

template <Loss L, Pairs P, class G, class T>
HN_HD void pair_cost(const G& g, const Shape& s, const Structures<T>& c, const Vertex<T>& v,
                     T* out) {
  const int count = *v.count;
  int i = 0;
  for (; i + 4 <= s.n; i += 4) pair_cost_rows<L, P, 4>(g, s, c, v, count, i, out);
  if (i + 2 <= s.n) {
    pair_cost_rows<L, P, 2>(g, s, c, v, count, i, out);
    i += 2;
  }
  if (i < s.n) pair_cost_rows<L, P, 1>(g, s, c, v, count, i, out);
}

}  // namespace hotnas::HOTNAS_ISA
