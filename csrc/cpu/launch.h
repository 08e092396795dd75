// The launchers of the CPU: item by item, gather the nodes that carry mass into the work space, run the
// core on the lanes, scatter the result. One text for every lane group:
//
// A Lanes object gives each item its work space and picks the lane group:
//   void* memory(bytes)      work space aligned to 64 bytes, or null when there is none
//   choose<T>(columns, f)    calls f(team) with the team that suits rows of `columns` columns
//   int atom_slots(shape)    how many atoms FGW keeps apart
// A team has the lane group as its type Group, and runs the core on all lanes:
//   run(f)                   calls f(group) on every lane; returns when all lanes have
#pragma once

#include <cstdlib>
#include <limits>
#include <type_traits>

#include "../core/entropic_fgw.h"
#include "../core/fgw.h"
#include "../core/fgw_backward.h"
#include "../core/lower_bound.h"
#include "../core/sinkhorn.h"
#include "kernels.h"

namespace hotnas::HOTNAS_ISA {

using std::int32_t;
using std::int64_t;

template <Loss L, class F>
auto with_pairs(int pairs, F f) {
  if (pairs == static_cast<int>(Pairs::all)) return f.template operator()<L, Pairs::all>();
  if (pairs == static_cast<int>(Pairs::directed))
    return f.template operator()<L, Pairs::directed>();
  return f.template operator()<L, Pairs::ordered>();
}

/// Calls f with loss and pair set as compile-time constants.
template <class F>
auto with_terms(int loss, int pairs, F f) {
  return loss == static_cast<int>(Loss::l1) ? with_pairs<Loss::l1>(pairs, f)
                                            : with_pairs<Loss::l2>(pairs, f);
}

/// The nodes that carry mass, and whether all carry the same.
struct Support {
  int* node = nullptr;
  int count = 0;
  bool uniform = true;

