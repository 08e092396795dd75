// Exact transport.
#pragma once

#include "../core/transport.h"
#include "item.h"

namespace hotnas::HOTNAS_ISA {

/// Duals of the absent nodes: the largest that the other side's nodes with mass allow.
/// at(i, j) is the cost between node i of this side and node j of the other.
template <class G, class T, class Cost>
HN_HD void extend_dual(const G& g, const Side<T>& side, const Support& other,
                       const std::type_identity_t<T>* other_dual, T* dual, Cost at) {
  HN_ROLLED
  for (int i = g.begin(); i < side.nodes; i += g.step()) {
    if (side.mass[i] > 0) continue;
    T least = other.count ? Limits<T>::huge : T(0);
    for (int k = 0; k < other.count; ++k) {
      const T allowed = at(i, other.node[k]) - other_dual[k];
      least = allowed < least ? allowed : least;
    }
    dual[i] = least < Limits<T>::huge ? least : T(0);
  }
}

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
    const T defect = load_matrix(g, x, y, cost, p.m, s.ld, w.cost);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    T objective = 0;
    int paths = 0;
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      const T unit = load_masses(g, x, y, a.mass, b.mass, w.a, w.b);
      g.sync();
      Transport<G, T> transport(g, s, w.transport);
      transport.cold(w.cost);
      if (!transport.solve(w.cost, w.a, w.b)) status = Status::infeasible;
      transport.extract(w.vertex, unit);
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
        plan[at] = w.vertex.mass[t];
        objective += w.vertex.mass[t] * cost[at];
      }
      objective = g.total(objective);
      store_vector(g, x, w.transport.u, f);
      store_vector(g, y, w.transport.v, dual);
      extend_dual(g, a, y, w.transport.v, f,
                  [&](int i, int j) { return cost[static_cast<int64_t>(i) * p.m + j]; });
      extend_dual(g, b, x, w.transport.u, dual,
                  [&](int j, int i) { return cost[static_cast<int64_t>(i) * p.m + j]; });
    }
    if (g.leader()) {
      p.objective[item] = objective;
      p.iterations[item] = paths;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

}  // namespace hotnas::HOTNAS_ISA
