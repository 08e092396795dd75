// The operators as torch calls them: check what would corrupt memory, allocate the results, hand plain pointers
// to the kernels of a device. Included once per device, with a policy for what devices do differently:
//   run(kernel, args, items, chunk, op)         the kernel (a member of KernelsOf) on all items
//   check_index(op, name, index, below)         values of an index tensor, where reading them is free
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <ostream>
#include <tuple>
#include <vector>

#include "cpu/kernels.h"

// Tests register the same operators on other kernels under another name. The detour expands the name.
#define HOTNAS_LIBRARY_IMPL_NAMED(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
#define HOTNAS_LIBRARY_IMPL(key, m) HOTNAS_LIBRARY_IMPL_NAMED(HOTNAS_LIBRARY_NAME, key, m)

namespace hotnas {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

/// The operator that is called, for messages, and the device that all of its tensors share.
struct Call {
  const char* name;
  torch::stable::Device device;

  Call(const char* op, const Tensor& first) : name(op), device(first.device()) {}
  friend std::ostream& operator<<(std::ostream& to, const Call& op) { return to << op.name; }
};

/// Runs f<float> or f<double> by the dtype of `like`.
template <class F>
auto by_dtype(const Tensor& like, const Call& op, F f) {
  const ScalarType type = like.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, op,
                  ": expected float32 or float64 tensors; cast the inputs");
  return type == ScalarType::Float ? f.template operator()<float>()
                                   : f.template operator()<double>();
}

/// A contiguous tensor of the given dtype and shape (-1: any length), or an error that names it.
Tensor read(const Tensor& tensor, const Call& op, const char* name, ScalarType type,
            std::initializer_list<std::int64_t> shape) {
  STD_TORCH_CHECK(tensor.device() == op.device, op, ": ", name,
                  " must be on the device of the other tensors");
  STD_TORCH_CHECK(tensor.scalar_type() == type, op, ": ", name, " has another dtype than expected");
  STD_TORCH_CHECK(tensor.dim() == static_cast<std::int64_t>(shape.size()), op, ": ", name,
                  " must have ", shape.size(), " dimensions, got ", tensor.dim());
  std::int64_t axis = 0;
  for (const std::int64_t length : shape) {
    STD_TORCH_CHECK(length < 0 || tensor.size(axis) == length, op, ": ", name, " must have length ",
                    length, " along dimension ", axis, ", got ", tensor.size(axis));
    ++axis;
  }
  return torch::stable::contiguous(tensor);
}

/// Counts are ints in the kernels.
int count(const Call& op, const char* name, std::int64_t value, std::int64_t least = 1,
          std::int64_t most = std::numeric_limits<int>::max()) {
  STD_TORCH_CHECK(value >= least && value <= most, op, ": ", name, " must be between ", least,
                  " and ", most, ", got ", value);
  return static_cast<int>(value);
}

/// A problem with more nodes would not fit any memory anyway.
int nodes(const Tensor& tensor, std::int64_t axis, const Call& op) {
  const std::int64_t count = tensor.size(axis);
  STD_TORCH_CHECK(count <= 32768, op, ": at most 32768 nodes per problem, got ", count);
  return static_cast<int>(count);
}

/// Negative ones are never met, and what is no number would be met at once.
double tolerance(const Call& op, const char* name, double value) {
  STD_TORCH_CHECK(value == value, op, ": ", name, " must be a number, got NaN");
  return value;
}

