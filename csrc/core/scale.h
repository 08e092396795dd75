// Exact changes of unit. Every problem is solved where its numbers are of size 1: what the caller measures in, and how
// large a magnitude the type holds, then change no decision of a solver. Powers of two do it without rounding.
#pragma once

#include <cstring>

#include "group.h"

namespace hotnas::HOTNAS_ISA {

/// e with 2^e <= |x| < 2^(e + 1), kept where 2^e and 2^-e are normal numbers.
template <class T>
HN_HD int exponent_of(T x) {
  constexpr int digits = Limits<T>::digits, most = Limits<T>::exponent;
  LaneInt<T> bits;
  memcpy(&bits, &x, sizeof(T));
  const int e = static_cast<int>(bits >> digits & (2 * most + 3)) - (most + 1);
  return e < -most ? -most : e > most ? most : e;
}

/// 2^e; 0 or infinity where that is no normal number.
template <class T>
HN_HD T power_of_two(int e) {
  constexpr int digits = Limits<T>::digits, most = Limits<T>::exponent;
  const int biased = e < -most ? 0 : e > most + 1 ? 2 * most + 3 : e + most + 1;
  const LaneInt<T> bits = static_cast<LaneInt<T>>(biased) << digits;
  T power;
  memcpy(&power, &bits, sizeof(T));
  return power;
}

/// Multiplication by 2^e in two steps, as squares have exponents that T has not.
template <class T>
class Back {
 public:
  HN_HD explicit Back(int e)
      : first_(power_of_two<T>(e / 2)), second_(power_of_two<T>(e - e / 2)) {}
  /// Of a number, or of one per lane.
  template <class V>
  HN_HD V operator()(V value) const {
    return value * first_ * second_;
  }

 private:
  T first_, second_;
};

/// Looks at `count` values in rows of lanes: `most` becomes the largest magnitude on each lane, and `defect` no number
/// where a value is none.
template <class G, class T>
HN_HD void survey(const G& g, const T* values, int count, typename G::template Var<T>& most,
                  typename G::template Var<T>& defect) {
  HN_ROLLED
  for (int e = 0; e < count; e += G::width) {
    const auto value = g.load(values + e);
    most = G::max(most, G::abs(value));
    defect += value - value;
  }
}

/// The same of costs, of which +infinity forbids a pair and has no size; `forbids` becomes 1 on a lane that met it.
template <class G, class T>
HN_HD void survey_costs(const G& g, const T* costs, int count, typename G::template Var<T>& most,
                        typename G::template Var<T>& defect, typename G::template Var<T>& forbids) {
  const auto none = G::splat(T(0)), one = G::splat(T(1)), infinite = G::splat(T(INFINITY));
  HN_ROLLED
  for (int e = 0; e < count; e += G::width) {
    const auto cost = g.load(costs + e);
    const auto forbidden = cost == infinite;
    const auto value = G::select(forbidden, none, cost);
    forbids = G::max(forbids, G::select(forbidden, one, none));
    most = G::max(most, G::abs(value));
    defect += value - value;
  }
}

/// The largest magnitude of `count` values in rows of lanes; no number where one of them is none.
template <class G, class T>
HN_HD T largest_of(const G& g, const T* values, int count) {
  typename G::template Var<T> most = G::splat(T(0)), defect = most;
  survey(g, values, count, most, defect);
  return g.max_of(most) + g.sum(defect);
}

/// Each lane its own values, as it loaded them.
template <class G, class T>
HN_HD void multiply(const G& g, std::type_identity_t<T>* values, int count, T factor) {
  HN_ROLLED
  for (int e = 0; e < count; e += G::width)
    g.store(values + e, g.load(values + e) * G::splat(factor));
}

/// The same for costs; +infinity, which forbids a pair, becomes what the solvers take for it.
template <class G, class T>
HN_HD void scale_costs(const G& g, std::type_identity_t<T>* costs, int count, T factor) {
  const auto forbidden = G::splat(Limits<T>::huge), infinite = G::splat(T(INFINITY));
  HN_ROLLED
  for (int e = 0; e < count; e += G::width) {
    const auto cost = g.load(costs + e);
    g.store(costs + e, G::select(cost == infinite, forbidden, cost * G::splat(factor)));
  }
}

}  // namespace hotnas::HOTNAS_ISA
