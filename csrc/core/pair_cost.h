// The quadratic term of fused Gromov-Wasserstein on a sparse coupling V:
//   B(V)_ij = sum_kl V_kl ( L(Cx_ik - Cy_jl) + L(Cx_ki - Cy_lj) )   over the pair set,
// so that  grad F = (1 - alpha) cost + alpha B(T)  and  F = (1 - alpha) <cost, T> + alpha/2 <B(T), T>.
// V has few entries, so B costs O(|V| n m) where the full sum costs n^2 m^2. Columns lie on lanes. Of dense couplings,
// where the squared loss falls apart, B is two products of matrices.
#pragma once

#include "group.h"
#include "transport.h"

namespace hotnas::HOTNAS_ISA {

enum class Loss : int { l1 = 0, l2 = 1 };
enum class Pairs : int { all = 0, directed = 1, ordered = 2 };

/// Loss and pair set that are known when the program is compiled.
template <Loss L, Pairs P>
struct FixedTerms {
  static constexpr Loss loss() { return L; }
  static constexpr Pairs pairs() { return P; }
};

/// Loss and pair set that come with the call: one program for all of them, where programs are large.
struct GivenTerms {
  Loss loss_;
  Pairs pairs_;
  HN_HD Loss loss() const { return loss_; }
  HN_HD Pairs pairs() const { return pairs_; }
};

/// Structures laid out for the kernel: cx (n, ldn); cy[l * ld + j] = Cy_lj, cyt[l * ld + j] = Cy_jl. Whether both are
/// symmetric: the two directions of a pair then cost the same.
template <class T>
struct Structures {
  Array<T> cx, cy, cyt;
  Array<int> symmetric;  // one
};

/// near: whether inner loops wait for single entries of cx.
template <class T>
HN_HD Structures<T> take_structures(Arena& arena, const Shape& s, bool near = false) {
  const std::size_t own = static_cast<std::size_t>(s.n) * s.ldn,
                    across = static_cast<std::size_t>(s.m) * s.ld;
  const Array<T> cx = near ? arena.take<T>(own) : arena.take_far<T>(own);
  return {cx, arena.take_far<T>(across), arena.take_far<T>(across), arena.take_far<int>(1)};
}

/// Blanks what no pair of the pair set has, in the lanes' own columns, so that it can reach no result.
template <class G, class Terms, class T>
HN_HD void keep_pairs(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                      Dummies dummies = {}) {
  const Pairs pairs = terms.pairs();
  if (pairs == Pairs::all) return;
  const bool any = s.n - (dummies.row ? 1 : 0) > 1 && s.m - (dummies.column ? 1 : 0) > 1;
  const auto keep = [&](T* values, int rows, int ld, bool after) {
    const auto none = G::splat(T(0));
    HN_ROLLED
    for (int l = 0; l < rows; ++l) {
      const auto at = G::template splat_int<T>(l);
      HN_ROLLED
      for (int j0 = 0; j0 < ld; j0 += G::width) {
        const auto column = g.template index<T>(j0);
        const auto value = g.load(values + l * ld + j0);
        auto kept = none;
        if (any && pairs == Pairs::directed) kept = G::select(column == at, none, value);
        if (any && pairs == Pairs::ordered)
          kept = after ? G::select(column > at, value, none) : G::select(column < at, value, none);
        g.store(values + l * ld + j0, kept);
      }
    }
  };
  keep(c.cx, s.n, s.ldn, true);
  keep(c.cy, s.m, s.ld, true);
  keep(c.cyt, s.m, s.ld, false);
}

template <class G, class Var>
HN_HD Var loss(Loss kind, Var difference) {
  return kind == Loss::l1 ? G::abs(difference) : difference * difference;
}

/// Rows [i, i + R) of B(V), written to out. OneWay: of one direction of each pair, twice. E entries of V are fetched at
/// once, as a GPU waits for all of them together.
template <int R, int E, bool OneWay, class G, class Terms, class T>
HN_HD void pair_cost_rows(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                          const Vertex<T>& v, int count, int i, std::type_identity_t<T>* out) {
  using Var = typename G::template Var<T>;
  const Loss kind = terms.loss();
  const Var none = G::splat(T(0));
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    const auto column = g.template index<T>(j0);
    Var sum[R];
    for (int r = 0; r < R; ++r) sum[r] = none;
    HN_ROLLED
    for (int t0 = 0; t0 < count; t0 += E) {
      int row[E], col[E];
      T moved[E];
      Var in[E], out_of[E];
      for (int e = 0; e < E; ++e) {
        const int t = E == 1 ? t0 : ScalarLanes::min(t0 + e, count - 1);
        row[e] = v.row[t];
        col[e] = v.col[t];
        moved[e] = v.mass[t];
      }
      for (int e = 0; e < E; ++e) {
        in[e] = g.load(c.cyt + col[e] * s.ld + j0);
        out_of[e] = g.load(c.cy + col[e] * s.ld + j0);
      }
      for (int e = 0; e < E; ++e) {
        const int k = row[e];
        const bool real = E == 1 || t0 + e < count;  // and not the last one again
        const Var into = in[e], from = out_of[e], mass = G::splat(real ? moved[e] : T(0));
        const auto at = G::template splat_int<T>(col[e]);
        T to[R], back[R];  // of x
        for (int r = 0; r < R; ++r) {
          if (!OneWay) to[r] = c.cx[(i + r) * s.ldn + k];
          back[r] = c.cx[k * s.ldn + i + r];
        }
        if (terms.pairs() == Pairs::ordered) {
          const Var before = G::select(column < at, mass, none);
          const Var after = G::select(column > at, mass, none);
          for (int r = 0; r < R; ++r) {
            if (i + r < k)
              sum[r] += before * loss<G>(kind, G::splat(to[r]) - into);
            else if (i + r > k)
              sum[r] += after * loss<G>(kind, G::splat(back[r]) - from);
          }
        } else {
          const bool directed = terms.pairs() == Pairs::directed;
          const Var both = OneWay ? mass + mass : mass;
          const Var apart = directed ? G::select(column == at, none, both) : both;
          for (int r = 0; r < R; ++r) {
            if (E == 1 && directed && i + r == k) continue;
            const Var gap = OneWay ? loss<G>(kind, G::splat(back[r]) - from)
                                   : loss<G>(kind, G::splat(to[r]) - into) +
                                         loss<G>(kind, G::splat(back[r]) - from);
            sum[r] += (E > 1 && directed && i + r == k ? none : apart) * gap;
          }
        }
      }
    }
    for (int r = 0; r < R; ++r) g.store(out + (i + r) * s.ld + j0, sum[r]);
  }
}

