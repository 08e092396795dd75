// Tensors of a call: check what would corrupt memory, allocate the results, hand out plain pointers.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <ostream>
#include <vector>

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
  // What the dispatcher takes for a call is as long as a small problem.
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
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

/// A tensor without values, by an allocation that passes the dispatcher by: a single problem makes six.
Tensor like(const Tensor& tensor, std::initializer_list<std::int64_t> shape,
            std::optional<ScalarType> type = std::nullopt) {
  constexpr std::size_t most = 4;
  std::int64_t strides[most], stride = 1;
  STD_TORCH_CHECK(shape.size() <= most, "results have at most ", most, " dimensions");
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= std::max<std::int64_t>(shape.begin()[axis], 1);
  }
  const auto device = tensor.device();
  using torch::stable::detail::from, torch::stable::detail::to;
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(static_cast<std::int64_t>(shape.size()), shape.begin(), strides,
                               to<std::int32_t>(from(type.value_or(tensor.scalar_type()))),
                               to<std::int32_t>(from(device.type())), device.index(), &made));
  return Tensor(made);
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

/// A batch of problems between two lists of nodes, by its first matrix (batch, n, m), or one problem (n, m); it
/// reads the other inputs and makes the results, whose shapes are given for one problem. What it read must
/// outlive the pointers into it.
struct Batch {
  using Shape = std::initializer_list<std::int64_t>;
  Call op;
  Tensor matrix;
  bool alone;
  std::int64_t size;
  int n, m;

  Batch(const char* name, const Tensor& first, const char* argument = "cost")
      : op(name, first),
        matrix(first.dim() == 2
                   ? hotnas::read(first, op, argument, first.scalar_type(), {-1, -1})
                   : hotnas::read(first, op, argument, first.scalar_type(), {-1, -1, -1})),
        alone(matrix.dim() == 2),
        size(alone ? 1 : matrix.size(0)),
        n(nodes(matrix, alone ? 0 : 1, op)),
        m(nodes(matrix, alone ? 1 : 2, op)) {}

  /// One tensor for all problems.
  Tensor read_shared(const char* name, const Tensor& given, Shape shape) const {
    return hotnas::read(given, op, name, matrix.scalar_type(), shape);
  }
  Tensor read(const char* name, const Tensor& given, Shape shape) const {
    return of_all(shape, [&](Shape all) { return read_shared(name, given, all); });
  }
  Tensor rows(const char* name, const Tensor& given) const { return read(name, given, {n}); }
  Tensor columns(const char* name, const Tensor& given) const { return read(name, given, {m}); }
  Tensor items(const char* name, const Tensor& given) const { return read(name, given, {}); }
  Tensor rows_squared(const char* name, const Tensor& given) const {
    return read(name, given, {n, n});
  }
  Tensor columns_squared(const char* name, const Tensor& given) const {
    return read(name, given, {m, m});
  }

  Tensor result(Shape shape) const {
    return of_all(shape, [&](Shape all) { return like(matrix, all); });
  }
  Tensor result_per_item() const { return result({}); }
  Tensor count_per_item() const {
    return of_all({}, [&](Shape all) { return like(matrix, all, ScalarType::Int); });
  }
  std::int64_t chunk() const { return chunk_for(n, m); }

 private:
  /// f with the shape of all problems, from that of one.
  template <class F>
  Tensor of_all(Shape one, F f) const {
    if (alone) return f(one);
    const std::int64_t* length = one.begin();
    if (one.size() == 0) return f({size});
    if (one.size() == 1) return f({size, length[0]});
    return f({size, length[0], length[1]});
  }
};

}  // namespace
}  // namespace hotnas
