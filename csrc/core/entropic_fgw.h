// Entropic fused Gromov-Wasserstein: a Sinkhorn problem per outer step, the quartic term contracted on
// the fly. With grad F(T) = (1 - alpha) cost + alpha B(T):
//   mirror descent   T+ = Sinkhorn(grad F(T)):                   a fixed point minimises F + epsilon H
//   proximal point   T+ = Sinkhorn(grad F(T) - epsilon log T):   epsilon is a step size, no entropy bias
// Duals are carried from one inner problem to the next. Stops when sum |T+ - T| and the row
// error are <= tol.
// Complexity: O(n^2 m^2) per outer step for B of a dense coupling; O(n m (n + m)) of large ones for the squared loss.
#pragma once

#include "pair_cost.h"
#include "sinkhorn.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct EntropicFgwWork {
  Structures<T> c;
  SinkhornWork<T> sinkhorn;
  Vertex<T> plan;                 // dense, as a list
  Array<T> cost, grad, log_plan;  // (n, ld)
};

template <class T>
HN_HD EntropicFgwWork<T> take_entropic_fgw(Arena& arena, const Shape& s) {
  EntropicFgwWork<T> w{};
  const std::size_t matrix = static_cast<std::size_t>(s.n) * s.ld;
  w.c = take_structures<T>(arena, s);
  w.sinkhorn = take_sinkhorn<T>(arena, s);
  w.plan = take_vertex<T>(arena, matrix);
  w.cost = arena.take_far<T>(matrix);
  w.grad = arena.take_far<T>(matrix);
  w.log_plan = arena.take_far<T>(matrix);
  return w;
}

template <class T>
struct EntropicFgwResult {
  T residual;
  int iterations;
  bool converged, finite;
};

/// How steps are taken, and what is known of the problem.
template <class T>
struct EntropicFgwWay {
  T epsilon;
  bool proximal;
  bool started;  // whether log_plan holds a plan to start from, and not its logarithm
  bool forbids;  // whether there are pairs whose cost is `huge`
};

/// Puts in the place of forbidden costs what leaves such a pair no mass: more than the duals of a coupling of the others
/// differ by along its arcs, which is by costs and logarithms of masses.
template <class G, class T>
HN_HD void forbid_pairs(const G& g, const Shape& s, const EntropicFgwWork<T>& w, T epsilon) {
  using Var = typename G::template Var<T>;
  constexpr T underflow = sizeof(T) == 4 ? T(110) : T(750);  // exp(-underflow) is 0
  const Var none = G::splat(T(0));
  Var most = none;
  HN_ROLLED
  for (int e = 0; e < s.n * s.ld; e += G::width)
    most = G::max(
        most, G::select(is_forbidden<G, T>(g.load(w.cost + e)), none, G::abs(g.load(w.grad + e))));
  const Var far = G::splat(2 * static_cast<T>(s.n + s.m) * (g.max_of(most) + underflow * epsilon));
  HN_ROLLED
  for (int e = 0; e < s.n * s.ld; e += G::width)
    g.store(w.grad + e, G::select(is_forbidden<G, T>(g.load(w.cost + e)), far, g.load(w.grad + e)));
}

/// B of the plan, into grad.
template <class G, class Terms, class T>
HN_HD void plan_pair_cost(const G& g, const Shape& s, const Terms& terms,
                          const EntropicFgwWork<T>& w) {
  if constexpr (one_thread<G, T>) {
    const SinkhornWork<T>& free = w.sinkhorn;  // what lies there is made anew by each inner problem
    if (multiplies(s, terms))
      return dense_pair_cost(g, s, w.c, w.plan.mass, s.m, free.by_row, free.next_u, free.next_v,
                             w.grad);
  }
  pair_cost(g, s, terms, w.c, w.plan, w.grad);
}

/// Expects log masses in w.sinkhorn; leaves log_plan and the last inner duals.
template <class G, class Terms, class T>
HN_HD EntropicFgwResult<T> entropic_fgw(const G& g, const Shape& s, const Terms& terms,
                                        const EntropicFgwWork<T>& w, T alpha,
                                        const EntropicFgwWay<T>& way, T tol, int max_iter,
                                        T inner_tol, int inner_max_iter) {
  using Var = typename G::template Var<T>;
  const T epsilon = way.epsilon, inverse = 1 / epsilon;
  HN_ROLLED
  for (int i = g.begin(); i < s.ldn; i += g.step()) w.sinkhorn.f[i] = 0;
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    g.store(w.sinkhorn.g + j0, G::splat(T(0)));
    HN_ROLLED
    for (int i = 0; i < s.n && !way.started; ++i)
      g.store(w.log_plan + i * s.ld + j0,
              G::splat(w.sinkhorn.log_a[i]) + g.load(w.sinkhorn.log_b + j0));
  }
  g.sync();
  int count = 0;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) HN_ROLLED
  for (int j = 0; j < s.m; ++j, ++count)
    if (g.leader()) {
      T& entry = w.log_plan[i * s.ld + j];
      w.plan.set(count, i, j, s.ld, way.started ? entry : ScalarLanes::exp(entry));
      if (way.started) entry = ScalarLanes::log(entry);
    }
  if (g.leader()) *w.plan.count = count;
  if constexpr (one_thread<G, T>)
    if (multiplies(s, terms)) centre_structures(g, s, w.c);
  g.sync();
  EntropicFgwResult<T> result{0, 0, false, true};
  while (result.iterations < max_iter) {
    plan_pair_cost(g, s, terms, w);
    for (int e = 0; e < s.n * s.ld; e += G::width) {
      Var value = G::splat(1 - alpha) * g.load(w.cost + e) + G::splat(alpha) * g.load(w.grad + e);
      if (way.proximal) value -= G::splat(epsilon) * g.load(w.log_plan + e);
      g.store(w.grad + e, value);
    }
    if (way.forbids) forbid_pairs(g, s, w, epsilon);
    const SinkhornResult<T> inner =
        sinkhorn(g, s, w.sinkhorn, w.grad, epsilon, inner_tol, inner_max_iter);
    ++result.iterations;
    result.finite = inner.finite;
    if (!inner.finite) return result;
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var dual = g.load(w.sinkhorn.g + j0);
      HN_ROLLED
      for (int i = 0; i < s.n; ++i) {
        const Var cost = g.load(w.grad + i * s.ld + j0);
        g.store(w.log_plan + i * s.ld + j0,
                (G::splat(w.sinkhorn.f[i]) + dual - cost) * G::splat(inverse));
      }
    }
    HN_ROLLED
    for (int e = 0; e < s.n * s.ld && way.forbids; e += G::width)
      g.store(w.log_plan + e, G::select(is_forbidden<G, T>(g.load(w.cost + e)),
                                        G::splat(T(-INFINITY)), g.load(w.log_plan + e)));
    g.sync();
    T moved = 0;
    HN_ROLLED
    for (int t = g.begin(); t < count; t += g.step()) {
      const T now = w.sinkhorn.by_row[w.plan.place[t]];  // the coupling that Sinkhorn has checked
      const T change = now - w.plan.mass[t];
      moved += change < 0 ? -change : change;
      w.plan.mass[t] = now;
    }
    // a plan that stands still because the inner problems are cut short is no solution
    const T change = g.total(moved);
    result.residual = change > inner.residual ? change : inner.residual;
    g.sync();
    result.finite = result.residual - result.residual == 0;
    if (!result.finite) return result;
    if (result.residual <= tol) {
      result.converged = true;
      return result;
    }
  }
  return result;
}

}  // namespace hotnas::HOTNAS_ISA
