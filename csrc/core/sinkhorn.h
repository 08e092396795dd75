// Entropic transport: min <C, T> + epsilon sum T (log T - 1) over couplings,
//   T_ij = exp((f_i + g_j - C_ij) / epsilon),  rows and columns made right in turn.
// A sweep is T = diag(u) K diag(v) with K the coupling of f and g, two multiplications per entry, until u or v is so
// large or small that K had lost what counts now. Then f and g take them up. Where not even one sweep of K is safe, one
// in the log domain, by log-sum-exp, overflows nowhere and takes two exponentials per entry.
// Each problem stops alone, when the coupling that f and g give as they are stored has row and column masses with L1
// errors of at most tol. Where rounding of f and g keeps it from that, it stops when more sweeps bring it no nearer.
// Complexity: O(n m) per iteration.
// Reference: Schmitzer, Stabilized sparse scaling algorithms for entropy regularized transport problems, 2019.
#pragma once

#include "arena.h"
#include "transport.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct SinkhornWork {
  Array<T> log_a, log_b;       // (ldn), (ld); 0 in the padding
  Array<T> f, g;               // duals, likewise, but anything in the padding
  Array<T> a, b;               // likewise; 0 in the padding
  Array<T> u, v;               // scalings, likewise; 1 in the padding
  Array<T> next_u, next_v;     // those of the sweep at hand, or row duals
  Array<T> by_row, by_column;  // K (n, ld) and its transpose (m, ldn); 0 in the padding
};

template <class T>
HN_HD SinkhornWork<T> take_sinkhorn(Arena& arena, const Shape& s) {
  return {arena.take_far<T>(s.ldn),
          arena.take_far<T>(s.ld),
          arena.take<T>(s.ldn),
          arena.take<T>(s.ld),
          arena.take<T>(s.ldn),
          arena.take<T>(s.ld),
          arena.take<T>(s.ldn),
          arena.take<T>(s.ld),
          arena.take<T>(s.ldn),
          arena.take<T>(s.ld),
          arena.take<T>(static_cast<std::size_t>(s.n) * s.ld),
          arena.take<T>(static_cast<std::size_t>(s.m) * s.ldn)};
}

template <class T>
struct SinkhornResult {
  T residual;
  int iterations;
  bool converged, finite;
};

/// Scalings up to this, and down to its inverse: what underflows in K stays below the rounding of a mass.
template <class T>
constexpr T largest_scaling = sizeof(T) == 4 ? T(1e6) : T(1e60);

/// A sum of exponentials, as exp(peak) * sum.
template <class T>
struct ExpSum {
  T peak, sum;
};

/// sum_j exp((g_j - cost_ij) / epsilon).
template <class G, class T>
HN_HD ExpSum<T> row_sum(const G& g, const Shape& s, const T* row,
                        const std::type_identity_t<T>* dual, T inverse) {
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
  return {peak, g.sum(sum)};
}

/// f_i = min_j (cost_ij - g_j), with which the largest entry of each row of K is 1.
template <class G, class T>
HN_HD void set_floor(const G& g, const Shape& s, const SinkhornWork<T>& w,
                     const std::type_identity_t<T>* cost) {
  const auto last = G::template splat_int<T>(s.m);
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    auto most = G::splat(-Limits<T>::huge);
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const auto value = g.load(w.g + j0) - g.load(cost + i * s.ld + j0);
      most = G::max(most, G::select(g.template index<T>(j0) < last, value, most));
    }
    const T floor = -g.max_of(most);
    if (g.leader()) w.f[i] = floor;
  }
  g.sync();
}

/// f_i = epsilon (log a_i - log sum_j exp((g_j - cost_ij) / epsilon)).
template <class G, class T>
HN_HD void set_row_duals(const G& g, const Shape& s, const SinkhornWork<T>& w,
                         const std::type_identity_t<T>* cost, T epsilon, T inverse) {
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    g.poll(2 * s.ld);
    const ExpSum<T> row = row_sum(g, s, cost + i * s.ld, w.g, inverse);
    if (g.leader()) {
      w.next_u[i] = row.peak;
      w.u[i] = row.sum;
    }
  }
  g.sync();
  HN_ROLLED
  for (int i0 = 0; i0 < s.ldn; i0 += G::width) {
    const auto log_sum = g.load(w.next_u + i0) + G::log(g.load(w.u + i0));
    g.store(w.f + i0, G::splat(epsilon) * (g.load(w.log_a + i0) - log_sum));
  }
  g.sync();
}

