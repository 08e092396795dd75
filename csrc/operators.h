// The operators as torch calls them: read the tensors, make the results, hand plain pointers to the kernels of a
// device. Included once per device, with a policy for what devices do differently:
//   run(kernel, args, items, chunk, op)         the kernel (a member of KernelsOf) on all items
//   check_index(op, name, index, below)         values of an index tensor, where reading them is free
// Problems come in a batch, or one comes without that dimension, and then its results have none either.
#pragma once

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cpu/kernels.h"
#include "tensors.h"

// Tests register the same operators on other kernels under another name. The detour expands the name.
#define HOTNAS_LIBRARY_IMPL_NAMED(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
#define HOTNAS_LIBRARY_IMPL(key, m) HOTNAS_LIBRARY_IMPL_NAMED(HOTNAS_LIBRARY_NAME, key, m)

namespace hotnas {
namespace {

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> transport(const Tensor& cost_,
                                                                     const Tensor& a_,
                                                                     const Tensor& b_,
                                                                     std::int64_t dummies) {
  const Batch in("transport", cost_);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  Tensor plan = in.result({in.n, in.m}), objective = in.result_per_item();
  Tensor f = in.result({in.n}), g = in.result({in.m});
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const TransportArgs<T> args{.n = in.n,
                                .m = in.m,
                                .dummies = count(in.op, "dummies", dummies, 0, 1),
                                .cost = data<T>(in.matrix),
                                .a = data<T>(a),
                                .b = data<T>(b),
                                .plan = write<T>(plan),
                                .objective = write<T>(objective),
                                .f = write<T>(f),
                                .g = write<T>(g),
                                .iterations = write<std::int32_t>(iterations),
                                .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::transport, args, in.size, 8 * in.chunk(), in.op);
  });
  return {plan, objective, f, g, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> sinkhorn(const Tensor& cost_, const Tensor& a_,
                                                            const Tensor& b_, double epsilon,
                                                            double tol, std::int64_t max_iter) {
  const Batch in("sinkhorn", cost_);
  check_epsilon(in.op, epsilon);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  Tensor f = in.result({in.n}), g = in.result({in.m}), residual = in.result_per_item();
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const SinkhornArgs<T> args{.n = in.n,
                               .m = in.m,
                               .cost = data<T>(in.matrix),
                               .a = data<T>(a),
                               .b = data<T>(b),
                               .epsilon = epsilon,
                               .tol = tol,
                               .max_iter = count(in.op, "max_iter", max_iter),
                               .f = write<T>(f),
                               .g = write<T>(g),
                               .residual = write<T>(residual),
                               .iterations = write<std::int32_t>(iterations),
                               .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::sinkhorn, args, in.size, in.chunk(), in.op);
  });
  return {f, g, residual, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> entropic_transport(
    const Tensor& cost_, const Tensor& a_, const Tensor& b_, double epsilon, double tol,
    std::int64_t max_iter) {
  const Batch in("sinkhorn", cost_);  // as callers know it
  check_epsilon(in.op, epsilon);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  Tensor plan = in.result({in.n, in.m}), objective = in.result_per_item();
  Tensor linear = in.result_per_item(), residual = in.result_per_item();
  Tensor f = in.result({in.n}), g = in.result({in.m});
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const EntropicTransportArgs<T> args{.n = in.n,
                                        .m = in.m,
                                        .cost = data<T>(in.matrix),
                                        .a = data<T>(a),
                                        .b = data<T>(b),
                                        .epsilon = epsilon,
                                        .tol = tol,
                                        .max_iter = count(in.op, "max_iter", max_iter),
                                        .plan = write<T>(plan),
                                        .objective = write<T>(objective),
                                        .linear = write<T>(linear),
                                        .f = write<T>(f),
                                        .g = write<T>(g),
                                        .residual = write<T>(residual),
                                        .iterations = write<std::int32_t>(iterations),
                                        .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::entropic_transport, args, in.size, in.chunk(), in.op);
  });
  return {plan, objective, linear, f, g, residual, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> fgw(
    const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_, const Tensor& a_,
    const Tensor& b_, const Tensor& alpha_, const Tensor& init_, const Tensor& start_costs_,
    std::int64_t loss, std::int64_t pairs, std::int64_t num_starts, double tol,
    std::int64_t max_iter, std::int64_t dummies) {
  const Batch in("fgw", cost_);
  check_terms(in.op, loss, pairs);
  const Tensor struct_x = in.rows_squared("struct_x", struct_x_);
  const Tensor struct_y = in.columns_squared("struct_y", struct_y_);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  const Tensor alpha = in.items("alpha", alpha_);
  const bool has_init = init_.numel() > 0, has_starts = start_costs_.numel() > 0;
  const Tensor init = has_init ? in.read("init", init_, {in.n, in.m}) : init_;
  const Tensor starts =
      has_starts ? in.read_shared("start_costs", start_costs_, {-1, in.n, in.m}) : start_costs_;
  const int given = has_starts ? count(in.op, "the number of start_costs", starts.size(0)) : 0;
  Tensor plan = in.result({in.n, in.m}), objective = in.result_per_item();
  Tensor f = in.result({in.n}), g = in.result({in.m}), gap = in.result_per_item();
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const FgwArgs<T> args{.n = in.n,
                          .m = in.m,
                          .cost = data<T>(in.matrix),
                          .struct_x = data<T>(struct_x),
                          .struct_y = data<T>(struct_y),
                          .a = data<T>(a),
                          .b = data<T>(b),
                          .alpha = data<T>(alpha),
                          .init = has_init ? data<T>(init) : nullptr,
                          .start_costs = has_starts ? data<T>(starts) : nullptr,
                          .num_start_costs = given,
                          .loss = static_cast<int>(loss),
                          .pairs = static_cast<int>(pairs),
                          .num_starts = starts_used(in.op, num_starts, has_init + given),
                          .tol = tolerance(in.op, "tol", tol),
                          .max_iter = count(in.op, "max_iter", max_iter),
                          .dummies = count(in.op, "dummies", dummies, 0, 1),
                          .plan = write<T>(plan),
                          .objective = write<T>(objective),
                          .f = write<T>(f),
                          .g = write<T>(g),
                          .gap = write<T>(gap),
                          .iterations = write<std::int32_t>(iterations),
                          .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::fgw, args, in.size, in.chunk(), in.op);
  });
  return {plan, objective, f, g, gap, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> semirelaxed_fgw(
    const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_, const Tensor& a_,
    const Tensor& b_, const Tensor& alpha_, const Tensor& init_, const Tensor& start_costs_,
    std::int64_t loss, std::int64_t pairs, std::int64_t num_starts, double tol,
    std::int64_t max_iter) {
  const Batch in("semirelaxed_fgw", cost_);
  check_terms(in.op, loss, pairs);
  const Tensor struct_x = in.rows_squared("struct_x", struct_x_);
  const Tensor struct_y = in.columns_squared("struct_y", struct_y_);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  const Tensor alpha = in.items("alpha", alpha_);
  const bool has_init = init_.numel() > 0, has_starts = start_costs_.numel() > 0;
  const Tensor init = has_init ? in.read("init", init_, {in.n, in.m}) : init_;
  const Tensor starts =
      has_starts ? in.read_shared("start_costs", start_costs_, {-1, in.n, in.m}) : start_costs_;
  const int given = has_starts ? count(in.op, "the number of start_costs", starts.size(0)) : 0;
  Tensor plan = in.result({in.n, in.m}), objective = in.result_per_item();
  Tensor f = in.result({in.n}), gap = in.result_per_item();
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const SemirelaxedFgwArgs<T> args{
        .n = in.n,
        .m = in.m,
        .cost = data<T>(in.matrix),
        .struct_x = data<T>(struct_x),
        .struct_y = data<T>(struct_y),
        .a = data<T>(a),
        .b = data<T>(b),
        .alpha = data<T>(alpha),
        .init = has_init ? data<T>(init) : nullptr,
        .start_costs = has_starts ? data<T>(starts) : nullptr,
        .num_start_costs = given,
        .loss = static_cast<int>(loss),
        .pairs = static_cast<int>(pairs),
        .num_starts = count(in.op, "num_starts", num_starts, 1, 2 + has_init + given),
        .tol = tolerance(in.op, "tol", tol),
        .max_iter = count(in.op, "max_iter", max_iter),
        .plan = write<T>(plan),
        .objective = write<T>(objective),
        .f = write<T>(f),
        .gap = write<T>(gap),
        .iterations = write<std::int32_t>(iterations),
        .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::semirelaxed_fgw, args, in.size, in.chunk(), in.op);
  });
  return {plan, objective, f, gap, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> unbalanced_sinkhorn(
    const Tensor& cost_, const Tensor& a_, const Tensor& b_, double epsilon, double marginal_x,
    double marginal_y, std::int64_t penalty, double tol, std::int64_t max_iter) {
  const Batch in("unbalanced_sinkhorn", cost_);
  check_epsilon(in.op, epsilon);
  for (const double weight : {marginal_x, marginal_y})
    STD_TORCH_CHECK(weight >= 0, in.op, ": marginal_x and marginal_y must not be negative, got ",
                    weight);
  STD_TORCH_CHECK(penalty == 0 || penalty == 1, in.op, ": penalty must be 0 (kl) or 1 (tv), got ",
                  penalty);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  Tensor f = in.result({in.n}), g = in.result({in.m}), residual = in.result_per_item();
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const UnbalancedSinkhornArgs<T> args{.n = in.n,
                                         .m = in.m,
                                         .cost = data<T>(in.matrix),
                                         .a = data<T>(a),
                                         .b = data<T>(b),
                                         .epsilon = epsilon,
                                         .marginal_x = marginal_x,
                                         .marginal_y = marginal_y,
                                         .penalty = static_cast<int>(penalty),
                                         .tol = tol,
                                         .max_iter = count(in.op, "max_iter", max_iter),
                                         .f = write<T>(f),
                                         .g = write<T>(g),
                                         .residual = write<T>(residual),
                                         .iterations = write<std::int32_t>(iterations),
                                         .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::unbalanced_sinkhorn, args, in.size, in.chunk(), in.op);
  });
  return {f, g, residual, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> kl_transport(
    const Tensor& cost_, const Tensor& a_, const Tensor& b_, double marginal_x, double marginal_y,
    double tol, std::int64_t max_iter) {
  const Batch in("kl_transport", cost_);
  for (const double weight : {marginal_x, marginal_y})
    STD_TORCH_CHECK(weight > 0, in.op, ": marginal_x and marginal_y must be positive, got ",
                    weight);
  STD_TORCH_CHECK(marginal_x <= 1e300 || marginal_y <= 1e300, in.op,
                  ": marginal_x and marginal_y must not both be infinite");
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  Tensor plan = in.result({in.n, in.m}), objective = in.result_per_item();
  Tensor f = in.result({in.n}), g = in.result({in.m}), gap = in.result_per_item();
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const KlTransportArgs<T> args{.n = in.n,
                                  .m = in.m,
                                  .cost = data<T>(in.matrix),
                                  .a = data<T>(a),
                                  .b = data<T>(b),
                                  .marginal_x = marginal_x,
                                  .marginal_y = marginal_y,
                                  .tol = tolerance(in.op, "tol", tol),
                                  .max_iter = count(in.op, "max_iter", max_iter),
                                  .plan = write<T>(plan),
                                  .objective = write<T>(objective),
                                  .f = write<T>(f),
                                  .g = write<T>(g),
                                  .gap = write<T>(gap),
                                  .iterations = write<std::int32_t>(iterations),
                                  .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::kl_transport, args, in.size, in.chunk(), in.op);
  });
  return {plan, objective, f, g, gap, iterations, status};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor> fgw_backward(const Tensor& plan_, const Tensor& struct_x_,
                                                const Tensor& struct_y_, const Tensor& weight_,
                                                std::int64_t loss, std::int64_t pairs) {
  const Batch in("fgw_backward", plan_, "plan");
  check_terms(in.op, loss, pairs);
  const Tensor struct_x = in.rows_squared("struct_x", struct_x_);
  const Tensor struct_y = in.columns_squared("struct_y", struct_y_);
  const Tensor weight = in.items("weight", weight_);
  Tensor grad_x = in.result({in.n, in.n}), grad_y = in.result({in.m, in.m});
  Tensor value = in.result_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const FgwBackwardArgs<T> args{.n = in.n,
                                  .m = in.m,
                                  .plan = data<T>(in.matrix),
                                  .struct_x = data<T>(struct_x),
                                  .struct_y = data<T>(struct_y),
                                  .weight = data<T>(weight),
                                  .loss = static_cast<int>(loss),
                                  .pairs = static_cast<int>(pairs),
                                  .grad_x = write<T>(grad_x),
                                  .grad_y = write<T>(grad_y),
                                  .value = write<T>(value)};
    Device::run(&KernelsOf<T>::fgw_backward, args, in.size, in.chunk(), in.op);
  });
  return {grad_x, grad_y, value};
}

