// What is told of an entropic problem beside its duals: what its costs have in common before, its coupling and values
// after, in one pass each. The coupling is exp((f_i + g_j - C_ij) / epsilon), the objective that of the dual problem,
//   <f - epsilon log a, a> + <g - epsilon log b, b> - epsilon (sum T - 1),
// which by Hoeffding's lemma lies between <C, a b'> - spread^2 / 8 epsilon and <C, a b'>: where epsilon is large, duals of
// its size leave nothing else of the value.
#pragma once

#include "sinkhorn.h"

namespace hotnas::HOTNAS_ISA {

/// What rows and columns of the costs have in common.
template <class T>
struct Common {
  Array<T> of_rows, of_columns;  // (ldn), (ld); 0 in the padding of columns
};

template <class T>
HN_HD Common<T> take_common(Arena& arena, const Shape& s) {
  return {arena.take_far<T>(s.ldn), arena.take_far<T>(s.ld)};
}

/// Takes from the costs (n, ld) the least of each row, then of each column; what is left is multiplied by `factor`.
/// Returns whether T holds what is left. Row by row, while a row is near; lanes meet columns of their own alone, but for
/// of_rows.
template <class G, class T>
HN_HD bool reduce_costs(const G& g, const Shape& s, std::type_identity_t<T>* cost,
                        const Common<T>& common, T factor) {
  using Var = typename G::template Var<T>;
  const Var none = G::splat(T(INFINITY)), zero = G::splat(T(0));
  const auto last = G::template splat_int<T>(s.m);
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width)
    g.store(common.of_columns + j0, G::select(g.template index<T>(j0) < last, none, zero));
  Var apart = zero, most = zero;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    g.poll(2 * s.ld);
    T* row = cost + i * s.ld;
    Var least = none;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width)
      least = G::min(least, G::select(g.template index<T>(j0) < last, g.load(row + j0), none));
    const T of_row = -g.max_of(-least);
    if (g.leader()) common.of_rows[i] = of_row;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var rest =
          G::select(g.template index<T>(j0) < last, g.load(row + j0) - G::splat(of_row), zero);
      apart = G::max(apart, rest);
      g.store(row + j0, rest);
      g.store(common.of_columns + j0, G::min(g.load(common.of_columns + j0), rest));
    }
  }
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    T* row = cost + i * s.ld;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var rest = (g.load(row + j0) - g.load(common.of_columns + j0)) * G::splat(factor);
      most = G::max(most, rest);
      g.store(row + j0, rest);
    }
  }
  const T before = g.max_of(apart), after = g.max_of(most);
  return before - before == 0 && after - after == 0;
}

template <class T>
struct EntropicValues {
  T objective, linear;
};

/// Values of the coupling in w.by_row, of f and g, all in the caller's units: there, costs far below epsilon keep their
/// digits. `cost` is as it was before it was reduced, (n, ld); mass_a(i) and mass_b(j) are the masses.
template <class G, class T, class MassA, class MassB>
HN_HD EntropicValues<T> values_of(const G& g, const Shape& s, const SinkhornWork<T>& w,
                                  const std::type_identity_t<T>* cost, const Common<T>& common,
                                  T epsilon, MassA mass_a, MassB mass_b) {
  using Var = typename G::template Var<T>;
  const auto last = G::template splat_int<T>(s.m);
  const Var zero = G::splat(T(0));
  Var most = zero;
  T total = 0, linear = 0, product = 0;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    g.poll(s.ld);
    const Var of_row = G::splat(common.of_rows[i]);
    Var sum = zero, paid = zero, even = zero;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var given = g.load(cost + i * s.ld + j0), mass = g.load(w.by_row + i * s.ld + j0);
      const Var rest = G::select(g.template index<T>(j0) < last,
                                 (given - of_row) - g.load(common.of_columns + j0), zero);
      most = G::max(most, rest);
      sum += mass;
      paid += mass * given;
      even += rest * g.load(w.b + j0);
    }
    total += g.sum(sum);
    linear += g.sum(paid);
    product += w.a[i] * g.sum(even);
  }
  T value = 0, taken = 0;
  HN_ROLLED
  for (int i = g.begin(); i < s.n; i += g.step()) {
    value += mass_a(i) * (w.f[i] - epsilon * w.log_a[i]);
    taken += mass_a(i) * common.of_rows[i];
  }
  HN_ROLLED
  for (int j = g.begin(); j < s.m; j += g.step()) {
    value += mass_b(j) * (w.g[j] - epsilon * w.log_b[j]);
    taken += mass_b(j) * common.of_columns[j];
  }
  value = g.total(value) - epsilon * (total - 1);
  const T spread = g.max_of(most);
  if (spread < epsilon) {
    const T least = product - spread * (spread / (8 * epsilon));
    value = value < least ? least : product < value ? product : value;
  }
  return {value + g.total(taken), linear};
}

}  // namespace hotnas::HOTNAS_ISA
