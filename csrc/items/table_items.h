// Distances between rows of tables: of cells by Fused Gromov-Wasserstein, of networks by exact transport.
#pragma once

#include "../core/fgw.h"
#include "item.h"

namespace hotnas::HOTNAS_ISA {

/// Node features of the columns, feature by feature, columns side by side: (num_features, ld).
template <class G, class T>
HN_HD void load_features(const G& g, const Support& y, const T* features, int num_features, int ld,
                         std::type_identity_t<T>* across) {
  HN_ROLLED
  for (int k = 0; k < num_features; ++k) {
    T* row = across + k * ld;
    g.store(row + ld - G::width, G::splat(T(0)));  // the padding
    HN_ROLLED
    for (int j = g.begin(); j < y.count; j += g.step())
      row[j] = features[y.node[j] * num_features + k];
  }
}

/// How many of this lane's nodes have an entry outside [0, below) in a table.
template <class G, class T>
HN_HD T count_unknown(const G& g, const Support& x, const int64_t* table, int64_t below) {
  int unknown = 0;
  HN_ROLLED
  for (int i = g.begin(); i < x.count; i += g.step()) {
    const int64_t entry = table[x.node[i]];
    unknown += entry < 0 || entry >= below ? 1 : 0;
  }
  return static_cast<T>(unknown);
}

/// cost_ij = table[rows_i, cols_j], padded with zeros; the table has num_cols columns.
template <class G, class T>
HN_HD void look_up(const G& g, const Shape& s, const Support& x, const Support& y,
                   const int64_t* rows, const int64_t* cols, const T* table, int64_t num_cols,
                   std::type_identity_t<T>* cost) {
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    const T* from = table + rows[x.node[i]] * num_cols;
    T* row = cost + i * s.ld;
    g.store(row + s.ld - G::width, G::splat(T(0)));  // the padding
    HN_ROLLED
    for (int j = g.begin(); j < s.m; j += g.step()) row[j] = from[cols[y.node[j]]];
  }
}

/// cost_ij += sum_k |own_ik - across_kj|, then times factor(i, j).
template <class G, class T, class Factor>
HN_HD void add_feature_gaps(const G& g, const Shape& s, const Support& x, const T* features,
                            const std::type_identity_t<T>* across, int num_features,
                            std::type_identity_t<T>* cost, Factor factor) {
  using Var = typename G::template Var<T>;
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    const T* own = features + static_cast<std::size_t>(x.node[i]) * num_features;
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      Var sum = G::splat(T(0));
      HN_ROLLED
      for (int k = 0; k < num_features; ++k)
        sum += G::abs(G::splat(own[k]) - g.load(across + k * s.ld + j0));
      g.store(cost + i * s.ld + j0, factor(i, j0, g.load(cost + i * s.ld + j0) + sum));
    }
  }
}

template <class T>
struct CellDistancesItem {
  using Args = CellDistancesArgs<T>;
  using Arguments = Args;
  using Scalar = T;
  using Lane = T;
  static constexpr bool fetches_ahead = true;  // pair_cost of vertices
  struct Work {
    FgwWork<T> fgw;
    GatherWork gather;
    Array<T> across,
        later;  // features of the columns; for the literal reading, how many nodes follow
  };

  HN_HD static Nodes nodes(const Args& p) { return {p.x.nodes, p.y.nodes}; }
  HN_HD static bool sides(const Args& p, int64_t pair, Side<T>& a, Side<T>& b) {
    const int64_t gx = p.index_x[pair], gy = p.index_y[pair];
    if (gx < 0 || gx >= p.x.graphs || gy < 0 || gy >= p.y.graphs) return false;
    a = {p.x.mass + gx * p.x.nodes, p.x.nodes};
    b = {p.y.mass + gy * p.y.nodes, p.y.nodes};
    return true;
  }

  HN_HD static Work take(Arena& arena, const Shape& most, const Args& p, Sizing sizing) {
    Work w{};
    w.fgw = take_fgw<T>(arena, most, sizing.width, sizing.atoms);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    w.later = arena.take_far<T>(most.ld);
    w.across = arena.take_far<T>(static_cast<std::size_t>(p.num_features) * most.ld);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t pair,
                          const Work& w) {
    Side<T> a, b;
    FgwResult<T> best{0, 0, 0, Status::nonfinite};
    if (sides(p, pair, a, b))
      best = distance(g, p, terms, p.index_x[pair], p.index_y[pair], a, b, w);
    if (failed(best.status)) best.objective = best.gap = T(NAN);
    if (g.leader()) {
      p.objective[pair] = best.objective;
      p.gap[pair] = best.gap;
      p.iterations[pair] = best.iterations;
      p.status[pair] = static_cast<int32_t>(best.status);
    }
  }

