// What register.cpp asks of one instruction set: plain pointers in, plain pointers out, a range of items.
// Nothing here depends on torch, and nothing in kernels.cpp may be emitted outside its namespace.
#pragma once

#include <cstdint>

namespace hotnas {

/// Masses (batch, n) and (batch, m), cost (batch, n, m); contiguous, padding has mass 0.
template <class T>
struct TransportArgs {
  int n, m;
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

/// struct_x (batch, n, n), struct_y (batch, m, m), alpha (batch); init (batch, n, m) or null;
/// start_costs (num_start_costs, n, m).
template <class T>
struct FgwArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha, *init, *start_costs;
  int num_start_costs, loss, pairs, num_starts;
  double tol;
  int max_iter;
  T *plan, *objective, *f, *g, *gap;
  std::int32_t *iterations, *status;
};

template <class T>
struct FgwBackwardArgs {
  int n, m;
  const T *plan, *struct_x, *struct_y, *weight;
  int loss, pairs;
  T *grad_x, *grad_y;
};

template <class T>
struct EntropicFgwArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha;
  double epsilon;
  int loss, pairs, proximal;
  double tol;
  int max_iter;
  double inner_tol;
  int inner_max_iter;
  T *log_plan, *f, *g, *residual;
  std::int32_t *iterations, *status;
};

template <class T>
struct LowerBoundArgs {
  int n, m;
  const T *cost, *struct_x, *struct_y, *a, *b, *alpha;
  int loss, pairs;
  T* bound;
};

/// One side of cell_distances: graphs of up to `nodes` nodes.
template <class T>
struct CellTable {
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

/// One side of network_distances: networks of up to `cells` cells.
template <class T>
struct NetworkTable {
  int cells;
  const std::int64_t* cell;  // (networks, cells)
  const T *mass, *features;  // (networks, cells), (networks, cells, num_features)
};

template <class T>
struct NetworkDistancesArgs {
  NetworkTable<T> x, y;
  const T* cell_cost;
  std::int64_t num_cells_y;
  int num_features;
  const std::int64_t *index_x, *index_y;
  T* objective;
};

/// Every function works on items [begin, end) and returns false when memory ran out.
template <class T>
struct KernelsOf {
  bool (*transport)(const TransportArgs<T>&, std::int64_t, std::int64_t);
  bool (*sinkhorn)(const SinkhornArgs<T>&, std::int64_t, std::int64_t);
  bool (*fgw)(const FgwArgs<T>&, std::int64_t, std::int64_t);
  bool (*fgw_backward)(const FgwBackwardArgs<T>&, std::int64_t, std::int64_t);
  bool (*entropic_fgw)(const EntropicFgwArgs<T>&, std::int64_t, std::int64_t);
  bool (*fgw_lower_bound)(const LowerBoundArgs<T>&, std::int64_t, std::int64_t);
  bool (*cell_distances)(const CellDistancesArgs<T>&, std::int64_t, std::int64_t);
  bool (*network_distances)(const NetworkDistancesArgs<T>&, std::int64_t, std::int64_t);
};

struct Kernels {
  int isa;  // 0 baseline, 1 avx2, 2 avx512; -1 other lanes than a vector register's
  KernelsOf<float> f32;
  KernelsOf<double> f64;
};

/// The kernels that the operators run: in the library, those of the processor's widest instruction set.
const Kernels& kernels();

/// The kernels of one instruction set, or null where this processor or this build has none.
const Kernels* instruction_kernels(int isa);

namespace baseline {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

}  // namespace hotnas