  template <class T>
  void read(const T* mass, int nodes) {
    count = 0;
    uniform = true;
    for (int i = 0; i < nodes; ++i) {
      if (!(mass[i] > 0)) continue;
      node[count++] = i;
      uniform &= mass[i] == mass[node[0]];
    }
  }
};

struct SupportPair {
  Support x, y;
  explicit SupportPair(int n, int m) {
    x.node = static_cast<int*>(std::malloc(sizeof(int) * (static_cast<std::size_t>(n) + m + 1)));
    y.node = x.node + n;
  }
  SupportPair(const SupportPair&) = delete;
  SupportPair& operator=(const SupportPair&) = delete;
  ~SupportPair() { std::free(x.node); }
};

template <class G>
Shape shape_of(const Support& x, const Support& y) {
  return {x.count, y.count, round_up(y.count, G::width), round_up(x.count, G::width),
          x.count == y.count && x.uniform && y.uniform};
}

/// Masses in units: whole numbers where both sides are uniform, so that no dust is left over.
template <class T>
T load_masses(const Support& x, const Support& y, const T* a, const T* b, T* out_a, T* out_b) {
  const bool whole = x.uniform && y.uniform;
  const bool equal = x.count == y.count;
  T total = 0;
  for (int i = 0; i < x.count; ++i) {
    total += a[x.node[i]];
    out_a[i] = whole ? T(equal ? 1 : y.count) : a[x.node[i]];
  }
  for (int j = 0; j < y.count; ++j) out_b[j] = whole ? T(equal ? 1 : x.count) : b[y.node[j]];
  if (!whole) return 1;
  return equal ? a[x.node[0]] : total / (T(x.count) * T(y.count));
}

/// Rows and columns with mass of a (.., stride) matrix, padded with zeros.
template <class T>
void load_matrix(const Support& x, const Support& y, const T* from, int stride, int ld, T* to) {
  for (int i = 0; i < x.count; ++i) {
    const T* row = from + static_cast<std::size_t>(x.node[i]) * stride;
    T* out = to + static_cast<std::size_t>(i) * ld;
    for (int j = 0; j < y.count; ++j) out[j] = row[y.node[j]];
    for (int j = y.count; j < ld; ++j) out[j] = 0;
  }
}

template <class T>
void load_structures(const Shape& s, const Support& x, const Support& y, const T* struct_x, int n,
                     const T* struct_y, int m, const Structures<T>& c) {
  load_matrix(x, x, struct_x, n, s.n, c.cx);
  load_matrix(y, y, struct_y, m, s.ld, c.cy);
  for (int l = 0; l < s.m; ++l) {
    for (int j = 0; j < s.m; ++j)
      c.cyt[l * s.ld + j] = struct_y[static_cast<std::size_t>(y.node[j]) * m + y.node[l]];
    for (int j = s.m; j < s.ld; ++j) c.cyt[l * s.ld + j] = 0;
  }
}

template <class T>
void fill(T* to, std::size_t count, T value) {
  for (std::size_t e = 0; e < count; ++e) to[e] = value;
}

template <class T>
bool finite(const T* values, std::size_t count) {
  bool all = true;
  for (std::size_t e = 0; e < count; ++e) all &= values[e] - values[e] == 0;
  return all;
}

/// The same on lanes, for rows that are padded with numbers.
template <class G, class T>
bool all_finite(const G& group, const T* values, int count) {
  auto zero = G::splat(T(0));
  for (int e = 0; e < count; e += G::width) {
    const auto value = group.load(values + e);
    zero += value - value;  // NaN for infinities and NaN
  }
  return group.sum(zero) == 0;
}

/// Masses that can be matched: finite, not negative, equal totals up to rounding.
template <class T>
Status check_masses(const T* a, int n, const T* b, int m) {
  T total_a = 0, total_b = 0;
  bool negative = false;
  for (int i = 0; i < n; ++i) {
    total_a += a[i];
    negative |= a[i] < 0;
  }
  for (int j = 0; j < m; ++j) {
    total_b += b[j];
    negative |= b[j] < 0;
  }
  if (!(total_a - total_a == 0) || !(total_b - total_b == 0)) return Status::nonfinite;
  const T larger = total_a < total_b ? total_b : total_a;
  const T gap = total_a < total_b ? total_b - total_a : total_a - total_b;
  const T slack = std::sqrt(Limits<T>::epsilon) * larger;
  return negative || gap > slack ? Status::infeasible : Status::converged;
}

/// Costs between nodes that carry mass must be numbers.
template <class T>
bool finite_between(const Support& x, const Support& y, const T* cost, int stride) {
  bool all = true;
  for (int i = 0; i < x.count; ++i)
    for (int j = 0; j < y.count; ++j) {
      const T value = cost[static_cast<std::size_t>(x.node[i]) * stride + y.node[j]];
      all &= value - value == 0;
    }
  return all;
}

template <class T>
T nan() {
  return std::numeric_limits<T>::quiet_NaN();
}

template <class T>
T infinity() {
  return std::numeric_limits<T>::infinity();
}

// ------------------------------------------------------------------------------------- transport

/// Nodes without mass get the largest dual that the other side's massive nodes allow.
template <class T>
void extend_duals(const TransportArgs<T>& p, const Support& x, const Support& y, const T* cost,
                  const T* u, const T* v, T* f, T* g) {
  for (int i = 0, at = 0; i < p.n; ++i) {
    if (at < x.count && x.node[at] == i) {
      f[i] = u[at++];
      continue;
    }
    T least = y.count ? Limits<T>::huge : T(0);
    for (int j = 0; j < y.count; ++j) {
      const T allowed = cost[static_cast<std::size_t>(i) * p.m + y.node[j]] - v[j];
      least = allowed < least ? allowed : least;
    }
    f[i] = least < Limits<T>::huge ? least : T(0);
  }
  for (int j = 0, at = 0; j < p.m; ++j) {
    if (at < y.count && y.node[at] == j) {
      g[j] = v[at++];
      continue;
    }
    T least = x.count ? Limits<T>::huge : T(0);
    for (int i = 0; i < x.count; ++i) {
      const T allowed = cost[static_cast<std::size_t>(x.node[i]) * p.m + j] - u[i];
      least = allowed < least ? allowed : least;
    }
    g[j] = least < Limits<T>::huge ? least : T(0);
  }
}

template <class Lanes, class T>
bool transport_range(Lanes& lanes, const TransportArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  for (int64_t item = begin; item < end; ++item) {
    const T *cost = p.cost + item * matrix, *a = p.a + item * p.n, *b = p.b + item * p.m;
    T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *g = p.g + item * p.m;
    Support &x = support.x, &y = support.y;
    x.read(a, p.n);
    y.read(b, p.m);
    Status status = check_masses(a, p.n, b, p.m);
    if (!finite_between(x, y, cost, p.m)) status = Status::nonfinite;
    p.iterations[item] = 0;
    fill(plan, matrix, T(0));
    if (status == Status::converged && x.count > 0) {
      const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
        using G = typename std::remove_cvref_t<decltype(team)>::Group;
        const Shape s = shape_of<G>(x, y);
        const auto layout = [&](Arena& arena, TransportWork<T>& w, Vertex<T>& v, T*& c, T*& ma,
                                T*& mb) {
          w = take_transport<T>(arena, s);
          v = take_vertex<T>(arena, vertex_capacity(s));
          c = arena.take<T>(static_cast<std::size_t>(s.n) * s.ld);
          ma = arena.take<T>(s.n);
          mb = arena.take<T>(s.ld);
        };
        TransportWork<T> w;
        Vertex<T> v;
        T *c, *mass_a, *mass_b;
        Arena size(nullptr);
        layout(size, w, v, c, mass_a, mass_b);
        void* memory = lanes.memory(size.used());
        if (memory == nullptr) return false;
        Arena arena(memory);
        layout(arena, w, v, c, mass_a, mass_b);
        load_matrix(x, y, cost, p.m, s.ld, c);
        const T unit = load_masses(x, y, a, b, mass_a, mass_b);
        team.run([&](const G& group) {
          Transport<G, T> transport(group, s, w);
          transport.cold(c);
          const bool complete = transport.solve(c, mass_a, mass_b);
          transport.extract(v, unit);
          if (!group.leader()) return;
          if (!complete) status = Status::infeasible;
          p.iterations[item] = transport.paths();
        });
        T objective = 0;
        for (int t = 0; t < *v.count; ++t) {
          const std::size_t at =
              static_cast<std::size_t>(x.node[v.row[t]]) * p.m + y.node[v.col[t]];
          plan[at] = v.mass[t];
          objective += v.mass[t] * cost[at];
        }
        p.objective[item] = objective;
        extend_duals(p, x, y, cost, w.u, w.v, f, g);
        return true;
      });
      if (!fits) return false;
    } else if (status == Status::converged) {
      p.objective[item] = 0;
      fill(f, p.n, T(0));
      fill(g, p.m, T(0));
    }
    if (status != Status::converged) {
      fill(plan, matrix, nan<T>());
      fill(f, p.n, nan<T>());
      fill(g, p.m, nan<T>());
      p.objective[item] = nan<T>();
    }
    p.status[item] = static_cast<int32_t>(status);
  }
  return true;
}