/// g_j = epsilon (log b_j - log sum_i exp((f_i - cost_ij) / epsilon)).
template <class G, class T>
HN_HD void set_column_duals(const G& g, const Shape& s, const SinkhornWork<T>& w,
                            const std::type_identity_t<T>* cost, T epsilon, T inverse_) {
  using Var = typename G::template Var<T>;
  const Var inverse = G::splat(inverse_);
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    g.poll(2 * s.n * G::width);
    Var most = G::splat(-Limits<T>::huge);
    HN_ROLLED
    for (int i = 0; i < s.n; ++i)
      most = G::max(most, (G::splat(w.f[i]) - g.load(cost + i * s.ld + j0)) * inverse);
    Var sum = G::splat(T(0));
    HN_ROLLED
    for (int i = 0; i < s.n; ++i) {
      const Var value = (G::splat(w.f[i]) - g.load(cost + i * s.ld + j0)) * inverse;
      sum += G::exp(value - most);
    }
    const Var dual = G::splat(epsilon) * (g.load(w.log_b + j0) - most - G::log(sum));
    g.store(w.g + j0, dual);
  }
}

/// Whether K is read along its rows alone, each once per sweep: where one thread holds all lanes, and rows are long.
/// Elsewhere a sum over lanes per row costs more than a second copy of K.
template <class G, class T>
HN_HD bool reads_rows(const Shape& s) {
  return one_thread<G, T> && s.ld > 4 * G::width;
}

/// K from f and g, its transpose where the sweeps read that, and scalings of 1.
template <class G, class T>
HN_HD void set_kernel(const G& g, const Shape& s, const SinkhornWork<T>& w,
                      const std::type_identity_t<T>* cost, T inverse, bool transposed) {
  using Var = typename G::template Var<T>;
  const auto last = G::template splat_int<T>(s.m);
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    g.poll(2 * s.ld);
    const Var dual = G::splat(w.f[i]);
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var value =
          (dual + g.load(w.g + j0) - g.load(cost + i * s.ld + j0)) * G::splat(inverse);
      g.store(w.by_row + i * s.ld + j0,
              G::select(g.template index<T>(j0) < last, G::exp(value), G::splat(T(0))));
    }
  }
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) g.store(w.v + j0, G::splat(T(1)));
  HN_ROLLED
  for (int i0 = 0; i0 < s.ldn; i0 += G::width) g.store(w.u + i0, G::splat(T(1)));
  g.sync();
  if (!transposed) return;
  HN_ROLLED
  for (int i = g.begin(); i < s.ldn; i += g.step()) HN_ROLLED
  for (int j = 0; j < s.m; ++j)
    w.by_column[j * s.ldn + i] = i < s.n ? w.by_row[i * s.ld + j] : T(0);
}

/// L1 errors of the masses of the coupling exp((f_i + g_j - cost_ij) / epsilon), the larger of rows' and columns'. The
/// coupling takes the place of K, and v and next_v are overwritten.
template <class G, class T>
HN_HD T coupling_error(const G& g, const Shape& s, const SinkhornWork<T>& w,
                       const std::type_identity_t<T>* cost, T inverse) {
  using Var = typename G::template Var<T>;
  constexpr int block =
      32;  // rows that are summed on their own, as single precision loses by long sums
  const Var zero = G::splat(T(0));
  const auto last = G::template splat_int<T>(s.m);
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) g.store(w.v + j0, zero);
  T rows = 0;
  HN_ROLLED
  for (int i0 = 0; i0 < s.n; i0 += block) {
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) g.store(w.next_v + j0, zero);
    HN_ROLLED
    for (int i = i0; i < s.n && i < i0 + block; ++i) {
      g.poll(s.ld);
      const Var dual = G::splat(w.f[i]);
      Var sum = zero;
      HN_ROLLED
      for (int j0 = 0; j0 < s.ld; j0 += G::width) {
        const Var value =
            ((dual + g.load(w.g + j0)) - g.load(cost + i * s.ld + j0)) * G::splat(inverse);
        const Var mass = G::select(g.template index<T>(j0) < last, G::exp(value), zero);
        sum += mass;
        g.store(w.by_row + i * s.ld + j0, mass);
        g.store(w.next_v + j0, g.load(w.next_v + j0) + mass);
      }
      rows += ScalarLanes::abs(g.sum(sum) - w.a[i]);
    }
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width)
      g.store(w.v + j0, g.load(w.v + j0) + g.load(w.next_v + j0));
  }
  Var columns = zero;
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width)
    columns += G::abs(g.load(w.v + j0) - g.load(w.b + j0));  // both 0 in the padding
  const T other = g.sum(columns);
  return rows < other ? other : rows - (other - other);  // NaN if one is
}

