// One item of each operator, from the caller's arrays to the caller's arrays, on the lanes of one group. The
// launchers of every device run this text; what they add is who works on which item, and on what memory.
//
// An operator is a struct of static functions:
//   nodes(args)                      the largest problem of the batch
//   sides(args, item, a, b)          the masses of an item; false where an index points outside its table
//   take(arena, most, args, ...)     the work space for problems of up to `most`
//   solve(g, args, terms, item, w)   the item on the lanes g, which sync() before they use the work space again
#pragma once

#include "entropic_fgw.h"
#include "fgw.h"
#include "fgw_backward.h"
#include "gather.h"
#include "lower_bound.h"
#include "sinkhorn.h"

namespace hotnas::HOTNAS_ISA {

using std::int32_t;
using std::int64_t;

struct Nodes {
  int n, m;
};

/// The launcher's part of a work space: lanes per problem, atoms that FGW keeps apart, and the most nodes of
/// each side, with mass or without.
struct Sizing {
  int width, atoms, nodes_x, nodes_y;
};

HN_HD bool failed(Status status) {
  return status == Status::nonfinite || status == Status::infeasible;
}

/// What problems between two lists of masses have in common.
template <class Args, class T>
struct BatchItem {
  using Arguments = Args;
  using Scalar = T;

  HN_HD static Nodes nodes(const Args& p) { return {p.n, p.m}; }
  HN_HD static bool sides(const Args& p, int64_t item, Side<T>& a, Side<T>& b) {
    a = {p.a + item * p.n, p.n};
    b = {p.b + item * p.m, p.m};
    return true;
  }
  HN_HD static int64_t matrix(const Args& p) { return static_cast<int64_t>(p.n) * p.m; }
  HN_HD static int64_t own(const Args& p) { return static_cast<int64_t>(p.n) * p.n; }
  HN_HD static int64_t other(const Args& p) { return static_cast<int64_t>(p.m) * p.m; }
};

// ------------------------------------------------------------------------------------- transport

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

// -------------------------------------------------------------------------------------- entropic

/// Logarithms of the masses; the padding never wins a maximum.
template <class G, class T>
HN_HD void load_log_masses(const G& g, const Shape& s, const Support& x, const Support& y,
                           const T* a, const T* b, const SinkhornWork<T>& w) {
  HN_ROLLED
  for (int i = g.begin(); i < s.n; i += g.step()) w.log_a[i] = ScalarLanes::log(a[x.node[i]]);
  HN_ROLLED
  for (int j = g.begin(); j < s.ld; j += g.step())
    w.log_b[j] = j < s.m ? ScalarLanes::log(b[y.node[j]]) : T(0);
}

HN_HD Status status_of(bool finite, bool converged) {
  return !finite ? Status::nonfinite : converged ? Status::converged : Status::max_iter;
}

template <class T>
struct SinkhornItem : BatchItem<SinkhornArgs<T>, T> {
  using Args = SinkhornArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    SinkhornWork<T> sinkhorn;
    Array<T> cost;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.sinkhorn = take_sinkhorn<T>(arena, most);
    w.cost = arena.take<T>(static_cast<std::size_t>(most.n) * most.ld);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms&, int64_t item, const Work& w) {
    Side<T> a, b;
    Base::sides(p, item, a, b);
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect = load_matrix(g, x, y, p.cost + item * Base::matrix(p), p.m, s.ld, w.cost);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    SinkhornResult<T> result{0, 0, true, true};
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      load_log_masses(g, s, x, y, a.mass, b.mass, w.sinkhorn);
      fill(g, w.sinkhorn.f, s.n, T(0));
      fill(g, w.sinkhorn.g, s.ld, T(0));
      g.sync();
      result = sinkhorn(g, s, w.sinkhorn, w.cost, T(p.epsilon), T(p.tol), p.max_iter);
      status = status_of(result.finite, result.converged);
    }
    T *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(status) ? T(NAN) : T(-INFINITY);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      result.residual = T(NAN);
    } else if (solved) {
      store_vector(g, x, w.sinkhorn.f, f);
      store_vector(g, y, w.sinkhorn.g, dual);
    }
    if (g.leader()) {
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

template <class T>
struct EntropicFgwItem : BatchItem<EntropicFgwArgs<T>, T> {
  using Args = EntropicFgwArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    EntropicFgwWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_entropic_fgw<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    const T alpha = p.alpha[item];
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect = load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.fgw.cost) +
                     load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                                     p.struct_y + item * Base::other(p), p.m, w.fgw.c);
    if (!(g.total(defect + (alpha - alpha)) == 0)) status = Status::nonfinite;
    EntropicFgwResult<T> result{0, 0, true, true};
    const bool solved = status == Status::converged && s.n > 0;
    if (solved) {
      load_log_masses(g, s, x, y, a.mass, b.mass, w.fgw.sinkhorn);
      g.sync();
      result = entropic_fgw(g, s, terms, w.fgw, alpha, T(p.epsilon), p.proximal != 0, T(p.tol),
                            p.max_iter, T(p.inner_tol), p.inner_max_iter);
      status = status_of(result.finite, result.converged);
    }
    T *log_plan = p.log_plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(status) ? T(NAN) : T(-INFINITY);
    fill(g, log_plan, matrix, value);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(status)) {
      result.residual = T(NAN);
    } else if (solved) {
      store_matrix(g, x, y, w.fgw.log_plan, s.ld, log_plan, p.m);
      store_vector(g, x, w.fgw.sinkhorn.f, f);
      store_vector(g, y, w.fgw.sinkhorn.g, dual);
    }
    if (g.leader()) {
      p.residual[item] = result.residual;
      p.iterations[item] = result.iterations;
      p.status[item] = static_cast<int32_t>(status);
    }
  }
};