 private:
  template <class G, class Terms>
  HN_HD static FgwResult<T> distance(const G& g, const Args& p, const Terms& terms, int64_t gx,
                                     int64_t gy, const Side<T>& a, const Side<T>& b,
                                     const Work& w) {
    using Var = typename G::template Var<T>;
    FgwResult<T> none{0, 0, 0, check_masses(g, a, b)};
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    if (none.status != Status::converged || s.n == 0) return none;
    // M_ij = label_cost[o_i, o_j] + sum_k |x_ik - y_jk|, by the literal reading times (n-1-i)(m-1-j)
    const int64_t *labels_x = p.x.labels + gx * p.x.nodes, *labels_y = p.y.labels + gy * p.y.nodes;
    const T unknown = count_unknown<G, T>(g, x, labels_x, p.num_labels) +
                      count_unknown<G, T>(g, y, labels_y, p.num_labels);
    if (g.total(unknown) > 0) {
      none.status = Status::nonfinite;
      return none;
    }
    load_features(g, y, p.y.features + gy * p.y.nodes * p.num_features, p.num_features, s.ld,
                  w.across);
    look_up(g, s, x, y, labels_x, labels_y, p.label_cost, p.num_labels, w.fgw.cost);
    HN_ROLLED
    for (int j = g.begin(); j < s.ld; j += g.step()) w.later[j] = j < s.m ? T(s.m - 1 - j) : T(0);
    load_structures(g, s, x, y, p.x.structure + gx * p.x.nodes * p.x.nodes, p.x.nodes,
                    p.y.structure + gy * p.y.nodes * p.y.nodes, p.y.nodes, w.fgw.c);
    const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.fgw.a, w.fgw.b);
    add_feature_gaps(g, s, x, p.x.features + gx * p.x.nodes * p.num_features, w.across,
                     p.num_features, w.fgw.cost, [&](int i, int j0, Var value) {
                       return p.literal ? value * (G::splat(T(s.n - 1 - i)) * g.load(w.later + j0))
                                        : value;
                     });
    FgwUnits<T> units = scale_problem(g, s, terms, w.fgw.c, w.fgw.cost, p.alpha, mass.exponent);
    units.unit = mass.unit;
    if (units.status != Status::converged) {
      none.status = units.status;
      return none;
    }
    if (g.leader()) *w.fgw.units = units;
    g.sync();
    Fgw<G, Terms, T> solver(g, s, terms, w.fgw, {p.tol, p.max_iter});
    const int64_t matrix = static_cast<int64_t>(p.x.nodes) * p.y.nodes;
    solver.run(p.num_starts, false, p.num_start_costs, [&](int k, T* to) {
      load_matrix(g, x, y, p.start_costs + k * matrix, p.y.nodes, s.ld, to);
    });
    return solver.best(*w.fgw.units);
  }
};

template <class T>
struct NetworkDistancesItem {
  using Args = NetworkDistancesArgs<T>;
  using Arguments = Args;
  using Scalar = T;
  using Lane = T;
  struct Work {
    TransportWork<T> transport;
    Array<T> cost;
    GatherWork gather;
    Vertex<T> vertex;
    Array<T> a, b, across;
  };

  HN_HD static Nodes nodes(const Args& p) { return {p.x.cells, p.y.cells}; }
  HN_HD static bool sides(const Args& p, int64_t pair, Side<T>& a, Side<T>& b) {
    const int64_t nx = p.index_x[pair], ny = p.index_y[pair];
    if (nx < 0 || nx >= p.x.networks || ny < 0 || ny >= p.y.networks) return false;
    a = {p.x.mass + nx * p.x.cells, p.x.cells};
    b = {p.y.mass + ny * p.y.cells, p.y.cells};
    return true;
  }

  HN_HD static Work take(Arena& arena, const Shape& most, const Args& p, Sizing sizing) {
    Work w{};
    w.transport = take_transport<T>(arena, most);
    w.cost = arena.take<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    w.vertex = take_vertex<T>(arena, vertex_capacity(most));
    w.a = arena.take_far<T>(most.n);
    w.b = arena.take_far<T>(most.ld);
    w.across = arena.take_far<T>(static_cast<std::size_t>(p.num_features) * most.ld);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t pair, const Work& w) {
    Side<T> a, b;
    T objective = T(NAN);
    if (sides(p, pair, a, b)) objective = distance(g, p, p.index_x[pair], p.index_y[pair], a, b, w);
    if (g.leader()) p.objective[pair] = objective;
  }

 private:
  template <class G>
  HN_HD static T distance(const G& g, const Args& p, int64_t nx, int64_t ny, const Side<T>& a,
                          const Side<T>& b, const Work& w) {
    using Var = typename G::template Var<T>;
    const Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    if (status != Status::converged) return T(NAN);
    if (s.n == 0) return 0;
    const int64_t *cells_x = p.x.cell + nx * p.x.cells, *cells_y = p.y.cell + ny * p.y.cells;
    const T unknown = count_unknown<G, T>(g, x, cells_x, p.num_cells_x) +
                      count_unknown<G, T>(g, y, cells_y, p.num_cells_y);
    if (g.total(unknown) > 0) return T(NAN);
    load_features(g, y, p.y.features + ny * p.y.cells * p.num_features, p.num_features, s.ld,
                  w.across);
    look_up(g, s, x, y, cells_x, cells_y, p.cell_cost, p.num_cells_y, w.cost);
    const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.a, w.b);
    g.sync();
    add_feature_gaps(g, s, x, p.x.features + nx * p.x.cells * p.num_features, w.across,
                     p.num_features, w.cost, [](int, int, Var value) { return value; });
    const T largest = largest_of<G, T>(g, w.cost, s.n * s.ld);
    if (!(largest - largest == 0)) return T(NAN);
    const int exponent = exponent_of(largest);
    multiply<G, T>(g, w.cost, s.n * s.ld, power_of_two<T>(-exponent));
    Transport<G, T> transport(g, s, w.transport);
    transport.set_out(w.cost, w.a, w.b);
    if (!transport.solve(w.cost)) return T(NAN);
    transport.extract(w.vertex, mass.unit);
    T objective = 0;
    const int count = *w.vertex.count;
    HN_ROLLED
    for (int t = g.begin(); t < count; t += g.step())
      objective += w.vertex.mass[t] * w.cost[w.vertex.place[t]];
    return Back<T>(exponent + mass.exponent)(g.total(objective));
  }
};

}  // namespace hotnas::HOTNAS_ISA
