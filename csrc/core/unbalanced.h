// Unbalanced entropic transport: masses may differ from what they should be, at a price,
//   min <C, T> + epsilon KL(T | a b') + D(T 1 | a) + D(T' 1 | b),
//   T_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon).
// Sinkhorn's sweeps (sinkhorn.h), but that each dual, once it is what would make its mass right, is drawn back: by the
// factor rho / (rho + epsilon) where D is rho times the Kullback-Leibler divergence, to [-rho, rho] where it is rho times
// the total variation. An infinite rho holds the masses.
// A large rho forgets the level of the duals, f + c and g - c, only by that factor in each sweep. The coupling does not
// depend on c, and the best c is known: it is taken after every half of a sweep.
// Complexity: O(n m) per iteration.
// Reference: Chizat, Peyre, Schmitzer, Vialard, Scaling algorithms for unbalanced optimal transport problems, 2018;
// Sejourne, Vialard, Peyre, Faster unbalanced optimal transport: translation invariant Sinkhorn and 1-D Frank-Wolfe, 2022.
#pragma once

#include "sinkhorn.h"

namespace hotnas::HOTNAS_ISA {

/// What a side pays for masses that are not right.
template <class T>
struct Penalty {
  T inverse;       // 1 / rho of the divergence; 0 where nothing follows from the dual
  T share;         // of a dual that is kept
  T bound;         // of a dual
  T least_masses;  // errors of masses that an update repairs, per error

  HN_HD Penalty(double rho, double epsilon, bool variation) {
    const bool held = !(rho <= 1e300);
    share = variation || held ? T(1) : T(rho / (rho + epsilon));
    inverse = variation || held || rho == 0 ? T(0) : T(1 / rho);
    bound = (variation && !held) || rho == 0 ? T(rho) : T(INFINITY);
    least_masses = share > 0 ? 1 / share : T(0);
  }
};

template <class T>
struct UnbalancedWork {
  SinkhornWork<T> sinkhorn;     // its f and g have the logarithms of the masses in them
  Array<T> f, g;                // (ldn), (ld)
  Array<T> drawn_x, drawn_y;    // likewise: what each scaling is drawn back by, in the exponent
  Array<T> lowest_x, lowest_y;  // likewise: scalings at the bounds of the duals
  Array<T> highest_x, highest_y;
};

template <class T>
HN_HD UnbalancedWork<T> take_unbalanced(Arena& arena, const Shape& s) {
  UnbalancedWork<T> w{};
  w.sinkhorn = take_sinkhorn<T>(arena, s);
  w.f = arena.take_far<T>(s.ldn);
  w.g = arena.take_far<T>(s.ld);
  w.drawn_x = arena.take_far<T>(s.ldn);
  w.drawn_y = arena.take_far<T>(s.ld);
  w.lowest_x = arena.take_far<T>(s.ldn);
  w.lowest_y = arena.take_far<T>(s.ld);
  w.highest_x = arena.take_far<T>(s.ldn);
  w.highest_y = arena.take_far<T>(s.ld);
  return w;
}

template <class G, class T>
class Unbalanced {
  using Var = typename G::template Var<T>;
  static constexpr T huge_ = Limits<T>::huge;

 public:
  /// level: the share of a difference of logarithms of masses by which the level of the duals is off; 0 where there is
  /// none.
  HN_HD Unbalanced(const G& g, const Shape& s, const UnbalancedWork<T>& w, const T* cost,
                   const Penalty<T>& x, const Penalty<T>& y, T epsilon, T level, T unit)
      : g_(g),
        s_(s),
        w_(w),
        in_(w.sinkhorn),
        cost_(cost),
        x_(x),
        y_(y),
        epsilon_(epsilon),
        inverse_(1 / epsilon),
        level_(level),
        unit_(unit) {}