// -------------------------------------------------------------------------------------- entropic

/// Logarithms of the masses; the padding never wins a maximum.
template <class T>
void load_log_masses(const Shape& s, const Support& x, const Support& y, const T* a, const T* b,
                     const SinkhornWork<T>& w) {
  for (int i = 0; i < s.n; ++i) w.log_a[i] = std::log(a[x.node[i]]);
  for (int j = 0; j < s.ld; ++j) w.log_b[j] = j < s.m ? std::log(b[y.node[j]]) : T(0);
}

template <class T>
void store_duals(const Support& x, const Support& y, const SinkhornWork<T>& w, T* f, T* g) {
  for (int i = 0; i < x.count; ++i) f[x.node[i]] = w.f[i];
  for (int j = 0; j < y.count; ++j) g[y.node[j]] = w.g[j];
}

template <class Lanes, class T>
bool sinkhorn_range(Lanes& lanes, const SinkhornArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  for (int64_t item = begin; item < end; ++item) {
    const T *cost = p.cost + item * matrix, *a = p.a + item * p.n, *b = p.b + item * p.m;
    T *f = p.f + item * p.n, *g = p.g + item * p.m;
    Support &x = support.x, &y = support.y;
    x.read(a, p.n);
    y.read(b, p.m);
    Status status = check_masses(a, p.n, b, p.m);
    if (!finite_between(x, y, cost, p.m)) status = Status::nonfinite;
    fill(f, p.n, -infinity<T>());
    fill(g, p.m, -infinity<T>());
    p.iterations[item] = 0;
    p.residual[item] = 0;
    if (status == Status::converged && x.count > 0) {
      const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
        using G = typename std::remove_cvref_t<decltype(team)>::Group;
        const Shape s = shape_of<G>(x, y);
        const auto layout = [&](Arena& arena, SinkhornWork<T>& w) {
          w = take_sinkhorn<T>(arena, s);
          return arena.take<T>(static_cast<std::size_t>(s.n) * s.ld);
        };
        SinkhornWork<T> w;
        Arena size(nullptr);
        layout(size, w);
        void* memory = lanes.memory(size.used());
        if (memory == nullptr) return false;
        Arena arena(memory);
        T* c = layout(arena, w);
        load_matrix(x, y, cost, p.m, s.ld, c);
        load_log_masses(s, x, y, a, b, w);
        fill(w.f, s.n, T(0));
        fill(w.g, s.ld, T(0));
        SinkhornResult<T> result;
        team.run([&](const G& group) {
          const SinkhornResult<T> found =
              sinkhorn(group, s, w, c, T(p.epsilon), T(p.tol), p.max_iter);
          if (group.leader()) result = found;
        });
        p.residual[item] = result.residual;
        p.iterations[item] = result.iterations;
        status = !result.finite     ? Status::nonfinite
                 : result.converged ? Status::converged
                                    : Status::max_iter;
        store_duals(x, y, w, f, g);
        return true;
      });
      if (!fits) return false;
    }
    if (status == Status::nonfinite || status == Status::infeasible) {
      fill(f, p.n, nan<T>());
      fill(g, p.m, nan<T>());
      p.residual[item] = nan<T>();
    }
    p.status[item] = static_cast<int32_t>(status);
  }
  return true;
}