template <class Device>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> entropic_fgw(
    const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_, const Tensor& a_,
    const Tensor& b_, const Tensor& alpha_, const Tensor& init_, double epsilon, std::int64_t loss,
    std::int64_t pairs, std::int64_t proximal, double tol, std::int64_t max_iter, double inner_tol,
    std::int64_t inner_max_iter) {
  const Batch in("entropic_fgw", cost_);
  check_epsilon(in.op, epsilon);
  check_terms(in.op, loss, pairs);
  const Tensor struct_x = in.rows_squared("struct_x", struct_x_);
  const Tensor struct_y = in.columns_squared("struct_y", struct_y_);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  const Tensor alpha = in.items("alpha", alpha_);
  const bool has_init = init_.numel() > 0;
  const Tensor init = has_init ? in.read("init", init_, {in.n, in.m}) : init_;
  Tensor log_plan = in.result({in.n, in.m}), residual = in.result_per_item();
  Tensor f = in.result({in.n}), g = in.result({in.m});
  Tensor iterations = in.count_per_item();
  Tensor status = in.count_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const EntropicFgwArgs<T> args{.n = in.n,
                                  .m = in.m,
                                  .cost = data<T>(in.matrix),
                                  .struct_x = data<T>(struct_x),
                                  .struct_y = data<T>(struct_y),
                                  .a = data<T>(a),
                                  .b = data<T>(b),
                                  .alpha = data<T>(alpha),
                                  .init = has_init ? data<T>(init) : nullptr,
                                  .epsilon = epsilon,
                                  .loss = static_cast<int>(loss),
                                  .pairs = static_cast<int>(pairs),
                                  .proximal = static_cast<int>(proximal),
                                  .tol = tol,
                                  .max_iter = count(in.op, "max_iter", max_iter),
                                  .inner_tol = inner_tol,
                                  .inner_max_iter = count(in.op, "inner_max_iter", inner_max_iter),
                                  .log_plan = write<T>(log_plan),
                                  .f = write<T>(f),
                                  .g = write<T>(g),
                                  .residual = write<T>(residual),
                                  .iterations = write<std::int32_t>(iterations),
                                  .status = write<std::int32_t>(status)};
    Device::run(&KernelsOf<T>::entropic_fgw, args, in.size, 1, in.op);
  });
  return {log_plan, f, g, residual, iterations, status};
}

