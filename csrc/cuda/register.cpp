// The operators on CUDA devices: queued on the caller's stream, without waiting for results.
#include <torch/csrc/stable/accelerator.h>

#include "launch.h"
#include "operators.h"

namespace hotnas {
namespace {

namespace accelerator = torch::stable::accelerator;

struct Cuda {
  template <class T, class Args>
  static void run(bool (*KernelsOf<T>::*)(const Args&, std::int64_t, std::int64_t, Watch&),
                  const Args& args, std::int64_t items, std::int64_t, const Call& op) {
    const auto index = op.device.index();
    const accelerator::DeviceGuard guard(index);
    std::optional<Tensor> memory;  // goes back to this stream, so whoever gets it next comes later
    const cuda::Queue queue{
        index, accelerator::getCurrentStream(index).nativeHandle(), [&](std::size_t bytes) {
          memory = torch::stable::empty({static_cast<std::int64_t>(bytes)}, ScalarType::Byte,
                                        std::nullopt, op.device);
          return memory->mutable_data_ptr();
        }};
    const char* error = cuda::launch(args, items, queue);
    STD_TORCH_CHECK(error == nullptr, op, ": the CUDA kernel was not launched: ", error,
                    "; backend=\"torch\" works without it");
  }

  /// The values are on the device: the kernels answer an index outside its table with NaN.
  static void check_index(const Call&, const char*, const Tensor&, std::int64_t) {}
};

/// Features per node that problems of the operators have which take any number, for their work space.
constexpr int cell_features = 6, network_features = 3;

template <template <class> class Args, class T>
std::string describe() {
  Args<T> args{};
  if constexpr (requires { args.num_labels; })
    args.num_features = cell_features;
  else if constexpr (requires { args.num_features; })
    args.num_features = network_features;
  return cuda::describe(args);
}

template <class T>
std::string describe_all() {
  std::string lines;
#define HOTNAS_DESCRIBE(name, Name, schema) lines += describe<Name##Args, T>();
  HOTNAS_OPERATORS(HOTNAS_DESCRIBE)
#undef HOTNAS_DESCRIBE
  return lines;
}

std::string cuda_kernels() { return describe_all<float>() + describe_all<double>(); }

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(hotnas, m) {
  // what cuda::describe says of every kernel
  m.def("cuda_kernels() -> str");
}

HOTNAS_LIBRARY_IMPL(CompositeExplicitAutograd, m) {
  m.impl("cuda_kernels", TORCH_BOX(&cuda_kernels));
}

HOTNAS_LIBRARY_IMPL(CUDA, m) { register_operators<Cuda>(m); }

}  // namespace hotnas
