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

template <class T>
std::string describe() {
  CellDistancesArgs<T> cells{};
  NetworkDistancesArgs<T> networks{};
  cells.num_features = 6;
  networks.num_features = 3;
  return cuda::describe(TransportArgs<T>{}) + cuda::describe(SinkhornArgs<T>{}) +
         cuda::describe(FgwArgs<T>{}) + cuda::describe(FgwBackwardArgs<T>{}) +
         cuda::describe(EntropicFgwArgs<T>{}) + cuda::describe(LowerBoundArgs<T>{}) +
         cuda::describe(cells) + cuda::describe(networks);
}

std::string cuda_kernels() { return describe<float>() + describe<double>(); }

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