  /// Runs from the duals in w.g; `unit` of masses is what tol and the residual are relative to.
  HN_HD SinkhornResult<T> solve(T tol, int max_iter) {
    constexpr int patience = 6;
    tol -= 2 * Limits<T>::epsilon;
    prepare();
    SinkhornResult<T> result{0, 0, false, true};
    T least = Limits<T>::huge;
    int vain = 0;
    bool scaled = false, checked = false;
    for (;;) {
      if (!scaled) {
        sweep();
        ++result.iterations;
        checked = false;
      }
      set_kernel(g_, s_, in_, cost_, inverse_, true);
      set_limits();
      const Scaled done = scale(tol * unit_, result.iterations, max_iter, checked);
      scaled = done.iterations > result.iterations;
      result.iterations = done.iterations;
      checked = done.converged || !scaled || done.iterations == max_iter;
      if (!checked) continue;
      result.residual = error() / unit_;
      result.finite = result.residual - result.residual == 0;
      result.converged = result.residual <= tol;
      if (result.converged || !result.finite || done.iterations == max_iter) return result;
      if (done.converged && !(result.residual < T(0.5) * least) && ++vain == patience)
        return result;
      if (!done.converged && !(result.residual < least) && ++vain == 8 * patience) return result;
      least = result.residual < least ? result.residual : least;
    }
  }

 private:
  HN_HD void prepare() const {
    HN_ROLLED
    for (int i = g_.begin(); i < s_.ldn; i += g_.step()) {
      in_.a[i] = i < s_.n ? ScalarLanes::exp(in_.log_a[i]) : T(0);
      in_.u[i] = in_.next_u[i] = 1;  // the padding stays
      w_.f[i] = 0;
    }
    HN_ROLLED
    for (int j = g_.begin(); j < s_.ld; j += g_.step()) {
      in_.b[j] = j < s_.m ? ScalarLanes::exp(in_.log_b[j]) : T(0);
      in_.g[j] = w_.g[j] + epsilon_ * in_.log_b[j];
    }
    g_.sync();
  }

  HN_HD Var drawn(const Penalty<T>& side, Var dual) const {
    const Var most = G::splat(side.bound);
    return G::max(G::min(G::splat(side.share) * dual, most), -most);
  }