// ------------------------------------------------------------------------------------------- fgw

template <class T>
struct FgwItem : BatchItem<FgwArgs<T>, T> {
  using Args = FgwArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    FgwWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_fgw<T>(arena, most, sizing.width, sizing.atoms);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const int64_t matrix = Base::matrix(p);
    Side<T> a, b;
    Base::sides(p, item, a, b);
    FgwResult<T> best{0, 0, 0, check_masses(g, a, b)};
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T alpha = p.alpha[item];
    const T defect = load_matrix(g, x, y, p.cost + item * matrix, p.m, s.ld, w.fgw.cost) +
                     load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                                     p.struct_y + item * Base::other(p), p.m, w.fgw.c);
    if (!(g.total(defect + (alpha - alpha)) == 0)) best.status = Status::nonfinite;
    const bool solved = best.status == Status::converged && s.n > 0;
    if (solved) {
      const T unit = load_masses(g, x, y, a.mass, b.mass, w.fgw.a, w.fgw.b);
      g.sync();
      Fgw<G, Terms, T> solver(g, s, terms, w.fgw, alpha, unit, {p.tol, p.max_iter});
      solver.run(p.num_starts, p.init != nullptr, p.num_start_costs, [&](int k, T* to) {
        const T* from = k < 0 ? p.init + item * matrix : p.start_costs + k * matrix;
        load_matrix(g, x, y, from, p.m, s.ld, to);
      });
      best = solver.best();
    }
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *dual = p.g + item * p.m;
    const T value = failed(best.status) ? T(NAN) : T(0);
    fill(g, plan, matrix, value);
    fill(g, f, p.n, value);
    fill(g, dual, p.m, value);
    g.sync();
    if (failed(best.status)) {
      best.objective = best.gap = T(NAN);
    } else if (solved) {
      store_matrix(g, x, y, w.fgw.plan, s.ld, plan, p.m);
      store_vector(g, x, w.fgw.f, f);
      store_vector(g, y, w.fgw.g, dual);
    }
    if (g.leader()) {
      p.objective[item] = best.objective;
      p.gap[item] = best.gap;
      p.iterations[item] = best.iterations;
      p.status[item] = static_cast<int32_t>(best.status);
    }
  }
};

/// All nodes, as the plan has no mass where there is none.
template <class T>
struct FgwBackwardItem : BatchItem<FgwBackwardArgs<T>, T> {
  using Args = FgwBackwardArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    FgwBackwardWork<T> fgw;
    GatherWork gather;
  };

  HN_HD static bool sides(const Args& p, int64_t, Side<T>& a, Side<T>& b) {
    a = {nullptr, p.n};
    b = {nullptr, p.m};
    return true;
  }

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.fgw = take_fgw_backward<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    const Support x = list_nodes(g, p.n, w.gather.x), y = list_nodes(g, p.m, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    load_matrix(g, x, y, p.plan + item * Base::matrix(p), p.m, s.ld, w.fgw.plan);
    load_matrix(g, x, x, p.struct_x + item * Base::own(p), p.n, s.ldn, w.fgw.cx);
    load_matrix(g, y, y, p.struct_y + item * Base::other(p), p.m, s.ld, w.fgw.cy);
    fgw_backward(g, s, terms, w.fgw, p.weight[item]);
    store_matrix(g, x, x, w.fgw.grad_x, s.ldn, p.grad_x + item * Base::own(p), p.n);
    store_matrix(g, y, y, w.fgw.grad_y, s.ld, p.grad_y + item * Base::other(p), p.m);
  }
};

template <class T>
struct LowerBoundItem : BatchItem<LowerBoundArgs<T>, T> {
  using Args = LowerBoundArgs<T>;
  using Base = BatchItem<Args, T>;
  struct Work {
    LowerBoundWork<T> bound;
    GatherWork gather;
  };

  HN_HD static Work take(Arena& arena, const Shape& most, const Args&, Sizing sizing) {
    Work w{};
    w.bound = take_lower_bound<T>(arena, most);
    w.gather = take_gather(arena, sizing.nodes_x, sizing.nodes_y);
    return w;
  }