template <int E, bool OneWay, class G, class Terms, class T>
HN_HD void pair_cost_by_rows(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                             const Vertex<T>& v, const int count, std::type_identity_t<T>* out) {
  constexpr int R = 4;
  int i = 0;
  HN_ROLLED
  while (i < s.n) {
    g.poll(std::int64_t{R} * count * s.ld);
    if (s.n >= R && i + 1 < s.n) {
      if (i + R > s.n) i = s.n - R;  // some rows again: one pass rather than two
      pair_cost_rows<R, E, OneWay>(g, s, terms, c, v, count, i, out);
      i += R;
    } else {
      pair_cost_rows<1, 1, OneWay>(g, s, terms, c, v, count, i, out);
      ++i;
    }
  }
}

/// B(V), (n, ld), of the first `count` entries of V, E of which are fetched at once.
template <int E = 1, class G, class Terms, class T>
HN_HD void pair_cost(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                     const Vertex<T>& v, const int count, std::type_identity_t<T>* out) {
  if (terms.pairs() != Pairs::ordered && *c.symmetric)
    pair_cost_by_rows<E, true>(g, s, terms, c, v, count, out);
  else
    pair_cost_by_rows<E, false>(g, s, terms, c, v, count, out);
}

template <class G, class Terms, class T>
HN_HD void pair_cost(const G& g, const Shape& s, const Terms& terms, const Structures<T>& c,
                     const Vertex<T>& v, std::type_identity_t<T>* out) {
  pair_cost(g, s, terms, c, v, *v.count, out);
}

/// Whether B(a b') falls apart into products of sums over rows and over columns, as product_pair_cost has it.
template <class Terms>
HN_HD bool falls_apart(const Shape& s, const Terms& terms) {
  return terms.loss() == Loss::l2 && terms.pairs() == Pairs::all && s.n >= 3;
}

