// What the launchers of every device take: plain pointers in, plain pointers out. Nothing here depends on
// torch or on an instruction set.
#pragma once

#include <cstdint>

namespace hotnas {

/// How an item ended.
enum class Status : std::int32_t { converged = 0, max_iter = 1, nonfinite = 2, infeasible = 3 };

/// Masses (batch, n) and (batch, m), cost (batch, n, m); contiguous, padding has mass 0. dummies: whether the last
/// node of each side is one, which costs nothing.
template <class T>
struct TransportArgs {
  int n, m, dummies;
  const T *cost, *a, *b;
  T *plan, *objective, *f, *g;
  std::int32_t *iterations, *status;
};

template <class T>
struct SinkhornArgs {
  int n, m;
  const T *cost, *a, *b;
  double epsilon, tol;
  int max_iter;
  T *f, *g, *residual;
  std::int32_t *iterations, *status;
};

template <class T>
struct EntropicTransportArgs {
  int n, m;
  const T *cost, *a, *b;
  double epsilon, tol;
  int max_iter;
  T *plan, *objective, *linear, *f, *g, *residual;
  std::int32_t *iterations, *status;
};

/// struct_x (batch, n, n), struct_y (batch, m, m), alpha (batch); init (batch, n, m) or null;
/// start_costs (num_start_costs, n, m). dummies: whether the last node of each side has no pairs.
template <class T>
struct FgwArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha, *init, *start_costs;
  int num_start_costs, loss, pairs, num_starts;
  double tol;
  int max_iter, dummies;
  T *plan, *objective, *f, *g, *gap;
  std::int32_t *iterations, *status;
};

template <class T>
struct FgwBackwardArgs {
  int n, m;
  const T *plan, *struct_x, *struct_y, *weight;
  int loss, pairs;
  T *grad_x, *grad_y, *value;
};

template <class T>
struct EntropicFgwArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha, *init;
  double epsilon;
  int loss, pairs, proximal;
  double tol;
  int max_iter;
  double inner_tol;
  int inner_max_iter;
  T *log_plan, *f, *g, *residual;
  std::int32_t *iterations, *status;
};

/// As FgwArgs; b gives the start a b' and says which columns are there.
template <class T>
struct SemirelaxedFgwArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha, *init, *start_costs;
  int num_start_costs, loss, pairs, num_starts;
  double tol;
  int max_iter;
  T *plan, *objective, *f, *gap;
  std::int32_t *iterations, *status;
};

/// marginal_x, marginal_y: weights of the penalties, infinite for masses that are held; penalty: 0 for the
/// Kullback-Leibler divergence, 1 for the total variation. f and g are those of a plan a b' exp((f + g - cost) / epsilon).
template <class T>
struct UnbalancedSinkhornArgs {
  int n, m;
  const T *cost, *a, *b;
  double epsilon, marginal_x, marginal_y;
  int penalty;
  double tol;
  int max_iter;
  T *f, *g, *residual;
  std::int32_t *iterations, *status;
};

/// marginal_x, marginal_y: as above, not both infinite.
template <class T>
struct KlTransportArgs {
  int n, m;
  const T *cost, *a, *b;
  double marginal_x, marginal_y, tol;
  int max_iter;
  T *plan, *objective, *f, *g, *gap;
  std::int32_t *iterations, *status;
};

template <class T>
struct LowerBoundArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha;
  int loss, pairs;
  T* bound;
};

/// One side of cell_distances: `graphs` graphs of up to `nodes` nodes.
template <class T>
struct CellTable {
  std::int64_t graphs;
  int nodes;
  const std::int64_t* labels;            // (graphs, nodes)
  const T *features, *structure, *mass;  // (graphs, nodes, num_features), (.., nodes, nodes)
};

template <class T>
struct CellDistancesArgs {
  CellTable<T> x, y;
  const T* label_cost;
  int num_labels, num_features;
  const std::int64_t *index_x, *index_y;
  T alpha;
  int loss, pairs, literal, num_starts, num_start_costs;
  const T* start_costs;
  double tol;
  int max_iter;
  T *objective, *gap;
  std::int32_t *iterations, *status;
};

/// One side of network_distances: `networks` networks of up to `cells` cells.
template <class T>
struct NetworkTable {
  std::int64_t networks;
  int cells;
  const std::int64_t* cell;  // (networks, cells)
  const T *mass, *features;  // (networks, cells), (networks, cells, num_features)
};

template <class T>
struct NetworkDistancesArgs {
  NetworkTable<T> x, y;
  const T* cell_cost;  // (num_cells_x, num_cells_y)
  std::int64_t num_cells_x, num_cells_y;
  int num_features;
  const std::int64_t *index_x, *index_y;
  T* objective;
};

}  // namespace hotnas