template <class Lanes, class T>
bool entropic_fgw_range(Lanes& lanes, const EntropicFgwArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  const std::size_t own = static_cast<std::size_t>(p.n) * p.n;
  const std::size_t other = static_cast<std::size_t>(p.m) * p.m;
  return with_terms(p.loss, p.pairs, [&]<Loss L, Pairs P>() {
    for (int64_t item = begin; item < end; ++item) {
      const T *cost = p.cost + item * matrix, *a = p.a + item * p.n, *b = p.b + item * p.m;
      const T *struct_x = p.struct_x + item * own, *struct_y = p.struct_y + item * other;
      T *log_plan = p.log_plan + item * matrix, *f = p.f + item * p.n, *g = p.g + item * p.m;
      Support &x = support.x, &y = support.y;
      x.read(a, p.n);
      y.read(b, p.m);
      Status status = check_masses(a, p.n, b, p.m);
      if (!finite_between(x, y, cost, p.m) || !finite_between(x, x, struct_x, p.n) ||
          !finite_between(y, y, struct_y, p.m) || !finite(p.alpha + item, 1))
        status = Status::nonfinite;
      fill(log_plan, matrix, -infinity<T>());
      fill(f, p.n, -infinity<T>());
      fill(g, p.m, -infinity<T>());
      p.iterations[item] = 0;
      p.residual[item] = 0;
      if (status == Status::converged && x.count > 0) {
        const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
          using G = typename std::remove_cvref_t<decltype(team)>::Group;
          const Shape s = shape_of<G>(x, y);
          Arena size(nullptr);
          take_entropic_fgw<T>(size, s);
          void* memory = lanes.memory(size.used());
          if (memory == nullptr) return false;
          Arena arena(memory);
          const EntropicFgwWork<T> w = take_entropic_fgw<T>(arena, s);
          load_matrix(x, y, cost, p.m, s.ld, w.cost);
          load_structures(s, x, y, struct_x, p.n, struct_y, p.m, w.c);
          load_log_masses(s, x, y, a, b, w.sinkhorn);
          EntropicFgwResult<T> result;
          team.run([&](const G& group) {
            const EntropicFgwResult<T> found =
                entropic_fgw<L, P>(group, s, w, p.alpha[item], T(p.epsilon), p.proximal != 0,
                                   T(p.tol), p.max_iter, T(p.inner_tol), p.inner_max_iter);
            if (group.leader()) result = found;
          });
          p.residual[item] = result.residual;
          p.iterations[item] = result.iterations;
          status = !result.finite     ? Status::nonfinite
                   : result.converged ? Status::converged
                                      : Status::max_iter;
          for (int i = 0; i < s.n; ++i)
            for (int j = 0; j < s.m; ++j)
              log_plan[static_cast<std::size_t>(x.node[i]) * p.m + y.node[j]] =
                  w.log_plan[i * s.ld + j];
          store_duals(x, y, w.sinkhorn, f, g);
          return true;
        });
        if (!fits) return false;
      }
      if (status == Status::nonfinite || status == Status::infeasible) {
        fill(log_plan, matrix, nan<T>());
        fill(f, p.n, nan<T>());
        fill(g, p.m, nan<T>());
        p.residual[item] = nan<T>();
      }
      p.status[item] = static_cast<int32_t>(status);
    }
    return true;
  });
}

// ------------------------------------------------------------------------------------------- fgw

/// Runs the starts in their fixed order; `init` (n, m) or null comes first.
template <class G, class S, class T>
void run_starts(const G& group, S& solver, const Shape& s, const FgwWork<T>& w, const Support& x,
                const Support& y, const T* init, const T* start_costs, int num_start_costs,
                int num_starts, int n, int m) {
  const auto load = [&](const T* from) {
    group.sync();
    if (group.leader()) load_matrix(x, y, from, m, s.ld, w.grad);
    group.sync();
  };
  int left = num_starts;
  if (init != nullptr && left-- > 0) {
    load(init);
    solver.start_dense(w.grad);
  }
  if (left-- > 0) {
    solver.signature(w.grad);
    solver.start_cheapest(w.grad);
  }
  if (left-- > 0) solver.start_cheapest(w.cost);
  if (left-- > 0) solver.start_ordered();
  for (int r = 0; r < num_start_costs && left-- > 0; ++r) {
    load(start_costs + static_cast<std::size_t>(r) * n * m);
    solver.start_cheapest(w.grad);
  }
}