/// sum_k scale_k matrix_kj of the columns at j0. Four sums, as each addition waits for the one before.
template <class G, class T>
HN_HD auto scaled_sum(const G& g, const T* matrix, int ld, const std::type_identity_t<T>* scale,
                      int rows, int j0) {
  using Var = typename G::template Var<T>;
  const auto term = [&](int k) { return G::splat(scale[k]) * g.load(matrix + k * ld + j0); };
  Var sum0 = G::splat(T(0)), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  int k = 0;
  HN_ROLLED
  for (; k + 4 <= rows; k += 4) {
    sum0 += term(k);
    sum1 += term(k + 1);
    sum2 += term(k + 2);
    sum3 += term(k + 3);
  }
  HN_ROLLED
  for (; k < rows; ++k) sum0 += term(k);
  return (sum0 + sum1) + (sum2 + sum3);
}

/// One sweep over rows [i, i + R) of K: the next u of each, and what it adds to the columns' sums in next_v. Returns the
/// error of their masses.
template <int R, class G, class T>
HN_HD T sweep_block(const G& g, const Shape& s, const SinkhornWork<T>& w, int i) {
  using Var = typename G::template Var<T>;
  const T* row[R];
  Var sum[R];
  for (int r = 0; r < R; ++r) {
    row[r] = w.by_row + (i + r) * s.ld;
    sum[r] = G::splat(T(0));
  }
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const Var v = g.load(w.v + j0);
    for (int r = 0; r < R; ++r) sum[r] += v * g.load(row[r] + j0);
  }
  T error = 0;
  Var next[R];
  for (int r = 0; r < R; ++r) {
    const T total = g.sum(sum[r]), scaling = w.a[i + r] / total;
    error += ScalarLanes::abs(w.u[i + r] * total - w.a[i + r]);
    w.next_u[i + r] = scaling;
    next[r] = G::splat(scaling);
  }
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    Var column = g.load(w.next_v + j0);
    for (int r = 0; r < R; ++r) column += next[r] * g.load(row[r] + j0);
    g.store(w.next_v + j0, column);
  }
  return error;
}

/// A sweep that reads each row of K once, while it is near: next_u, and the columns' sums with it in next_v. Returns the
/// row error of u and v. For one thread.
template <class G, class T>
HN_HD T sweep_rows(const G& g, const Shape& s, const SinkhornWork<T>& w) {
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) g.store(w.next_v + j0, G::splat(T(0)));
  T error = 0;
  int i = 0;
  for (; i + 4 <= s.n; i += 4) {
    g.poll(std::int64_t{16} * s.ld);
    error += sweep_block<4>(g, s, w, i);
  }
  for (; i < s.n; ++i) error += sweep_block<1>(g, s, w, i);
  return error;
}

/// After sweeps with K: iterations so far, and whether K calls them converged.
struct Scaled {
  int iterations;
  bool converged;
};