/// How many of the starts to use: there are three without `given` ones.
int starts_used(const Call& op, std::int64_t num_starts, std::int64_t given) {
  return count(op, "num_starts", num_starts, 1, 3 + given);
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <class T>
T* write(Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

Tensor like(const Tensor& tensor, std::initializer_list<std::int64_t> shape,
            std::optional<ScalarType> type = std::nullopt) {
  const std::vector<std::int64_t> size(shape);
  return torch::stable::new_empty(tensor, torch::headeronly::IntHeaderOnlyArrayRef(size), type);
}

/// Work per chunk large enough that its start-up does not show, small enough to balance threads.
std::int64_t chunk_for(int n, int m) { return std::max<std::int64_t>(1, 8192 / (1 + n * m)); }

void check_terms(const Call& op, std::int64_t loss, std::int64_t pairs) {
  STD_TORCH_CHECK(loss == 0 || loss == 1, op, ": loss must be 0 (l1) or 1 (l2), got ", loss);
  STD_TORCH_CHECK(pairs >= 0 && pairs <= 2, op,
                  ": pairs must be 0 (all), 1 (directed) or 2 (ordered), got ", pairs);
}

void check_epsilon(const Call& op, double epsilon) {
  STD_TORCH_CHECK(epsilon > 0 && epsilon <= std::numeric_limits<double>::max(), op,
                  ": epsilon must be finite and positive, got ", epsilon);
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> transport(const Tensor& cost_,
                                                                     const Tensor& a_,
                                                                     const Tensor& b_) {
  const Call op{"transport", cost_};
  const ScalarType type = cost_.scalar_type();
  const Tensor cost = read(cost_, op, "cost", type, {-1, -1, -1});
  const std::int64_t batch = cost.size(0);
  const int n = nodes(cost, 1, op), m = nodes(cost, 2, op);
  const Tensor a = read(a_, op, "a", type, {batch, n}), b = read(b_, op, "b", type, {batch, m});
  Tensor plan = like(cost, {batch, n, m}), objective = like(cost, {batch});
  Tensor f = like(cost, {batch, n}), g = like(cost, {batch, m});
  Tensor iterations = like(cost, {batch}, ScalarType::Int);
  Tensor status = like(cost, {batch}, ScalarType::Int);
  by_dtype(cost, op, [&]<class T>() {
    const TransportArgs<T> args{n,
                                m,
                                data<T>(cost),
                                data<T>(a),
                                data<T>(b),
                                write<T>(plan),
                                write<T>(objective),
                                write<T>(f),
                                write<T>(g),
                                write<std::int32_t>(iterations),
                                write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::transport, args, batch, 8 * chunk_for(n, m), op);
  });
  return {plan, objective, f, g, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& cost_, const Tensor& a_,
                                                            const Tensor& b_, double epsilon,
                                                            double tol, std::int64_t max_iter) {
  const Call op{"sinkhorn", cost_};
  check_epsilon(op, epsilon);
  const ScalarType type = cost_.scalar_type();
  const Tensor cost = read(cost_, op, "cost", type, {-1, -1, -1});
  const std::int64_t batch = cost.size(0);
  const int n = nodes(cost, 1, op), m = nodes(cost, 2, op);
  const Tensor a = read(a_, op, "a", type, {batch, n}), b = read(b_, op, "b", type, {batch, m});
  Tensor f = like(cost, {batch, n}), g = like(cost, {batch, m}), residual = like(cost, {batch});
  Tensor iterations = like(cost, {batch}, ScalarType::Int);
  Tensor status = like(cost, {batch}, ScalarType::Int);
  by_dtype(cost, op, [&]<class T>() {
    const SinkhornArgs<T> args{n,
                               m,
                               data<T>(cost),
                               data<T>(a),
                               data<T>(b),
                               epsilon,
                               tol,
                               count(op, "max_iter", max_iter),
                               write<T>(f),
                               write<T>(g),
                               write<T>(residual),
                               write<std::int32_t>(iterations),
                               write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::sinkhorn, args, batch, chunk_for(n, m), op);
  });
  return {f, g, residual, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> fgw(
    const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_, const Tensor& a_,
    const Tensor& b_, const Tensor& alpha_, const Tensor& init_, const Tensor& start_costs_,
    std::int64_t loss, std::int64_t pairs, std::int64_t num_starts, double tol,
    std::int64_t max_iter) {
  const Call op{"fgw", cost_};
  const ScalarType type = cost_.scalar_type();
  const Tensor cost = read(cost_, op, "cost", type, {-1, -1, -1});
  const std::int64_t batch = cost.size(0);
  const int n = nodes(cost, 1, op), m = nodes(cost, 2, op);
  check_terms(op, loss, pairs);
  const Tensor struct_x = read(struct_x_, op, "struct_x", type, {batch, n, n});
  const Tensor struct_y = read(struct_y_, op, "struct_y", type, {batch, m, m});
  const Tensor a = read(a_, op, "a", type, {batch, n}), b = read(b_, op, "b", type, {batch, m});
  const Tensor alpha = read(alpha_, op, "alpha", type, {batch});
  const bool has_init = init_.numel() > 0, has_starts = start_costs_.numel() > 0;
  const Tensor init = has_init ? read(init_, op, "init", type, {batch, n, m}) : init_;
  const Tensor starts =
      has_starts ? read(start_costs_, op, "start_costs", type, {-1, n, m}) : start_costs_;
  const int given = has_starts ? count(op, "the number of start_costs", starts.size(0)) : 0;
  Tensor plan = like(cost, {batch, n, m}), objective = like(cost, {batch});
  Tensor f = like(cost, {batch, n}), g = like(cost, {batch, m}), gap = like(cost, {batch});
  Tensor iterations = like(cost, {batch}, ScalarType::Int);
  Tensor status = like(cost, {batch}, ScalarType::Int);
  by_dtype(cost, op, [&]<class T>() {
    const FgwArgs<T> args{n,
                          m,
                          data<T>(cost),
                          data<T>(struct_x),
                          data<T>(struct_y),
                          data<T>(a),
                          data<T>(b),
                          data<T>(alpha),
                          has_init ? data<T>(init) : nullptr,
                          has_starts ? data<T>(starts) : nullptr,
                          given,
                          static_cast<int>(loss),
                          static_cast<int>(pairs),
                          starts_used(op, num_starts, has_init + given),
                          tolerance(op, "tol", tol),
                          count(op, "max_iter", max_iter),
                          write<T>(plan),
                          write<T>(objective),
                          write<T>(f),
                          write<T>(g),
                          write<T>(gap),
                          write<std::int32_t>(iterations),
                          write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::fgw, args, batch, chunk_for(n, m), op);
  });
  return {plan, objective, f, g, gap, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> fgw_backward(const Tensor& plan_, const Tensor& struct_x_,
                                                const Tensor& struct_y_, const Tensor& weight_,
                                                std::int64_t loss, std::int64_t pairs) {
  const Call op{"fgw_backward", plan_};
  const ScalarType type = plan_.scalar_type();
  const Tensor plan = read(plan_, op, "plan", type, {-1, -1, -1});
  const std::int64_t batch = plan.size(0);
  const int n = nodes(plan, 1, op), m = nodes(plan, 2, op);
  check_terms(op, loss, pairs);
  const Tensor struct_x = read(struct_x_, op, "struct_x", type, {batch, n, n});
  const Tensor struct_y = read(struct_y_, op, "struct_y", type, {batch, m, m});
  const Tensor weight = read(weight_, op, "weight", type, {batch});
  Tensor grad_x = like(plan, {batch, n, n}), grad_y = like(plan, {batch, m, m});
  Tensor value = like(plan, {batch});
  by_dtype(plan, op, [&]<class T>() {
    const FgwBackwardArgs<T> args{n,
                                  m,
                                  data<T>(plan),
                                  data<T>(struct_x),
                                  data<T>(struct_y),
                                  data<T>(weight),
                                  static_cast<int>(loss),
                                  static_cast<int>(pairs),
                                  write<T>(grad_x),
                                  write<T>(grad_y),
                                  write<T>(value)};
    Device::run(&KernelsOf<T>::fgw_backward, args, batch, chunk_for(n, m), op);
  });
  return {grad_x, grad_y, value};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> entropic_fgw(
    const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_, const Tensor& a_,
    const Tensor& b_, const Tensor& alpha_, double epsilon, std::int64_t loss, std::int64_t pairs,
    std::int64_t proximal, double tol, std::int64_t max_iter, double inner_tol,
    std::int64_t inner_max_iter) {
  const Call op{"entropic_fgw", cost_};
  check_epsilon(op, epsilon);
  const ScalarType type = cost_.scalar_type();
  const Tensor cost = read(cost_, op, "cost", type, {-1, -1, -1});
  const std::int64_t batch = cost.size(0);
  const int n = nodes(cost, 1, op), m = nodes(cost, 2, op);
  check_terms(op, loss, pairs);
  const Tensor struct_x = read(struct_x_, op, "struct_x", type, {batch, n, n});
  const Tensor struct_y = read(struct_y_, op, "struct_y", type, {batch, m, m});
  const Tensor a = read(a_, op, "a", type, {batch, n}), b = read(b_, op, "b", type, {batch, m});
  const Tensor alpha = read(alpha_, op, "alpha", type, {batch});
  Tensor log_plan = like(cost, {batch, n, m}), residual = like(cost, {batch});
  Tensor f = like(cost, {batch, n}), g = like(cost, {batch, m});
  Tensor iterations = like(cost, {batch}, ScalarType::Int);
  Tensor status = like(cost, {batch}, ScalarType::Int);
  by_dtype(cost, op, [&]<class T>() {
    const EntropicFgwArgs<T> args{n,
                                  m,
                                  data<T>(cost),
                                  data<T>(struct_x),
                                  data<T>(struct_y),
                                  data<T>(a),
                                  data<T>(b),
                                  data<T>(alpha),
                                  epsilon,
                                  static_cast<int>(loss),
                                  static_cast<int>(pairs),
                                  static_cast<int>(proximal),
                                  tol,
                                  count(op, "max_iter", max_iter),
                                  inner_tol,
                                  count(op, "inner_max_iter", inner_max_iter),
                                  write<T>(log_plan),
                                  write<T>(f),
                                  write<T>(g),
                                  write<T>(residual),
                                  write<std::int32_t>(iterations),
                                  write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::entropic_fgw, args, batch, 1, op);
  });
  return {log_plan, f, g, residual, iterations, status};
}

template <class Device>
Tensor fgw_lower_bound(const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_,
                       const Tensor& a_, const Tensor& b_, const Tensor& alpha_, std::int64_t loss,
                       std::int64_t pairs) {
  const Call op{"fgw_lower_bound", cost_};
  const ScalarType type = cost_.scalar_type();
  const Tensor cost = read(cost_, op, "cost", type, {-1, -1, -1});
  const std::int64_t batch = cost.size(0);
  const int n = nodes(cost, 1, op), m = nodes(cost, 2, op);
  check_terms(op, loss, pairs);
  const Tensor struct_x = read(struct_x_, op, "struct_x", type, {batch, n, n});
  const Tensor struct_y = read(struct_y_, op, "struct_y", type, {batch, m, m});
  const Tensor a = read(a_, op, "a", type, {batch, n}), b = read(b_, op, "b", type, {batch, m});
  const Tensor alpha = read(alpha_, op, "alpha", type, {batch});
  Tensor bound = like(cost, {batch});
  by_dtype(cost, op, [&]<class T>() {
    const LowerBoundArgs<T> args{n,
                                 m,
                                 data<T>(cost),
                                 data<T>(struct_x),
                                 data<T>(struct_y),
                                 data<T>(a),
                                 data<T>(b),
                                 data<T>(alpha),
                                 static_cast<int>(loss),
                                 static_cast<int>(pairs),
                                 write<T>(bound)};
    Device::run(&KernelsOf<T>::fgw_lower_bound, args, batch, 1, op);
  });
  return bound;
}

/// One side of cell_distances, checked; the tensors must outlive the pointers.
template <class Device>
struct CellSide {
  Tensor labels, features, structure, mass;
  int nodes_;

  CellSide(const Call& op, const Tensor& labels_in, const Tensor& features_in,
           const Tensor& structure_in, const Tensor& mass_in, ScalarType type,
           std::int64_t num_features, std::int64_t num_labels)
      : labels(read(labels_in, op, "labels", ScalarType::Long, {-1, -1})) {
    const std::int64_t graphs = labels.size(0);
    nodes_ = nodes(labels, 1, op);
    features = read(features_in, op, "features", type, {graphs, nodes_, num_features});
    structure = read(structure_in, op, "struct", type, {graphs, nodes_, nodes_});
    mass = read(mass_in, op, "mass", type, {graphs, nodes_});
    Device::check_index(op, "labels", labels, num_labels);
  }
  template <class T>
  CellTable<T> table() const {
    return {labels.size(0),     nodes_,       data<std::int64_t>(labels), data<T>(features),
            data<T>(structure), data<T>(mass)};
  }
};

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor> cell_distances(
    const Tensor& labels_x, const Tensor& features_x, const Tensor& struct_x, const Tensor& a,
    const Tensor& labels_y, const Tensor& features_y, const Tensor& struct_y, const Tensor& b,
    const Tensor& label_cost_, const Tensor& index_x_, const Tensor& index_y_, double alpha,
    std::int64_t loss, std::int64_t pairs, std::int64_t literal, std::int64_t num_starts,
    const Tensor& start_costs_, double tol, std::int64_t max_iter) {
  const Call op{"cell_distances", features_x};
  const ScalarType type = features_x.scalar_type();
  check_terms(op, loss, pairs);
  const Tensor label_cost = read(label_cost_, op, "label_cost", type, {-1, -1});
  const std::int64_t num_labels = label_cost.size(0);
  STD_TORCH_CHECK(label_cost.size(1) == num_labels, op, ": label_cost must be square");
  STD_TORCH_CHECK(features_x.dim() == 3, op, ": features_x must have 3 dimensions");
  const std::int64_t num_features = features_x.size(2);
  const CellSide<Device> x(op, labels_x, features_x, struct_x, a, type, num_features, num_labels);
  const CellSide<Device> y(op, labels_y, features_y, struct_y, b, type, num_features, num_labels);
  const Tensor index_x = read(index_x_, op, "index_x", ScalarType::Long, {-1});
  const std::int64_t items = index_x.size(0);
  const Tensor index_y = read(index_y_, op, "index_y", ScalarType::Long, {items});
  Device::check_index(op, "index_x", index_x, x.labels.size(0));
  Device::check_index(op, "index_y", index_y, y.labels.size(0));
  const bool has_starts = start_costs_.numel() > 0;
  const Tensor starts = has_starts
                            ? read(start_costs_, op, "start_costs", type, {-1, x.nodes_, y.nodes_})
                            : start_costs_;
  const int given = has_starts ? count(op, "the number of start_costs", starts.size(0)) : 0;
  Tensor objective = like(label_cost, {items}), gap = like(label_cost, {items});
  Tensor iterations = like(label_cost, {items}, ScalarType::Int);
  Tensor status = like(label_cost, {items}, ScalarType::Int);
  by_dtype(label_cost, op, [&]<class T>() {
    const CellDistancesArgs<T> args{x.template table<T>(),
                                    y.template table<T>(),
                                    data<T>(label_cost),
                                    count(op, "the number of labels", num_labels, 0),
                                    count(op, "the number of features", num_features, 0),
                                    data<std::int64_t>(index_x),
                                    data<std::int64_t>(index_y),
                                    static_cast<T>(alpha),
                                    static_cast<int>(loss),
                                    static_cast<int>(pairs),
                                    count(op, "literal", literal, 0, 1),
                                    starts_used(op, num_starts, given),
                                    given,
                                    has_starts ? data<T>(starts) : nullptr,
                                    tolerance(op, "tol", tol),
                                    count(op, "max_iter", max_iter),
                                    write<T>(objective),
                                    write<T>(gap),
                                    write<std::int32_t>(iterations),
                                    write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::cell_distances, args, items, chunk_for(x.nodes_, y.nodes_), op);
  });
  return {objective, gap, iterations, status};
}

/// One side of network_distances, checked.
template <class Device>
struct NetworkSide {
  Tensor cells, mass, features;
  int cells_;

  NetworkSide(const Call& op, const Tensor& cells_in, const Tensor& mass_in,
              const Tensor& features_in, ScalarType type, std::int64_t num_features,
              std::int64_t num_cells)
      : cells(read(cells_in, op, "cells", ScalarType::Long, {-1, -1})) {
    const std::int64_t networks = cells.size(0);
    cells_ = nodes(cells, 1, op);
    mass = read(mass_in, op, "mass", type, {networks, cells_});
    features = read(features_in, op, "features", type, {networks, cells_, num_features});
    Device::check_index(op, "cells", cells, num_cells);
  }
  template <class T>
  NetworkTable<T> table() const {
    return {cells.size(0), cells_, data<std::int64_t>(cells), data<T>(mass), data<T>(features)};
  }
};

template <class Device>
Tensor network_distances(const Tensor& cell_cost_, const Tensor& cells_x, const Tensor& mass_x,
                         const Tensor& features_x, const Tensor& cells_y, const Tensor& mass_y,
                         const Tensor& features_y, const Tensor& index_x_, const Tensor& index_y_) {
  const Call op{"network_distances", cell_cost_};
  const ScalarType type = cell_cost_.scalar_type();
  const Tensor cell_cost = read(cell_cost_, op, "cell_cost", type, {-1, -1});
  STD_TORCH_CHECK(features_x.dim() == 3, op, ": features_x must have 3 dimensions");
  const std::int64_t num_features = features_x.size(2);
  const NetworkSide<Device> x(op, cells_x, mass_x, features_x, type, num_features,
                              cell_cost.size(0));
  const NetworkSide<Device> y(op, cells_y, mass_y, features_y, type, num_features,
                              cell_cost.size(1));
  const Tensor index_x = read(index_x_, op, "index_x", ScalarType::Long, {-1});
  const std::int64_t items = index_x.size(0);
  const Tensor index_y = read(index_y_, op, "index_y", ScalarType::Long, {items});
  Device::check_index(op, "index_x", index_x, x.cells.size(0));
  Device::check_index(op, "index_y", index_y, y.cells.size(0));
  Tensor objective = like(cell_cost, {items});
  by_dtype(cell_cost, op, [&]<class T>() {
    const NetworkDistancesArgs<T> args{
        x.template table<T>(),       y.template table<T>(),
        data<T>(cell_cost),          cell_cost.size(0),
        cell_cost.size(1),           count(op, "the number of features", num_features, 0),
        data<std::int64_t>(index_x), data<std::int64_t>(index_y),
        write<T>(objective)};
    Device::run(&KernelsOf<T>::network_distances, args, items, 8 * chunk_for(x.cells_, y.cells_),
                op);
  });
  return objective;
}

template <class Device, class Library>
void register_operators(Library& m) {
  m.impl("transport", TORCH_BOX(&transport<Device>));
  m.impl("sinkhorn", TORCH_BOX(&sinkhorn<Device>));
  m.impl("fgw", TORCH_BOX(&fgw<Device>));
  m.impl("fgw_backward", TORCH_BOX(&fgw_backward<Device>));
  m.impl("entropic_fgw", TORCH_BOX(&entropic_fgw<Device>));
  m.impl("fgw_lower_bound", TORCH_BOX(&fgw_lower_bound<Device>));
  m.impl("cell_distances", TORCH_BOX(&cell_distances<Device>));
  m.impl("network_distances", TORCH_BOX(&network_distances<Device>));
}

}  // namespace
}  // namespace hotnas