template <class Lanes, class T>
bool fgw_range(Lanes& lanes, const FgwArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  const std::size_t own = static_cast<std::size_t>(p.n) * p.n;
  const std::size_t other = static_cast<std::size_t>(p.m) * p.m;
  return with_terms(p.loss, p.pairs, [&]<Loss L, Pairs P>() {
    for (int64_t item = begin; item < end; ++item) {
      const T *cost = p.cost + item * matrix, *a = p.a + item * p.n, *b = p.b + item * p.m;
      const T *struct_x = p.struct_x + item * own, *struct_y = p.struct_y + item * other;
      T *plan = p.plan + item * matrix, *f = p.f + item * p.n, *g = p.g + item * p.m;
      const T* init = p.init ? p.init + item * matrix : nullptr;
      Support &x = support.x, &y = support.y;
      x.read(a, p.n);
      y.read(b, p.m);
      Status status = check_masses(a, p.n, b, p.m);
      if (!finite_between(x, y, cost, p.m) || !finite_between(x, x, struct_x, p.n) ||
          !finite_between(y, y, struct_y, p.m) || !finite(p.alpha + item, 1))
        status = Status::nonfinite;
      p.iterations[item] = 0;
      fill(plan, matrix, T(0));
      fill(f, p.n, T(0));
      fill(g, p.m, T(0));
      p.objective[item] = p.gap[item] = 0;
      if (status == Status::converged && x.count > 0) {
        const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
          using G = typename std::remove_cvref_t<decltype(team)>::Group;
          const Shape s = shape_of<G>(x, y);
          Arena size(nullptr);
          take_fgw<T>(size, s, G::width, lanes.atom_slots(s));
          void* memory = lanes.memory(size.used());
          if (memory == nullptr) return false;
          Arena arena(memory);
          const FgwWork<T> w = take_fgw<T>(arena, s, G::width, lanes.atom_slots(s));
          load_matrix(x, y, cost, p.m, s.ld, w.cost);
          load_structures(s, x, y, struct_x, p.n, struct_y, p.m, w.c);
          const T unit = load_masses(x, y, a, b, w.a, w.b);
          FgwResult<T> best;
          team.run([&](const G& group) {
            Fgw<L, P, G, T> solver(group, s, w, p.alpha[item], unit, {p.tol, p.max_iter});
            run_starts(group, solver, s, w, x, y, init, p.start_costs, p.num_start_costs,
                       p.num_starts, p.n, p.m);
            if (group.leader()) best = solver.best();
          });
          p.objective[item] = best.objective;
          p.gap[item] = best.gap;
          p.iterations[item] = best.iterations;
          status = best.status;
          for (int i = 0; i < s.n; ++i) {
            f[x.node[i]] = w.f[i];
            for (int j = 0; j < s.m; ++j)
              plan[static_cast<std::size_t>(x.node[i]) * p.m + y.node[j]] = w.plan[i * s.ld + j];
          }
          for (int j = 0; j < s.m; ++j) g[y.node[j]] = w.g[j];
          return true;
        });
        if (!fits) return false;
      }
      if (status == Status::nonfinite || status == Status::infeasible) {
        fill(plan, matrix, nan<T>());
        fill(f, p.n, nan<T>());
        fill(g, p.m, nan<T>());
        p.objective[item] = p.gap[item] = nan<T>();
      }
      p.status[item] = static_cast<int32_t>(status);
    }
    return true;
  });
}

template <class Lanes, class T>
bool fgw_backward_range(Lanes& lanes, const FgwBackwardArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  const std::size_t own = static_cast<std::size_t>(p.n) * p.n;
  const std::size_t other = static_cast<std::size_t>(p.m) * p.m;
  Support &x = support.x, &y = support.y;
  x.count = p.n;
  y.count = p.m;
  for (int i = 0; i < p.n; ++i) x.node[i] = i;
  for (int j = 0; j < p.m; ++j) y.node[j] = j;
  return with_terms(p.loss, p.pairs, [&]<Loss L, Pairs P>() {
    return lanes.template choose<T>(p.m, [&](auto&& team) {
      using G = typename std::remove_cvref_t<decltype(team)>::Group;
      const Shape s = shape_of<G>(x, y);
      Arena size(nullptr);
      take_fgw_backward<T>(size, s);
      void* memory = lanes.memory(size.used());
      if (memory == nullptr) return false;
      Arena arena(memory);
      const FgwBackwardWork<T> w = take_fgw_backward<T>(arena, s);
      for (int64_t item = begin; item < end; ++item) {
        load_matrix(x, y, p.plan + item * matrix, p.m, s.ld, w.plan);
        load_matrix(x, x, p.struct_x + item * own, p.n, s.n, w.cx);
        load_matrix(y, y, p.struct_y + item * other, p.m, s.ld, w.cy);
        team.run([&](const G& group) { fgw_backward<L, P>(group, s, w, p.weight[item]); });
        for (std::size_t e = 0; e < own; ++e) p.grad_x[item * own + e] = w.grad_x[e];
        for (int j = 0; j < p.m; ++j)
          for (int l = 0; l < p.m; ++l)
            p.grad_y[item * other + static_cast<std::size_t>(j) * p.m + l] = w.grad_y[j * s.ld + l];
      }
      return true;
    });
  });
}

