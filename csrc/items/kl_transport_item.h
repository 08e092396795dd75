// Unbalanced transport without entropy.
#pragma once

#include "../core/kl_transport.h"
#include "unbalanced_item.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct KlTransportItem : BatchItem<KlTransportArgs<T>, T> {
  using Args = KlTransportArgs<T>;
  using Base = BatchItem<Args, T>;
  using Lane = double;
  struct Work {
    KlWork kl;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.kl = take_kl(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    T total_a = 0, total_b = 0;
    Status status = check_side(g, a, total_a), other = check_side(g, b, total_b);
    if (other > status) status = other;
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    Shape s = shape_of<G>(x, y);
    s.assignment = false;
    const int of_mass = exponent_of(static_cast<double>(total_a < total_b ? total_b : total_a));
    load_nodes(g, y, b.mass, s.ld, of_mass, w.kl.mass);
    load_nodes(g, x, a.mass, s.ldn, of_mass, part(w.kl.mass, s.ld));
    const double largest = load_costs(g, x, y, p.cost + item * matrix, p.m, s.ld, w.kl.cost);
    if (!(largest - largest == 0)) status = Status::nonfinite;
    const double smaller = p.marginal_x < p.marginal_y ? p.marginal_x : p.marginal_y;
    const int of_cost = exponent_of(largest > 0 ? largest : smaller);
    multiply<G, double>(g, w.kl.cost, s.n * s.ld, power_of_two<double>(-of_cost));
    const Back<double> value_unit(of_cost + of_mass), cost_unit(of_cost), mass_unit(of_mass);
    const KlWeights weights{inverse(p.marginal_x, of_cost), inverse(p.marginal_y, of_cost)};
    double objective = 0, gap = 0;
    int pivots = 0;
    g.sync();
    if (status == Status::converged) {
      KlTransport<G> solver(g, s, w.kl, weights);
      solver.solve(p.max_iter);
      pivots = solver.pivots();
      const auto value = solver.value();
      const double size = value.primal < 0 ? -value.primal : value.primal;
      const double distance = value.primal - value.dual;
      gap = distance > 0 ? distance : 0;
      const double enough = p.tol * size + 64 * double(Limits<T>::epsilon) * value.size;
      status = gap <= enough ? Status::converged : Status::max_iter;
      objective = value_unit(value.primal);
      gap = value_unit(gap);
      // T may hold less than double does
      const T rounded = static_cast<T>(objective);
      if (!((rounded - rounded) + (distance - distance) + (gap - gap) == 0))
        status = Status::nonfinite;
    }
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T fail = failed(status) ? T(NAN) : T(0);
    fill(g, plan, matrix, fail);
    fill(g, f, p.n, fail);
    fill(g, dual, p.m, fail);
    g.sync();
    if (failed(status)) {
      objective = gap = NAN;
    } else {
      HN_ROLLED
      for (int t = g.begin(); t < s.ld + s.n; t += g.step()) {
        if ((t >= s.m && t < s.ld) || w.kl.parent[t] < 0) continue;
        const int from = w.kl.parent[t], row = (t < s.ld ? from : t) - s.ld,
                  col = t < s.ld ? t : from;
        plan[static_cast<int64_t>(x.node[row]) * p.m + y.node[col]] =
            static_cast<T>(mass_unit(w.kl.flow[t]));
      }
      HN_ROLLED
      for (int i = g.begin(); i < s.n; i += g.step())
        f[x.node[i]] = static_cast<T>(cost_unit(w.kl.dual[s.ld + i]));
      HN_ROLLED
      for (int j = g.begin(); j < s.m; j += g.step())
        dual[y.node[j]] = static_cast<T>(cost_unit(w.kl.dual[j]));
    }
    if (g.leader()) {
      p.objective[item] = static_cast<T>(objective);
      p.gap[item] = static_cast<T>(gap);
      p.iterations[item] = pivots;
      p.status[item] = static_cast<int32_t>(status);
    }
  }

 private:
  /// Beyond which a weight is infinite, and what takes the place of numbers that the unit makes smaller.
  static constexpr double most_weight = 1e300, least = 1e-290;

  /// 0 of what is infinite, and otherwise a number that is positive, in units of the costs.
  HN_HD static double inverse(double weight, int of_cost) {
    if (!(weight <= most_weight)) return 0;
    const double one_over = 1 / Back<double>(-of_cost)(weight);
    return one_over > least ? (one_over < 1 / least ? one_over : 1 / least) : least;
  }

  /// In units, 1 in the padding.
  template <class G>
  HN_HD static void load_nodes(const G& g, const Support& x, const T* from, int padded,
                               int exponent, double* to) {
    const Back<double> unit(-exponent);
    HN_ROLLED
    for (int i = g.begin(); i < padded; i += g.step()) {
      const double mass = i < x.count ? unit(static_cast<double>(from[x.node[i]])) : 1;
      to[i] = mass > least ? mass : least;
    }
  }

  /// As load_matrix; returns the largest magnitude, no number where a cost is none.
  template <class G>
  HN_HD static double load_costs(const G& g, const Support& x, const Support& y, const T* from,
                                 int stride, int ld, double* to) {
    HN_ROLLED
    for (int i = 0; i < x.count; ++i) {
      const T* row = from + static_cast<int64_t>(x.node[i]) * stride;
      HN_ROLLED
      for (int j = g.begin(); j < ld; j += g.step())
        to[i * ld + j] = j < y.count ? static_cast<double>(row[y.node[j]]) : 0.0;
    }
    return largest_of<G, double>(g, to, x.count * ld);
  }
};

}  // namespace hotnas::HOTNAS_ISA