  /// log of the mass that the duals of a side ask for; of the first `count` of them.
  HN_HD T log_asked(const T* dual, const T* mass, int count, int ld, T inverse) const {
    const auto last = G::template splat_int<T>(count);
    Var most = G::splat(-Limits<T>::huge);
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width)
      most = G::max(most, G::select(g_.template index<T>(j0) < last,
                                    -(g_.load(dual + j0) * G::splat(inverse)), most));
    const T peak = g_.max_of(most);
    Var sum = G::splat(T(0));
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var value =
          g_.load(mass + j0) * G::exp(-(g_.load(dual + j0) * G::splat(inverse)) - G::splat(peak));
      sum += G::select(g_.template index<T>(j0) < last, value, G::splat(T(0)));
    }
    return peak + ScalarLanes::log(g_.sum(sum));
  }

  /// Takes the best level of the duals.
  HN_HD void take_level() const {
    if (x_.bound < huge_ && y_.bound > 0 && y_.inverse == 0) return take_bounded_level();
    if (y_.bound < huge_ && x_.bound > 0 && x_.inverse == 0) return take_bounded_level();
    if (!(level_ > 0)) return;
    const T more = level_ * (log_asked(w_.f, in_.a, s_.n, s_.ldn, x_.inverse) -
                             log_asked(w_.g, in_.b, s_.m, s_.ld, y_.inverse));
    if (!(more - more == 0)) return;
    raise(w_.f, in_.f, s_.ldn, more);
    raise(w_.g, in_.g, s_.ld, -more);
    g_.sync();
  }
  /// The same for the total variation, whose dual problem is piecewise linear in the level: its slope is the mass of the
  /// rows below their bound less that of all columns as the level rises, and likewise as it falls. So it goes, if at
  /// all, to where the mass left below the bound is no longer the larger, and no further than the other side allows.
  /// Duals that pass their bound are cut off there, which only helps. Masses that agree up to rounding ask for no level:
  /// rounding must not choose among those that are as good.
  HN_HD void take_bounded_level() const {
    const T own = mass_below(x_, w_.f, in_.a, s_.ldn, T(0)),
            other = mass_below(y_, w_.g, in_.b, s_.ld, T(0));
    const T rows = total(in_.a, s_.ldn), columns = total(in_.b, s_.ld);
    const T slack = (s_.n + s_.m) * Limits<T>::epsilon * (rows + columns);
    T more = 0;
    if (own > columns + slack)
      more = least_level(x_, w_.f, in_.a, s_.n, s_.ldn, columns + slack, room(y_, w_.g, s_.m));
    else if (other > rows + slack)
      more = -least_level(y_, w_.g, in_.b, s_.m, s_.ld, rows + slack, room(x_, w_.f, s_.n));
    g_.sync();  // all lanes have read the duals
    if (more == 0 || !(more - more == 0)) return;
    shift(x_, w_.f, in_.f, in_.log_a, s_.ldn, more);
    shift(y_, w_.g, in_.g, in_.log_b, s_.ld, -more);
    g_.sync();
  }
  HN_HD T total(const T* mass, int ld) const {
    Var sum = G::splat(T(0));
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) sum += g_.load(mass + j0);
    return g_.sum(sum);
  }
  /// The mass whose duals are below their upper bound when they are raised by `level`.
  HN_HD T mass_below(const Penalty<T>& side, const T* dual, const T* mass, int ld, T level) const {
    Var sum = G::splat(T(0));
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {  // no mass in the padding
      const auto below = G::splat(side.bound) - g_.load(dual + j0) > G::splat(level);
      sum += G::select(below, g_.load(mass + j0), G::splat(T(0)));
    }
    return g_.sum(sum);
  }
  /// How far the first `count` duals may fall.
  HN_HD T room(const Penalty<T>& side, const T* dual, int count) const {
    T least = huge_;
    HN_ROLLED
    for (int k = 0; k < count; ++k) least = ScalarLanes::min(least, dual[k] + side.bound);
    return least;
  }
  /// The least level, up to `most`, at which no more than `enough` mass is below the bound.
  HN_HD T least_level(const Penalty<T>& side, const T* dual, const T* mass, int count, int ld,
                      T enough, T most) const {
    HN_ROLLED
    for (int k = 0; k < count; ++k) {
      const T level = side.bound - dual[k];
      if (level < most && mass_below(side, dual, mass, ld, level) <= enough) most = level;
    }
    return most;
  }
  HN_HD void shift(const Penalty<T>& side, T* dual, T* with_mass, const T* log_mass, int ld,
                   T more) const {
    const Var most = G::splat(side.bound);
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var now = g_.load(dual + j0), above = now + G::splat(more);
      const Var value = G::select(most - now <= G::splat(more), most, G::max(above, -most));
      g_.store(dual + j0, value);
      g_.store(with_mass + j0, value + G::splat(epsilon_) * g_.load(log_mass + j0));
    }
  }
  HN_HD void raise(T* dual, T* with_mass, int ld, T more) const {
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      g_.store(dual + j0, g_.load(dual + j0) + G::splat(more));
      g_.store(with_mass + j0, g_.load(with_mass + j0) + G::splat(more));
    }
  }

  /// One sweep in the log domain.
  HN_HD void sweep() const {
    set_row_duals(g_, s_, in_, cost_, epsilon_, inverse_);
    draw(x_, w_.f, in_.f, in_.log_a, s_.ldn);
    take_level();
    set_column_duals(g_, s_, in_, cost_, epsilon_, inverse_);
    draw(y_, w_.g, in_.g, in_.log_b, s_.ld);
    take_level();
  }
  HN_HD void draw(const Penalty<T>& side, T* dual, T* with_mass, const T* log_mass, int ld) const {
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var log = G::splat(epsilon_) * g_.load(log_mass + j0);
      const Var value = drawn(side, g_.load(with_mass + j0) - log);
      g_.store(dual + j0, value);
      g_.store(with_mass + j0, value + log);
    }
    g_.sync();
  }

  HN_HD void set_limits() const {
    set_limits(x_, w_.f, w_.drawn_x, w_.lowest_x, w_.highest_x, s_.ldn);
    set_limits(y_, w_.g, w_.drawn_y, w_.lowest_y, w_.highest_y, s_.ld);
  }
  HN_HD void set_limits(const Penalty<T>& side, const T* dual, T* by, T* lowest, T* highest,
                        int ld) const {
    const Var most = G::splat(side.bound);
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var now = g_.load(dual + j0);
      g_.store(by + j0, G::splat((side.share - 1) * inverse_) * now);
      g_.store(lowest + j0, G::exp((-most - now) * G::splat(inverse_)));
      // where nothing bounds, no scaling is that large
      const Var room = (most - now) * G::splat(inverse_), far = G::splat(T(80));
      g_.store(highest + j0,
               G::select(room < far, G::exp(G::min(room, far)), G::splat(T(INFINITY))));
    }
  }

  /// The scaling that makes a mass of what `sum` would have without it, drawn back.
  HN_HD Var scaling(const Penalty<T>& side, Var mass, Var sum, const T* by, const T* lowest,
                    const T* highest, int j0) const {
    Var next = mass / sum;
    if (side.share != 1) next = G::exp(G::splat(side.share) * G::log(next) + g_.load(by + j0));
    return G::max(G::min(next, g_.load(highest + j0)), g_.load(lowest + j0));
  }

  /// Sweeps with K, as in sinkhorn.h.
  HN_HD Scaled scale(T tol, const int first, int max_iter, bool at_least_one) const {
    const Var zero = G::splat(T(0)), one = G::splat(T(1));
    const Var most = G::splat(largest_scaling<T>), least = G::splat(1 / largest_scaling<T>);
    const auto rows = G::template splat_int<T>(s_.n), columns = G::template splat_int<T>(s_.m);
    const auto outside = [&](Var scaling) {
      return G::select(scaling >= least, G::select(scaling <= most, zero, one), one);  // or NaN
    };
    // masses that the duals ask for, in logarithms
    T asked_y = level_ > 0 ? log_asked(w_.g, in_.b, s_.m, s_.ld, y_.inverse) : T(0);
    bool converged = false;
    int it = first;
    for (; it < max_iter; ++it) {
      Var error = zero, lost = zero, total = zero;
      HN_ROLLED
      for (int i0 = 0; i0 < s_.ldn; i0 += G::width) {
        g_.poll(2 * s_.m * G::width);  // and the same for the columns
        const Var sum = scaled_sum<G, T>(g_, in_.by_column, s_.ldn, in_.v, s_.m, i0);
        const Var now = g_.load(in_.u + i0);
        const Var next = G::select(
            g_.template index<T>(i0) < rows,
            scaling(x_, g_.load(in_.a + i0), sum, w_.drawn_x, w_.lowest_x, w_.highest_x, i0), one);
        error += G::abs(now - next) * sum;  // no mass in the padding
        total += next * sum;
        lost += outside(next);
        g_.store(in_.next_u + i0, next);
      }
      converged = x_.least_masses * g_.sum(error) <= tol && !(at_least_one && it == first);
      if (converged) break;
      T asked_x = 0;
      if (level_ > 0) {
        asked_x = ScalarLanes::log(g_.sum(total));
        const T more = level_ * (asked_x - asked_y);
        asked_x -= more * x_.inverse;
        lost += multiply_scalings(in_.next_u, s_.ldn, more, outside);
      }
      g_.sync();
      total = zero;
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
        const Var sum = scaled_sum<G, T>(g_, in_.by_row, s_.ld, in_.next_u, s_.n, j0);
        const Var next = G::select(
            g_.template index<T>(j0) < columns,
            scaling(y_, g_.load(in_.b + j0), sum, w_.drawn_y, w_.lowest_y, w_.highest_y, j0), one);
        total += next * sum;
        lost += outside(next);
        g_.store(in_.next_v + j0, next);
      }
      if (level_ > 0) {
        asked_y = ScalarLanes::log(g_.sum(total));
        const T more = level_ * (asked_x - asked_y);
        asked_y += more * y_.inverse;
        g_.sync();  // all lanes have read the scalings of the rows
        lost += multiply_scalings(in_.next_u, s_.ldn, more, outside);
        lost += multiply_scalings(in_.next_v, s_.ld, -more, outside);
      }
      if (!(g_.sum(lost) == 0)) break;
      HN_ROLLED
      for (int i0 = 0; i0 < s_.ldn; i0 += G::width) g_.store(in_.u + i0, g_.load(in_.next_u + i0));
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) g_.store(in_.v + j0, g_.load(in_.next_v + j0));
      g_.sync();
    }
    take_up(x_, w_.f, in_.f, in_.log_a, in_.u, w_.lowest_x, w_.highest_x, s_.ldn);
    take_up(y_, w_.g, in_.g, in_.log_b, in_.v, w_.lowest_y, w_.highest_y, s_.ld);
    g_.sync();
    return {it, converged};
  }

  /// Raises the duals of scalings, each lane its own; what `outside` says of them.
  template <class Outside>
  HN_HD Var multiply_scalings(T* scalings, int ld, T more, Outside outside) const {
    const Var factor = G::exp(G::splat(more * inverse_));
    Var lost = G::splat(T(0));
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var next = g_.load(scalings + j0) * factor;
      lost += outside(next);
      g_.store(scalings + j0, next);
    }
    return lost;
  }

  /// Duals take up their scalings; one at its bound has that, to the last bit.
  HN_HD void take_up(const Penalty<T>& side, T* dual, T* with_mass, const T* log_mass,
                     const T* scalings, const T* lowest, const T* highest, int ld) const {
    const Var most = G::splat(side.bound);
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var scaling = g_.load(scalings + j0);
      const Var free = g_.load(dual + j0) + G::splat(epsilon_) * G::log(scaling);
      Var value = G::max(G::min(free, most), -most);
      value = G::select(scaling >= g_.load(highest + j0), most, value);
      value = G::select(scaling <= g_.load(lowest + j0), -most, value);
      g_.store(dual + j0, value);
      g_.store(with_mass + j0, value + G::splat(epsilon_) * g_.load(log_mass + j0));
    }
  }

  /// L1 distance of the masses of the coupling from what the duals ask for, the larger of rows' and columns'. Overwrites
  /// scalings.
  HN_HD T error() const {
    constexpr int block = 32;  // see coupling_error
    const Var zero = G::splat(T(0));
    const auto rows = G::template splat_int<T>(s_.n), columns = G::template splat_int<T>(s_.m);
    HN_ROLLED
    for (int j0 = 0; j0 < s_.ld; j0 += G::width) g_.store(in_.v + j0, zero);
    HN_ROLLED
    for (int i0 = 0; i0 < s_.n; i0 += block) {
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width) g_.store(in_.next_v + j0, zero);
      HN_ROLLED
      for (int i = i0; i < s_.n && i < i0 + block; ++i) {
        g_.poll(s_.ld);
        const Var dual = G::splat(in_.f[i]);
        Var sum = zero;
        HN_ROLLED
        for (int j0 = 0; j0 < s_.ld; j0 += G::width) {
          const Var value =
              ((dual + g_.load(in_.g + j0)) - g_.load(cost_ + i * s_.ld + j0)) * G::splat(inverse_);
          const Var mass = G::select(g_.template index<T>(j0) < columns, G::exp(value), zero);
          sum += mass;
          g_.store(in_.next_v + j0, g_.load(in_.next_v + j0) + mass);
        }
        const T mass = g_.sum(sum);
        if (g_.leader()) in_.next_u[i] = mass;
      }
      HN_ROLLED
      for (int j0 = 0; j0 < s_.ld; j0 += G::width)
        g_.store(in_.v + j0, g_.load(in_.v + j0) + g_.load(in_.next_v + j0));
    }
    g_.sync();
    const T own = missed(x_, w_.f, in_.a, in_.next_u, rows, s_.ldn);
    const T other = missed(y_, w_.g, in_.b, in_.v, columns, s_.ld);
    g_.sync();
    return own < other ? other : own - (other - other);  // NaN if one is
  }
  template <class Int>
  HN_HD T missed(const Penalty<T>& side, const T* dual, const T* mass, const T* found, Int last,
                 int ld) const {
    const Var zero = G::splat(T(0)), most = G::splat(side.bound);
    Var sum = zero;
    HN_ROLLED
    for (int j0 = 0; j0 < ld; j0 += G::width) {
      const Var at = g_.load(dual + j0);
      const Var more =
          g_.load(found + j0) - g_.load(mass + j0) * G::exp(-(at * G::splat(side.inverse)));
      // a dual at its bound allows what lies beyond
      const Var over = G::select(at > -most, more, G::select(at == -most, zero, more));
      const Var under = G::select(at < most, -more, G::select(at == most, zero, -more));
      const Var off = G::select(more > zero, over, under);
      sum += G::select(g_.template index<T>(j0) < last, off, zero);
    }
    return g_.sum(sum);
  }

  const G& g_;
  const Shape& s_;
  const UnbalancedWork<T>& w_;
  const SinkhornWork<T>& in_;
  const T* cost_;
  Penalty<T> x_, y_;
  T epsilon_, inverse_, level_, unit_;
};

/// The share of a difference of logarithms of masses by which the level of the duals is off.
HN_HD double level_of(double x, double y, bool variation) {
  if (variation || !(x > 0) || !(y > 0)) return 0;
  const bool held_x = !(x <= 1e300), held_y = !(y <= 1e300);
  if (held_x && held_y) return 0;
  return held_x ? y : held_y ? x : x / (1 + x / y);
}

}  // namespace hotnas::HOTNAS_ISA
