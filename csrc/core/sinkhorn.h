// Entropic transport in the log domain: min <C, T> + epsilon sum T (log T - 1) over couplings,
//   T_ij = exp((f_i + g_j - C_ij) / epsilon),  f and g updated in turn by log-sum-exp.
// Columns lie on lanes: a row's log-sum is a reduction over lanes, a column's stays on its lane.
// Each problem stops alone, when the L1 error of its row masses is at most tol (columns are exact).
// Complexity: O(n m) exponentials per iteration.
#pragma once

#include "arena.h"
#include "transport.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct SinkhornWork {
  Array<T> log_a, log_b;  // (n), (ld); -huge in the padding
  Array<T> f, g;          // duals, (n), (ld)
  Array<T> next;          // row duals of the sweep at hand, (n)
};

template <class T>
HN_HD SinkhornWork<T> take_sinkhorn(Arena& arena, const Shape& s) {
  return {arena.take<T>(s.n), arena.take<T>(s.ld), arena.take<T>(s.n), arena.take<T>(s.ld),
          arena.take<T>(s.n)};
}

template <class T>
struct SinkhornResult {
  T residual;
  int iterations;
  bool converged, finite;
};

/// log sum_j exp((g_j - cost_ij) / epsilon).
template <class G, class T>
HN_HD T row_log_sum(const G& g, const Shape& s, const T* row, const std::type_identity_t<T>* dual,
                    T inverse) {
  using Var = typename G::template Var<T>;
  Var most = G::splat(-Limits<T>::huge);
  const auto last = G::template splat_int<T>(s.m);
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const Var value = (g.load(dual + j0) - g.load(row + j0)) * G::splat(inverse);
    most = G::max(most, G::select(g.template index<T>(j0) < last, value, most));
  }
  const T peak = g.max_of(most);
  Var sum = G::splat(T(0));
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const Var value = (g.load(dual + j0) - g.load(row + j0)) * G::splat(inverse) - G::splat(peak);
    sum += G::select(g.template index<T>(j0) < last, G::exp(value), G::splat(T(0)));
  }
  return peak + ScalarLanes::log(g.sum(sum));
}

/// Runs from the duals in w.f, w.g; cost is (n, ld).
template <class G, class T>
HN_HD SinkhornResult<T> sinkhorn(const G& g, const Shape& s, const SinkhornWork<T>& w,
                                 const std::type_identity_t<T>* cost, T epsilon, T tol,
                                 int max_iter) {
  using Var = typename G::template Var<T>;
  const T inverse = 1 / epsilon;
  SinkhornResult<T> result{0, 0, false, true};
  HN_ROLLED
  for (int it = 0;; ++it) {
    T error = 0;
    HN_ROLLED
    for (int i = 0; i < s.n; ++i) {
      const T log_sum = row_log_sum(g, s, cost + i * s.ld, w.g, inverse);
      const T target = w.log_a[i];
      const T excess = ScalarLanes::exp(w.f[i] * inverse + log_sum) - ScalarLanes::exp(target);
      error += excess < 0 ? -excess : excess;
      if (g.leader()) w.next[i] = epsilon * (target - log_sum);
    }
    if (it > 0) {  // before the first sweep the duals are a guess
      result.residual = error;
      result.iterations = it;
      result.finite = error - error == 0;
      result.converged = error <= tol;
      if (result.converged || !result.finite || it == max_iter) return result;
    }
    g.sync();
    HN_ROLLED
    for (int i = g.begin(); i < s.n; i += g.step()) w.f[i] = w.next[i];
    g.sync();
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      Var most = G::splat(-Limits<T>::huge);
      HN_ROLLED
      for (int i = 0; i < s.n; ++i)
        most = G::max(most, (G::splat(w.f[i]) - g.load(cost + i * s.ld + j0)) * G::splat(inverse));
      Var sum = G::splat(T(0));
      HN_ROLLED
      for (int i = 0; i < s.n; ++i) {
        const Var value = (G::splat(w.f[i]) - g.load(cost + i * s.ld + j0)) * G::splat(inverse);
        sum += G::exp(value - most);
      }
      const Var dual = G::splat(epsilon) * (g.load(w.log_b + j0) - most - G::log(sum));
      g.store(w.g + j0, dual);
    }
  }
}

}  // namespace hotnas::HOTNAS_ISA