/// Sweeps with K until the row error is at most tol or the next scalings are too large; f and g take up the last
/// ones. Counts on from iteration `first`.
template <class G, class T>
HN_HD Scaled scale(const G& g, const Shape& s, const SinkhornWork<T>& w, T epsilon, T tol,
                   const int first, int max_iter, bool at_least_one) {
  using Var = typename G::template Var<T>;
  const Var zero = G::splat(T(0)), one = G::splat(T(1));
  const Var most = G::splat(largest_scaling<T>), least = G::splat(1 / largest_scaling<T>);
  const auto rows = G::template splat_int<T>(s.n), columns = G::template splat_int<T>(s.m);
  const auto outside = [&](Var scaling) {
    return G::select(scaling >= least, G::select(scaling <= most, zero, one), one);  // or NaN
  };
  bool converged = false;
  int it = first;
  for (; it < max_iter; ++it) {
    Var lost = zero;
    if (reads_rows<G, T>(s)) {
      const T error = sweep_rows(g, s, w);
      converged = error <= tol && !(at_least_one && it == first);
      if (converged) break;
      HN_ROLLED
      for (int i0 = 0; i0 < s.ldn; i0 += G::width) lost += outside(g.load(w.next_u + i0));
    } else {
      Var error = zero;
      HN_ROLLED
      for (int i0 = 0; i0 < s.ldn; i0 += G::width) {
        g.poll(2 * s.m * G::width);  // and the same for the columns
        const Var sum = scaled_sum<G, T>(g, w.by_column, s.ldn, w.v, s.m, i0);
        const Var a = g.load(w.a + i0);
        error += G::abs(g.load(w.u + i0) * sum - a);
        const Var next = G::select(g.template index<T>(i0) < rows, a / sum, one);
        lost += outside(next);
        g.store(w.next_u + i0, next);
      }
      converged = g.sum(error) <= tol && !(at_least_one && it == first);
      if (converged) break;
      g.sync();
      HN_ROLLED
      for (int j0 = 0; j0 < s.ld; j0 += G::width)
        g.store(w.next_v + j0, scaled_sum<G, T>(g, w.by_row, s.ld, w.next_u, s.n, j0));
    }
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var sum = g.load(w.next_v + j0);
      const Var next = G::select(g.template index<T>(j0) < columns, g.load(w.b + j0) / sum, one);
      lost += outside(next);
      g.store(w.next_v + j0, next);
    }
    if (g.sum(lost) > 0) break;
    HN_ROLLED
    for (int i0 = 0; i0 < s.ldn; i0 += G::width) g.store(w.u + i0, g.load(w.next_u + i0));
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) g.store(w.v + j0, g.load(w.next_v + j0));
    g.sync();
  }
  HN_ROLLED
  for (int i0 = 0; i0 < s.ldn; i0 += G::width)
    g.store(w.f + i0, g.load(w.f + i0) + G::splat(epsilon) * G::log(g.load(w.u + i0)));
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width)
    g.store(w.g + j0, g.load(w.g + j0) + G::splat(epsilon) * G::log(g.load(w.v + j0)));
  g.sync();
  return {it, converged};
}

/// Runs from the column duals in w.g; cost is (n, ld). Leaves the coupling in w.by_row.
template <class G, class T>
HN_HD SinkhornResult<T> sinkhorn(const G& g, const Shape& s, const SinkhornWork<T>& w,
                                 const std::type_identity_t<T>* cost, T epsilon, T tol,
                                 int max_iter) {
  constexpr int patience = 6;
  const T inverse = 1 / epsilon;
  tol -= 2 * Limits<T>::epsilon;  // by which sums of masses may be rounded
  HN_ROLLED
  for (int i = g.begin(); i < s.ldn; i += g.step()) {
    w.a[i] = i < s.n ? ScalarLanes::exp(w.log_a[i]) : T(0);
    w.u[i] = w.next_u[i] = 1;  // the padding stays
  }
  HN_ROLLED
  for (int j = g.begin(); j < s.ld; j += g.step())
    w.b[j] = j < s.m ? ScalarLanes::exp(w.log_b[j]) : T(0);
  g.sync();
  SinkhornResult<T> result{0, 0, false, true};
  T least = Limits<T>::huge;
  int vain = 0;         // rounds whose K called converged what is not, and that came no nearer
  bool scaled = true;   // whether K could do anything
  bool checked = true;  // whether K starts from what is not to be called converged
  set_floor(g, s, w, cost);
  for (;;) {
    if (!scaled) {
      set_row_duals(g, s, w, cost, epsilon, inverse);
      set_column_duals(g, s, w, cost, epsilon, inverse);
      ++result.iterations;
      checked = false;
    }
    set_kernel(g, s, w, cost, inverse, !reads_rows<G, T>(s));
    const Scaled done = scale(g, s, w, epsilon, tol, result.iterations, max_iter, checked);
    scaled = done.iterations > result.iterations;
    if (!scaled && result.iterations == 0) continue;  // nothing is done yet that could be checked
    result.iterations = done.iterations;
    checked = done.converged || !scaled || done.iterations == max_iter;
    if (!checked) continue;
    result.residual = coupling_error(g, s, w, cost, inverse);
    result.finite = result.residual - result.residual == 0;
    result.converged = result.residual <= tol;
    if (result.converged || !result.finite || done.iterations == max_iter) return result;
    if (done.converged && !(result.residual < T(0.5) * least) && ++vain == patience) return result;
    least = result.residual < least ? result.residual : least;
  }
}

}  // namespace hotnas::HOTNAS_ISA