template <class Lanes, class T>
bool lower_bound_range(Lanes& lanes, const LowerBoundArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.n, p.m);
  const std::size_t matrix = static_cast<std::size_t>(p.n) * p.m;
  const std::size_t own = static_cast<std::size_t>(p.n) * p.n;
  const std::size_t other = static_cast<std::size_t>(p.m) * p.m;
  return with_terms(p.loss, p.pairs, [&]<Loss L, Pairs P>() {
    for (int64_t item = begin; item < end; ++item) {
      const T *cost = p.cost + item * matrix, *a = p.a + item * p.n, *b = p.b + item * p.m;
      const T *struct_x = p.struct_x + item * own, *struct_y = p.struct_y + item * other;
      Support &x = support.x, &y = support.y;
      x.read(a, p.n);
      y.read(b, p.m);
      p.bound[item] = 0;
      if (check_masses(a, p.n, b, p.m) != Status::converged || !finite_between(x, y, cost, p.m) ||
          !finite_between(x, x, struct_x, p.n) || !finite_between(y, y, struct_y, p.m)) {
        p.bound[item] = nan<T>();
        continue;
      }
      if (x.count == 0) continue;
      const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
        using G = typename std::remove_cvref_t<decltype(team)>::Group;
        const Shape s = shape_of<G>(x, y);
        Arena size(nullptr);
        take_lower_bound<T>(size, s);
        void* memory = lanes.memory(size.used());
        if (memory == nullptr) return false;
        Arena arena(memory);
        const LowerBoundWork<T> w = take_lower_bound<T>(arena, s);
        load_matrix(x, y, cost, p.m, s.ld, w.cost);
        load_structures(s, x, y, struct_x, p.n, struct_y, p.m, w.c);
        const T unit = load_masses(x, y, a, b, w.a, w.b);
        team.run([&](const G& group) {
          const T bound = fgw_lower_bound<L, P>(group, s, w, p.alpha[item], unit);
          if (group.leader()) p.bound[item] = bound;
        });
        return true;
      });
      if (!fits) return false;
    }
    return true;
  });
}

// ------------------------------------------------------------------------ tables of cells, networks

/// Node features of the columns, feature by feature, columns side by side: (num_features, ld).
template <class T>
void load_features(const Support& y, const T* features, int num_features, int ld, T* across) {
  for (int k = 0; k < num_features; ++k) {
    for (int j = 0; j < y.count; ++j) across[k * ld + j] = features[y.node[j] * num_features + k];
    for (int j = y.count; j < ld; ++j) across[k * ld + j] = 0;
  }
}

/// sum_k |own_k - y_jk| for the columns j of one row of lanes.
template <class G, class T>
auto feature_gap(const G& group, const T* own, const T* across, int num_features, int ld) {
  auto sum = G::splat(T(0));
  for (int k = 0; k < num_features; ++k)
    sum += G::abs(G::splat(own[k]) - group.load(across + k * ld));
  return sum;
}