template <class Device>
Tensor fgw_lower_bound(const Tensor& cost_, const Tensor& struct_x_, const Tensor& struct_y_,
                       const Tensor& a_, const Tensor& b_, const Tensor& alpha_, std::int64_t loss,
                       std::int64_t pairs) {
  const Batch in("fgw_lower_bound", cost_);
  check_terms(in.op, loss, pairs);
  const Tensor struct_x = in.rows_squared("struct_x", struct_x_);
  const Tensor struct_y = in.columns_squared("struct_y", struct_y_);
  const Tensor a = in.rows("a", a_), b = in.columns("b", b_);
  const Tensor alpha = in.items("alpha", alpha_);
  Tensor bound = in.result_per_item();
  by_dtype(in.matrix, in.op, [&]<class T>() {
    const LowerBoundArgs<T> args{.n = in.n,
                                 .m = in.m,
                                 .cost = data<T>(in.matrix),
                                 .struct_x = data<T>(struct_x),
                                 .struct_y = data<T>(struct_y),
                                 .a = data<T>(a),
                                 .b = data<T>(b),
                                 .alpha = data<T>(alpha),
                                 .loss = static_cast<int>(loss),
                                 .pairs = static_cast<int>(pairs),
                                 .bound = write<T>(bound)};
    Device::run(&KernelsOf<T>::fgw_lower_bound, args, in.size, 1, in.op);
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
    return {.graphs = labels.size(0),
            .nodes = nodes_,
            .labels = data<std::int64_t>(labels),
            .features = data<T>(features),
            .structure = data<T>(structure),
            .mass = data<T>(mass)};
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
    const CellDistancesArgs<T> args{
        .x = x.template table<T>(),
        .y = y.template table<T>(),
        .label_cost = data<T>(label_cost),
        .num_labels = count(op, "the number of labels", num_labels, 0),
        .num_features = count(op, "the number of features", num_features, 0),
        .index_x = data<std::int64_t>(index_x),
        .index_y = data<std::int64_t>(index_y),
        .alpha = static_cast<T>(alpha),
        .loss = static_cast<int>(loss),
        .pairs = static_cast<int>(pairs),
        .literal = count(op, "literal", literal, 0, 1),
        .num_starts = starts_used(op, num_starts, given),
        .num_start_costs = given,
        .start_costs = has_starts ? data<T>(starts) : nullptr,
        .tol = tolerance(op, "tol", tol),
        .max_iter = count(op, "max_iter", max_iter),
        .objective = write<T>(objective),
        .gap = write<T>(gap),
        .iterations = write<std::int32_t>(iterations),
        .status = write<std::int32_t>(status)};
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
    return {.networks = cells.size(0),
            .cells = cells_,
            .cell = data<std::int64_t>(cells),
            .mass = data<T>(mass),
            .features = data<T>(features)};
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
        .x = x.template table<T>(),
        .y = y.template table<T>(),
        .cell_cost = data<T>(cell_cost),
        .num_cells_x = cell_cost.size(0),
        .num_cells_y = cell_cost.size(1),
        .num_features = count(op, "the number of features", num_features, 0),
        .index_x = data<std::int64_t>(index_x),
        .index_y = data<std::int64_t>(index_y),
        .objective = write<T>(objective)};
    Device::run(&KernelsOf<T>::network_distances, args, items, 8 * chunk_for(x.cells_, y.cells_),
                op);
  });
  return objective;
}

template <class Device, class Library>
void register_operators(Library& m) {
#define HOTNAS_REGISTER(name, Name, schema) m.impl(#name, TORCH_BOX(&name<Device>));
  HOTNAS_OPERATORS(HOTNAS_REGISTER)
#undef HOTNAS_REGISTER
}

}  // namespace
}  // namespace hotnas
