// The schemas of every compiled op. Functional: tensors in, new tensors out. hotnas_torch/ot/_operators holds the
// documented wrappers and hotnas_torch/ot/_reference the pure-torch text of each.
#include <torch/csrc/stable/library.h>

#include <string>

// Tests give the same schemas another name. The detour expands it.
#define HOTNAS_LIBRARY_NAMED(name, m) STABLE_TORCH_LIBRARY(name, m)

HOTNAS_LIBRARY_NAMED(HOTNAS_LIBRARY_NAME, m) {
  m.def("cpu_isa() -> int");
  // GPU architectures that the library has code for, such as "80,90,100"; empty without CUDA
  m.def("cuda_architectures() -> str");
  m.def(
      "transport(Tensor cost, Tensor a, Tensor b)"
      " -> (Tensor plan, Tensor objective, Tensor f, Tensor g, Tensor iterations, Tensor status)");
  m.def(
      "sinkhorn(Tensor cost, Tensor a, Tensor b, float epsilon, float tol, int max_iter)"
      " -> (Tensor f, Tensor g, Tensor residual, Tensor iterations, Tensor status)");
  m.def(
      "fgw(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha,"
      " Tensor init, Tensor start_costs, int loss, int pairs, int num_starts, float tol, int max_iter)"
      " -> (Tensor plan, Tensor objective, Tensor f, Tensor g, Tensor gap, Tensor iterations,"
      " Tensor status)");
  m.def(
      "fgw_backward(Tensor plan, Tensor struct_x, Tensor struct_y, Tensor weight, int loss, int pairs)"
      " -> (Tensor grad_x, Tensor grad_y, Tensor value)");
  m.def(
      "entropic_fgw(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha,"
      " float epsilon, int loss, int pairs, int proximal, float tol, int max_iter, float inner_tol,"
      " int inner_max_iter)"
      " -> (Tensor log_plan, Tensor f, Tensor g, Tensor residual, Tensor iterations, Tensor status)");
  m.def(
      "fgw_lower_bound(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b,"
      " Tensor alpha, int loss, int pairs) -> Tensor");
  m.def(
      "cell_distances(Tensor labels_x, Tensor features_x, Tensor struct_x, Tensor a, Tensor labels_y,"
      " Tensor features_y, Tensor struct_y, Tensor b, Tensor label_cost, Tensor index_x,"
      " Tensor index_y, float alpha, int loss, int pairs, int literal, int num_starts,"
      " Tensor start_costs, float tol, int max_iter)"
      " -> (Tensor objective, Tensor gap, Tensor iterations, Tensor status)");
  m.def(
      "network_distances(Tensor cell_cost, Tensor cells_x, Tensor mass_x, Tensor features_x,"
      " Tensor cells_y, Tensor mass_y, Tensor features_y, Tensor index_x, Tensor index_y) -> Tensor");
}

namespace {
std::string cuda_architectures() { return HOTNAS_CUDA_CODE; }
}  // namespace

#define HOTNAS_LIBRARY_IMPL_NAMED(name, m) \
  STABLE_TORCH_LIBRARY_IMPL(name, CompositeExplicitAutograd, m)

HOTNAS_LIBRARY_IMPL_NAMED(HOTNAS_LIBRARY_NAME, m) {
  m.impl("cuda_architectures", TORCH_BOX(&cuda_architectures));
}
