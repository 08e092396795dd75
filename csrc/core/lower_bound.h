// A certified lower bound of fused Gromov-Wasserstein (Gilmore-Lawler): small transports inside one.
//   F(T) = sum_ij T_ij ( (1 - alpha) cost_ij + alpha/2 B(T)_ij ),   B(T)_ij >= ell_ij := min_V B'(V)_ij,
// where B'(V)_ij = sum_kl V_kl K^ij_kl is linear in V for fixed (i, j); then one transport with cost
// (1 - alpha) cost + alpha/2 ell. Complexity: n m transports of size n x m.
#pragma once

#include "fgw.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct LowerBoundWork {
  Structures<T> c;
  TransportWork<T> transport;
  Array<T> a, b, cost, local, kernel;  // masses in units; (n, ld) each
};

template <class T>
HN_HD LowerBoundWork<T> take_lower_bound(Arena& arena, const Shape& s) {
  LowerBoundWork<T> w{};
  const std::size_t matrix = static_cast<std::size_t>(s.n) * s.ld;
  w.c = take_structures<T>(arena, s);
  w.transport = take_transport<T>(arena, s);
  w.a = arena.take_far<T>(s.n);
  w.b = arena.take_far<T>(s.ld);
  w.cost = arena.take_far<T>(matrix);
  w.local = arena.take_far<T>(matrix);
  w.kernel = arena.take<T>(matrix);
  return w;
}

/// K^ij_kl for all k, l, into `out` (n, ld).
template <class G, class Terms, class T>
HN_HD void pair_kernel(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                       int i, int j, std::type_identity_t<T>* out) {
  using Var = typename G::template Var<T>;
  const auto here = G::template splat_int<T>(j);
  const Var none = G::splat(T(0));
  HN_ROLLED
  for (int k = 0; k < s.n; ++k) {
    HN_ROLLED
    for (int l0 = 0; l0 < s.ld; l0 += G::width) {
      const auto at = g.template index<T>(l0);
      // cy[j] holds Cy_jl and cyt[j] holds Cy_lj, l on lanes
      const Var forward =
          loss<G>(terms.loss(), G::splat(c.cx[i * s.ldn + k]) - g.load(c.cy + j * s.ld + l0));
      const Var backward =
          loss<G>(terms.loss(), G::splat(c.cx[k * s.ldn + i]) - g.load(c.cyt + j * s.ld + l0));
      Var value;
      if (terms.pairs() == Pairs::all)
        value = forward + backward;
      else if (terms.pairs() == Pairs::directed)
        value = k == i ? none : G::select(at == here, none, forward + backward);
      else
        value = k > i   ? G::select(at > here, forward, none)
                : k < i ? G::select(at < here, backward, none)
                        : none;
      g.store(out + k * s.ld + l0, value);
    }
  }
}

/// Returns the bound in the caller's unit, a true lower bound of F up to rounding; NaN where a transport problem has
/// no solution, or the bound is beyond T. Costs and structures are in those of `units`, and `unit` is the mass of one
/// unit of a and b.
template <class G, class Terms, class T>
HN_HD T fgw_lower_bound(const G& g, const Shape& s, const Terms& terms, const LowerBoundWork<T>& w,
                        const FgwUnits<T>& units, T unit) {
  using Var = typename G::template Var<T>;
  Transport<G, T> transport(g, s, w.transport);
  bool complete = true;
  const auto dual_value = [&](const T* cost) {
    transport.set_out(cost, w.a, w.b);
    complete &= transport.solve(cost);
    transport.settle(cost);
    T value = 0;
    HN_ROLLED
    for (int i = 0; i < s.n; ++i) value += w.a[i] * transport.u()[i];
    HN_ROLLED
    for (int j = 0; j < s.m; ++j) value += w.b[j] * w.transport.v[j];
    g.sync();
    return value * unit;
  };
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    HN_ROLLED
    for (int j = 0; j < s.m; ++j) {
      g.poll(std::int64_t{s.n} * s.ld);
      pair_kernel(g, s, terms, w.c, i, j, w.kernel);
      const T least = dual_value(w.kernel);
      if (g.leader()) w.local[i * s.ld + j] = least;
    }
    HN_ROLLED
    for (int j = s.m + g.begin(); j < s.ld; j += g.step()) w.local[i * s.ld + j] = 0;
  }
  g.sync();
  for (int e = 0; e < s.n * s.ld; e += G::width) {
    const Var linear = G::splat(units.linear) * g.load(w.cost + e);
    const Var value = linear + G::splat(units.pair / 2) * g.load(w.local + e);
    g.store(w.kernel + e,
            G::select(is_forbidden<G, T>(g.load(w.cost + e)), G::splat(Limits<T>::huge), value));
  }
  T value = dual_value(w.kernel);
  int unit_of_value = units.result;
  if (units.hidden > 0) {  // a raised term is a bound where the larger is 0, and too much elsewhere
    if (value <= units.hidden && never_negative(g, s, units, w.cost))
      unit_of_value = units.by_pair() ? units.of_linear : units.of_pair;
    else
      value -= units.hidden;
  }
  const T bound = Back<T>(unit_of_value)(value);
  return complete && bound - bound == 0 ? bound : T(NAN);
}

}  // namespace hotnas::HOTNAS_ISA