  template <class G, class Terms>
  HN_HD static void solve(const G& g, const Args& p, const Terms& terms, int64_t item,
                          const Work& w) {
    Side<T> a, b;
    Base::sides(p, item, a, b);
    Status status = check_masses(g, a, b);
    const Support x = list_support(g, a, w.gather.x);
    const Support y = list_support(g, b, w.gather.y);
    const Shape s = shape_of<G>(x, y);
    const T defect =
        load_matrix(g, x, y, p.cost + item * Base::matrix(p), p.m, s.ld, w.bound.cost) +
        load_structures(g, s, x, y, p.struct_x + item * Base::own(p), p.n,
                        p.struct_y + item * Base::other(p), p.m, w.bound.c);
    if (!(g.total(defect) == 0)) status = Status::nonfinite;
    T bound = status == Status::converged ? T(0) : T(NAN);
    if (status == Status::converged && s.n > 0) {
      const T unit = load_masses(g, x, y, a.mass, b.mass, w.bound.a, w.bound.b);
      g.sync();
      bound = fgw_lower_bound(g, s, terms, w.bound, p.alpha[item], unit);
    }
    if (g.leader()) p.bound[item] = bound;
  }
};

// ------------------------------------------------------------------------ tables of cells, networks

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

/// cost_ij += sum_k |own_ik - across_kj|, then times factor(i, j). Returns as load_matrix.
template <class G, class T, class Factor>
HN_HD T add_feature_gaps(const G& g, const Shape& s, const Support& x, const T* features,
                         const std::type_identity_t<T>* across, int num_features,
                         std::type_identity_t<T>* cost, Factor factor) {
  using Var = typename G::template Var<T>;
  Var defect = G::splat(T(0));
  HN_ROLLED
  for (int i = 0; i < s.n; ++i) {
    const T* own = features + static_cast<std::size_t>(x.node[i]) * num_features;
    for (int j0 = 0; j0 < s.ld; j0 += G::width) {
      Var sum = G::splat(T(0));
      HN_ROLLED
      for (int k = 0; k < num_features; ++k)
        sum += G::abs(G::splat(own[k]) - g.load(across + k * s.ld + j0));
      const Var value = factor(i, j0, g.load(cost + i * s.ld + j0) + sum);
      g.store(cost + i * s.ld + j0, value);
      defect += value - value;
    }
  }
  return g.sum(defect);
}

template <class T>
struct CellDistancesItem {
  using Args = CellDistancesArgs<T>;
  using Arguments = Args;
  using Scalar = T;
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
    T defect = load_structures(g, s, x, y, p.x.structure + gx * p.x.nodes * p.x.nodes, p.x.nodes,
                               p.y.structure + gy * p.y.nodes * p.y.nodes, p.y.nodes, w.fgw.c);
    const T unit = load_masses(g, x, y, a.mass, b.mass, w.fgw.a, w.fgw.b);
    defect = g.total(defect + (p.alpha - p.alpha));
    g.sync();
    defect += add_feature_gaps(
        g, s, x, p.x.features + gx * p.x.nodes * p.num_features, w.across, p.num_features,
        w.fgw.cost, [&](int i, int j0, Var value) {
          return p.literal ? value * (G::splat(T(s.n - 1 - i)) * g.load(w.later + j0)) : value;
        });
    if (!(defect == 0)) {
      none.status = Status::nonfinite;
      return none;
    }
    Fgw<G, Terms, T> solver(g, s, terms, w.fgw, p.alpha, unit, {p.tol, p.max_iter});
    const int64_t matrix = static_cast<int64_t>(p.x.nodes) * p.y.nodes;
    solver.run(p.num_starts, false, p.num_start_costs, [&](int k, T* to) {
      load_matrix(g, x, y, p.start_costs + k * matrix, p.y.nodes, s.ld, to);
    });
    return solver.best();
  }
};

template <class T>
struct NetworkDistancesItem {
  using Args = NetworkDistancesArgs<T>;
  using Arguments = Args;
  using Scalar = T;
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
    const T unit = load_masses(g, x, y, a.mass, b.mass, w.a, w.b);
    g.sync();
    const T defect =
        add_feature_gaps(g, s, x, p.x.features + nx * p.x.cells * p.num_features, w.across,
                         p.num_features, w.cost, [](int, int, Var value) { return value; });
    if (!(defect == 0)) return T(NAN);
    Transport<G, T> transport(g, s, w.transport);
    transport.cold(w.cost);
    const bool complete = transport.solve(w.cost, w.a, w.b);
    transport.extract(w.vertex, unit);
    T objective = 0;
    const int count = *w.vertex.count;
    HN_ROLLED
    for (int t = g.begin(); t < count; t += g.step())
      objective += w.vertex.mass[t] * w.cost[w.vertex.place[t]];
    objective = g.total(objective);
    return complete ? objective : T(NAN);
  }
};

}  // namespace hotnas::HOTNAS_ISA