/// M_ij = label_cost[o_i, o_j] + sum_k |x_ik - y_jk|, by the literal reading times (n-1-i)(m-1-j).
template <class Team, class T>
void node_cost(Team& team, const CellDistancesArgs<T>& p, const Shape& s, const Support& x,
               const Support& y, int64_t gx, int64_t gy, T* across, T* cost) {
  using G = typename Team::Group;
  const T* features_x = p.x.features + gx * p.x.nodes * p.num_features;
  const T* features_y = p.y.features + gy * p.y.nodes * p.num_features;
  const int64_t* labels_x = p.x.labels + gx * p.x.nodes;
  const int64_t* labels_y = p.y.labels + gy * p.y.nodes;
  load_features(y, features_y, p.num_features, s.ld, across);
  for (int i = 0; i < s.n; ++i) {
    T* row = cost + i * s.ld;
    const T* by_label = p.label_cost + labels_x[x.node[i]] * p.num_labels;
    for (int j = 0; j < s.m; ++j) row[j] = by_label[labels_y[y.node[j]]];
    for (int j = s.m; j < s.ld; ++j) row[j] = 0;
  }
  team.run([&](const G& group) {
    for (int i = 0; i < s.n; ++i) {
      const T* own = features_x + x.node[i] * p.num_features;
      for (int j0 = 0; j0 < s.ld; j0 += G::width) {
        auto sum = group.load(cost + i * s.ld + j0);
        sum += feature_gap(group, own, across + j0, p.num_features, s.ld);
        if (p.literal) {
          T later[G::width];
          for (int lane = 0; lane < G::width; ++lane) {
            const int j = j0 + lane;
            later[lane] = j < s.m ? T(s.n - 1 - i) * T(s.m - 1 - j) : T(0);
          }
          sum *= group.load(later);
        }
        group.store(cost + i * s.ld + j0, sum);
      }
    }
  });
}

template <class Lanes, class T>
bool cell_distances_range(Lanes& lanes, const CellDistancesArgs<T>& p, int64_t begin, int64_t end) {
  SupportPair support(p.x.nodes, p.y.nodes);
  return with_terms(p.loss, p.pairs, [&]<Loss L, Pairs P>() {
    for (int64_t pair = begin; pair < end; ++pair) {
      const int64_t gx = p.index_x[pair], gy = p.index_y[pair];
      const T *a = p.x.mass + gx * p.x.nodes, *b = p.y.mass + gy * p.y.nodes;
      Support &x = support.x, &y = support.y;
      x.read(a, p.x.nodes);
      y.read(b, p.y.nodes);
      FgwResult<T> best{0, 0, 0, check_masses(a, p.x.nodes, b, p.y.nodes)};
      const bool solvable = best.status == Status::converged && x.count > 0;
      const bool fits = !solvable || lanes.template choose<T>(y.count, [&](auto&& team) {
        using G = typename std::remove_cvref_t<decltype(team)>::Group;
        const Shape s = shape_of<G>(x, y);
        const auto layout = [&](Arena& arena, FgwWork<T>& w) {
          w = take_fgw<T>(arena, s, G::width, lanes.atom_slots(s));
          return arena.take<T>(static_cast<std::size_t>(p.num_features) * s.ld);
        };
        FgwWork<T> w;
        Arena size(nullptr);
        layout(size, w);
        void* memory = lanes.memory(size.used());
        if (memory == nullptr) return false;
        Arena arena(memory);
        T* across = layout(arena, w);
        node_cost(team, p, s, x, y, gx, gy, across, w.cost);
        load_structures(s, x, y, p.x.structure + gx * p.x.nodes * p.x.nodes, p.x.nodes,
                        p.y.structure + gy * p.y.nodes * p.y.nodes, p.y.nodes, w.c);
        if (!finite(w.c.cx, static_cast<std::size_t>(s.n) * s.n) ||
            !finite(w.c.cy, static_cast<std::size_t>(s.m) * s.ld) || !finite(&p.alpha, 1)) {
          best.status = Status::nonfinite;
          return true;
        }
        const T unit = load_masses(x, y, a, b, w.a, w.b);
        team.run([&](const G& group) {
          if (!all_finite(group, w.cost, s.n * s.ld)) {
            if (group.leader()) best.status = Status::nonfinite;
            return;
          }
          Fgw<L, P, G, T> solver(group, s, w, p.alpha, unit, {p.tol, p.max_iter});
          run_starts(group, solver, s, w, x, y, static_cast<const T*>(nullptr), p.start_costs,
                     p.num_start_costs, p.num_starts, p.x.nodes, p.y.nodes);
          if (group.leader()) best = solver.best();
        });
        return true;
      });
      if (!fits) return false;
      const bool failed = best.status == Status::nonfinite || best.status == Status::infeasible;
      p.objective[pair] = failed ? nan<T>() : best.objective;
      p.gap[pair] = failed ? nan<T>() : best.gap;
      p.iterations[pair] = best.iterations;
      p.status[pair] = static_cast<int32_t>(best.status);
    }
    return true;
  });
}

