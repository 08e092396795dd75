// The quadratic term, and its derivative in the structures at a fixed coupling (envelope theorem):
//   d/dCx_ik = weight sum_jl T_ij T_kl L'(Cx_ik - Cy_jl),   d/dCy_jl = -weight sum_ik of the same.
// L' is the sign for l1 (0 at ties, a subgradient) and twice the difference for l2.
#pragma once

#include "pair_cost.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct FgwBackwardWork {
  Array<T> plan, cx, cy;    // (n, ld), (n, ldn), (m, ld) with cy[j * ld + l] = Cy_jl
  Array<T> grad_x, grad_y;  // like cx, cy
};

template <class T>
HN_HD FgwBackwardWork<T> take_fgw_backward(Arena& arena, const Shape& s) {
  const std::size_t own = static_cast<std::size_t>(s.n) * s.ldn;
  const std::size_t other = static_cast<std::size_t>(s.m) * s.ld;
  return {arena.take_far<T>(static_cast<std::size_t>(s.n) * s.ld), arena.take_far<T>(own),
          arena.take_far<T>(other), arena.take_far<T>(own), arena.take_far<T>(other)};
}

/// Leaves the derivatives in the work space and returns weight times the quadratic term.
template <class G, class Terms, class T>
HN_HD T fgw_backward(const G& g, const Shape& s, const Terms& terms, const FgwBackwardWork<T>& w,
                     T weight) {
  using Var = typename G::template Var<T>;
  const Var none = G::splat(T(0));
  const Pairs pairs = terms.pairs();
  for (int e = g.begin(); e < s.n * s.ldn; e += g.step()) w.grad_x[e] = 0;
  for (int e = 0; e < s.m * s.ld; e += G::width) g.store(w.grad_y + e, none);
  g.sync();
  Var value = none;  // of terms that are not negative: large structures that agree do not cancel
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    HN_ROLLED
    for (int j = 0; j < s.m; ++j) {
      g.poll(std::int64_t{s.n} * s.ld);
      const T mass = w.plan[i * s.ld + j];
      if (!(mass > 0)) continue;
      const auto here = G::template splat_int<T>(j);
      HN_ROLLED
      for (int k = pairs == Pairs::ordered ? i + 1 : 0; k < s.n; ++k) {
        if (pairs == Pairs::directed && k == i) continue;
        Var sum = none, row = none;
        HN_ROLLED
        for (int l0 = 0; l0 < s.ld; l0 += G::width) {
          const auto at = g.template index<T>(l0);
          Var share = G::splat(weight * mass) * g.load(w.plan + k * s.ld + l0);
          if (pairs == Pairs::directed) share = G::select(at == here, none, share);
          if (pairs == Pairs::ordered) share = G::select(at > here, share, none);
          // entries that no mass meets can be so large that their difference overflows
          const Var difference = G::select(
              share == none, none, G::splat(w.cx[i * s.ldn + k]) - g.load(w.cy + j * s.ld + l0));
          Var slope;
          if (terms.loss() == Loss::l1)
            slope = G::select(difference > none, G::splat(T(1)),
                              G::select(difference < none, G::splat(T(-1)), none));
          else
            slope = G::splat(T(2)) * difference;
          const Var change = share * slope;
          sum += change;
          row += change * difference;
          g.store(w.grad_y + j * s.ld + l0, g.load(w.grad_y + j * s.ld + l0) - change);
        }
        value += row;
        const T total = g.sum(sum);
        if (g.leader()) w.grad_x[i * s.ldn + k] += total;
      }
    }
  }
  g.sync();
  return (terms.loss() == Loss::l1 ? T(1) : T(0.5)) * g.sum(value);
}

}  // namespace hotnas::HOTNAS_ISA