/// B(a b') / sum(b), (n, ld), in O(n^2 + m^2 + n m); rounded to the size of the squares. sums: (3, ld).
template <class G, class T>
HN_HD void product_pair_cost(const G& g, const Shape& s, const Structures<T>& c, const Array<T>& a,
                             const Array<T>& b, std::type_identity_t<T>* sums,
                             std::type_identity_t<T>* out) {
  using Var = typename G::template Var<T>;
  T of_a = 0, of_b = 0;
  HN_ROLLED
  for (int k = 0; k < s.n; ++k) of_a += a[k];
  HN_ROLLED
  for (int l = 0; l < s.m; ++l) of_b += b[l];
  HN_ROLLED
  for (int j0 = 0; j0 < s.ld; j0 += G::width) {
    Var into = G::splat(T(0)), from = into, squares = into;
    HN_ROLLED
    for (int l = 0; l < s.m; ++l) {
      const Var mass = G::splat(b[l] / of_b);
      const Var one = g.load(c.cyt + l * s.ld + j0), other = g.load(c.cy + l * s.ld + j0);
      into += mass * one;
      from += mass * other;
      squares += mass * (one * one + other * other);
    }
    g.store(sums + j0, into);
    g.store(sums + s.ld + j0, from);
    g.store(sums + 2 * s.ld + j0, squares);
  }
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    T leaving = 0, entering = 0, squares = 0;
    HN_ROLLED
    for (int k = 0; k < s.n; ++k) {
      const T one = c.cx[i * s.ldn + k], other = c.cx[k * s.ldn + i];
      leaving += a[k] * one;
      entering += a[k] * other;
      squares += a[k] * (one * one + other * other);
    }
    HN_ROLLED
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      const Var across =
          G::splat(leaving) * g.load(sums + j0) + G::splat(entering) * g.load(sums + s.ld + j0);
      g.store(out + i * s.ld + j0, G::splat(squares) +
                                       G::splat(of_a) * g.load(sums + 2 * s.ld + j0) -
                                       G::splat(T(2)) * across);
    }
  }
}

/// Whether problems are so large that dense_pair_cost is what B of a dense coupling costs least by.
template <class Terms>
HN_HD bool multiplies(const Shape& s, const Terms& terms) {
  return falls_apart(s, terms) && s.n > 16 && s.m > 16;
}

/// Rows [i, i + R) and the columns of P rows of lanes from j0 on: start(r, p) + sum_k left(r, k) right(k, j).
template <int R, int P, class G, class T, class Start, class Left, class Right>
HN_HD void product_block(const G& g, int count, int j0, T* out, int ld, Start start, Left left,
                         Right right) {
  typename G::template Var<T> sum[R][P];
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) sum[r][p] = start(r, j0 + p * G::width);
  for (int k = 0; k < count; ++k) {
    typename G::template Var<T> row[P];
    for (int p = 0; p < P; ++p) row[p] = right(k, j0 + p * G::width);
    for (int r = 0; r < R; ++r) {
      const auto factor = G::splat(left(r, k));
      for (int p = 0; p < P; ++p) sum[r][p] += factor * row[p];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) g.store(out + r * ld + j0 + p * G::width, sum[r][p]);
}

/// out (n, ld) = start(i, j) + sum_k left(i, k) right(k, j). Some rows of `left` at once, which stay near while the columns
/// of `right` come by, each for all of them.
template <class G, class T, class Start, class Left, class Right>
HN_HD void multiply_matrices(const G& g, const Shape& s, int count, T* out, Start start, Left left,
                             Right right) {
  constexpr int together = 64;
  const auto columns = [&]<int P>(std::integral_constant<int, P>, int first, int last, int j0) {
    const auto rows = [&]<int R>(std::integral_constant<int, R>, int i) {
      g.poll(std::int64_t{R} * count * P * G::width);
      product_block<R, P>(
          g, count, j0, out + i * s.ld, s.ld, [&](int r, int j) { return start(i + r, j); },
          [&](int r, int k) { return left(i + r, k); }, right);
    };
    int i = first;
    for (; i + 4 <= last; i += 4) rows(std::integral_constant<int, 4>{}, i);
    for (; i < last; ++i) rows(std::integral_constant<int, 1>{}, i);
  };
  for (int first = 0; first < s.n; first += together) {
    const int last = first + together < s.n ? first + together : s.n;
    int j0 = 0;
    for (; j0 + 3 * G::width <= s.ld; j0 += 3 * G::width)
      columns(std::integral_constant<int, 3>{}, first, last, j0);
    for (; j0 < s.ld; j0 += G::width) columns(std::integral_constant<int, 1>{}, first, last, j0);
  }
}

/// The middle of all entries of both structures, 0 where it is no more than what subtracting it has left.
template <class T>
HN_HD T middle_of(const Shape& s, const Structures<T>& c) {
  T low = c.cx[0], high = low;
  const auto extend = [&](const T* values, int count, int ld) {
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < count; ++k) {
        const T value = values[i * ld + k];
        low = value < low ? value : low;
        high = value > high ? value : high;
      }
  };
  extend(c.cx, s.n, s.ldn);
  extend(c.cy, s.m, s.ld);
  const T middle = low + (high - low) / 2, rest = 4 * Limits<T>::epsilon * (high - low);
  return middle <= rest && -middle <= rest ? T(0) : middle;
}