template <class Lanes, class T>
bool network_distances_range(Lanes& lanes, const NetworkDistancesArgs<T>& p, int64_t begin,
                             int64_t end) {
  SupportPair support(p.x.cells, p.y.cells);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t nx = p.index_x[pair], ny = p.index_y[pair];
    const T *a = p.x.mass + nx * p.x.cells, *b = p.y.mass + ny * p.y.cells;
    Support &x = support.x, &y = support.y;
    x.read(a, p.x.cells);
    y.read(b, p.y.cells);
    const bool feasible = check_masses(a, p.x.cells, b, p.y.cells) == Status::converged;
    p.objective[pair] = feasible ? T(0) : nan<T>();
    if (!feasible || x.count == 0) continue;
    const bool fits = lanes.template choose<T>(y.count, [&](auto&& team) {
      using G = typename std::remove_cvref_t<decltype(team)>::Group;
      const Shape s = shape_of<G>(x, y);
      const auto layout = [&](Arena& arena, TransportWork<T>& w, Vertex<T>& v, T*& c, T*& ma,
                              T*& mb) {
        w = take_transport<T>(arena, s);
        v = take_vertex<T>(arena, vertex_capacity(s));
        c = arena.take<T>(static_cast<std::size_t>(s.n) * s.ld);
        ma = arena.take<T>(s.n);
        mb = arena.take<T>(s.ld);
        return arena.take<T>(static_cast<std::size_t>(p.num_features) * s.ld);
      };
      TransportWork<T> w;
      Vertex<T> v;
      T *cost, *mass_a, *mass_b;
      Arena size(nullptr);
      layout(size, w, v, cost, mass_a, mass_b);
      void* memory = lanes.memory(size.used());
      if (memory == nullptr) return false;
      Arena arena(memory);
      T* across = layout(arena, w, v, cost, mass_a, mass_b);
      load_features(y, p.y.features + ny * p.y.cells * p.num_features, p.num_features, s.ld,
                    across);
      for (int i = 0; i < s.n; ++i) {
        const T* by_cell = p.cell_cost + p.x.cell[nx * p.x.cells + x.node[i]] * p.num_cells_y;
        T* row = cost + i * s.ld;
        for (int j = 0; j < s.m; ++j) row[j] = by_cell[p.y.cell[ny * p.y.cells + y.node[j]]];
        for (int j = s.m; j < s.ld; ++j) row[j] = 0;
      }
      const T unit = load_masses(x, y, a, b, mass_a, mass_b);
      bool solved = false;
      team.run([&](const G& group) {
        for (int i = 0; i < s.n; ++i) {
          const T* own = p.x.features + (nx * p.x.cells + x.node[i]) * p.num_features;
          for (int j0 = 0; j0 < s.ld; j0 += G::width) {
            const auto gap = feature_gap(group, own, across + j0, p.num_features, s.ld);
            group.store(cost + i * s.ld + j0, group.load(cost + i * s.ld + j0) + gap);
          }
        }
        group.sync();
        if (!all_finite(group, cost, s.n * s.ld)) return;
        Transport<G, T> transport(group, s, w);
        transport.cold(cost);
        const bool complete = transport.solve(cost, mass_a, mass_b);
        transport.extract(v, unit);
        if (group.leader()) solved = complete;
      });
      if (!solved) {
        p.objective[pair] = nan<T>();
        return true;
      }
      T objective = 0;
      for (int t = 0; t < *v.count; ++t) objective += v.mass[t] * cost[v.place[t]];
      p.objective[pair] = objective;
      return true;
    });
    if (!fits) return false;
  }
  return true;
}

// ------------------------------------------------------------------------------------------ the table

/// Wraps a launcher: each range of items gets lanes of its own.
template <class Lanes, class Args, bool (*Range)(Lanes&, const Args&, int64_t, int64_t)>
bool with_own_lanes(const Args& args, int64_t begin, int64_t end) {
  Lanes lanes;
  return Range(lanes, args, begin, end);
}

template <class Lanes, class T>
constexpr KernelsOf<T> kernels_on() {
  return {
      with_own_lanes<Lanes, TransportArgs<T>, transport_range<Lanes, T>>,
      with_own_lanes<Lanes, SinkhornArgs<T>, sinkhorn_range<Lanes, T>>,
      with_own_lanes<Lanes, FgwArgs<T>, fgw_range<Lanes, T>>,
      with_own_lanes<Lanes, FgwBackwardArgs<T>, fgw_backward_range<Lanes, T>>,
      with_own_lanes<Lanes, EntropicFgwArgs<T>, entropic_fgw_range<Lanes, T>>,
      with_own_lanes<Lanes, LowerBoundArgs<T>, lower_bound_range<Lanes, T>>,
      with_own_lanes<Lanes, CellDistancesArgs<T>, cell_distances_range<Lanes, T>>,
      with_own_lanes<Lanes, NetworkDistancesArgs<T>, network_distances_range<Lanes, T>>,
  };
}

}  // namespace hotnas::HOTNAS_ISA
