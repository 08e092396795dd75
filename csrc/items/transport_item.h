// Exact transport.
#pragma once

#include "../core/transport.h"
#include "item.h"

namespace hotnas::HOTNAS_ISA {

template <class T>
struct TransportItem : BatchItem<TransportArgs<T>, T> {
  using Args = TransportArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    TransportWork<T> transport;
    Array<T> cost;
    GatherWork gather;
    Vertex<T> vertex;
    Array<T> a, b;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.transport = take_transport<T>(arena, most);
    w.cost = arena.take<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    w.vertex = take_vertex<T>(arena, vertex_capacity(most));
    w.a = arena.take_far<T>(most.n);
    w.b = arena.take_far<T>(most.ld);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    const T* cost = p.cost + item * matrix;
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    load_matrix(g, x, y, cost, p.m, s.ld, w.cost);
    typename G::template Var<T> most = G::splat(T(0)), defect = most, forbids = most;
    survey_costs<G, T>(g, w.cost, s.n * s.ld, most, defect, forbids);
    const T largest = g.max_of(most);
    if (!(g.sum(defect) == 0)) status = Status::nonfinite;
    Back<T> of_cost(exponent_of(largest)), of_mass(0);
    T objective = 0;
    int paths = 0;
    scale_costs<G, T>(g, w.cost, s.n * s.ld, power_of_two<T>(-exponent_of(largest)));
    if (status == Status::converged && g.max_of(forbids) > 0 && !all_have_arcs<G, T>(g, s, w.cost))
      status = Status::infeasible;
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.a, w.b);
      of_mass = Back<T>(mass.exponent);
      g.sync();
      Transport<G, T> transport(g, s, w.transport);
      transport.set_out(w.cost, w.a, w.b, list_dummies(x, y, p.n, p.m, p.dummies).both());
      if (transport.solve(w.cost)) {
        transport.settle(w.cost);
        transport.extract(w.vertex, mass.unit);
      } else {
        status = Status::infeasible;
      }
      paths = transport.paths();
    }
    const T value = failed(status) ? T(NAN) : T(0);
    fill(g, plan, matrix, value);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      objective = T(NAN);
    } else if (solved) {
      const int count = *w.vertex.count;
      HN_ROLLED
      for (int t = g.begin(); t < count; t += g.step()) {
        const int64_t at =
            static_cast<int64_t>(x.node[w.vertex.row[t]]) * p.m + y.node[w.vertex.col[t]];
        plan[at] = of_mass(w.vertex.mass[t]);
        objective += w.vertex.mass[t] * w.cost[w.vertex.place[t]];
      }
      objective = of_mass(of_cost(g.total(objective)));
      const Array<T> u = w.transport.simplex.dual_of_rows(s);
      centre_duals(g, s, w.a, w.b, u, w.transport.v);
      store_vector(g, x, u, f, of_cost);
      store_vector(g, y, w.transport.v, dual, of_cost);
      extend_duals(g, a, b, x, y, f, dual,
                   [&](int i, int j) { return cost[static_cast<int64_t>(i) * p.m + j]; });
      if (!(g.total(defects<T>(g, f, p.n) + defects<T>(g, dual, p.m)) == 0))
        status = Status::nonfinite;  // beyond what T holds
    }
    if (g.leader()) {
      p.objective[item] = objective;
      p.iterations[item] = paths;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

}  // namespace hotnas::HOTNAS_ISA