/// Takes their middle from both structures, which dense_pair_cost then need not do. For one thread, and all pairs.
template <class G, class T>
HN_HD void centre_structures(const G& g, const Shape& s, const Structures<T>& c) {
  const auto middle = G::splat(middle_of(s, c));
  const auto centre = [&](T* values, int count) {
    for (int e = 0; e < count; e += G::width) g.store(values + e, g.load(values + e) - middle);
  };
  centre(c.cx, s.n * s.ldn);
  centre(c.cy, s.m * s.ld);
  centre(c.cyt, s.m * s.ld);
}

/// B of a coupling of all pairs, rows `stride` apart, for the squared loss:
///   sum_k p_k Cx_ik^2 + sum_l q_l Cy_jl^2 - 2 (Cx T Cy')_ij  and the same of the transposes, in O(n m (n + m)).
/// The middle of all entries is taken from both structures, which changes no difference, as what they share would
/// be lost in the rounding of its squares. product: (n, ld); p: (n), q: (ld). For one thread.
template <class G, class T>
HN_HD void dense_pair_cost(const G& g, const Shape& s, const Structures<T>& c,
                           const std::type_identity_t<T>* plan, int stride,
                           std::type_identity_t<T>* product, std::type_identity_t<T>* p,
                           std::type_identity_t<T>* q, std::type_identity_t<T>* out) {
  using Var = typename G::template Var<T>;
  const T middle = middle_of(s, c);
  for (int j = 0; j < s.m; ++j) q[j] = 0;
  for (int i = 0; i < s.n; ++i) {
    p[i] = 0;
    for (int j = 0; j < s.m; ++j) {
      p[i] += plan[i * stride + j];
      q[j] += plan[i * stride + j];
    }
  }
  const bool symmetric = *c.symmetric;
  const T twice = symmetric ? T(-4) : T(-2);
  for (int j0 = 0; j0 < s.ld;
       j0 += G::width) {  // in the first row, which is the last to get its own
    Var sum = G::splat(T(0));
    for (int l = 0; l < s.m; ++l) {
      const Var one = g.load(c.cyt + l * s.ld + j0) - G::splat(middle);
      const Var other = g.load(c.cy + l * s.ld + j0) - G::splat(middle);
      sum += G::splat(q[l]) * (one * one + other * other);
    }
    g.store(out + j0, sum);
  }
  for (int i = s.n - 1; i >= 0; --i) {
    T sum = 0;
    for (int k = 0; k < s.n; ++k) {
      const T one = c.cx[i * s.ldn + k] - middle, other = c.cx[k * s.ldn + i] - middle;
      sum += p[k] * (one * one + other * other);
    }
    for (int j0 = 0; j0 < s.ld; j0 += G::width)
      g.store(out + i * s.ld + j0, g.load(out + j0) + G::splat(sum));
  }
  // Sums of products without `middle`, where there is none, take half the instructions.
  const auto add_products = [&]<bool Centred>(std::bool_constant<Centred>, bool back) {
    const T* other = back ? c.cy : c.cyt;
    const auto zero = [&](int, int) { return G::splat(T(0)); };
    const auto of_x = [&](int i, int k) {
      const T value = back ? c.cx[k * s.ldn + i] : c.cx[i * s.ldn + k];
      return Centred ? value : value - middle;
    };
    const auto of_plan = [&](int k, int j0) { return g.load(plan + k * stride + j0); };
    multiply_matrices(g, s, s.n, product, zero, of_x, of_plan);
    for (int e = 0; e < s.n * s.ld; e += G::width)
      g.store(product + e, g.load(product + e) * G::splat(twice));
    const auto before = [&](int i, int j0) { return g.load(out + i * s.ld + j0); };
    const auto of_product = [&](int i, int l) { return product[i * s.ld + l]; };
    const auto of_y = [&](int l, int j0) {
      const Var value = g.load(other + l * s.ld + j0);
      return Centred ? value : value - G::splat(middle);
    };
    multiply_matrices(g, s, s.m, out, before, of_product, of_y);
  };
  for (int turn = 0; turn < (symmetric ? 1 : 2); ++turn) {
    if (middle == 0)
      add_products(std::true_type{}, turn == 1);
    else
      add_products(std::false_type{}, turn == 1);
  }
}

}  // namespace hotnas::HOTNAS_ISA
