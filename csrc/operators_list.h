// Every operator once: its name in torch, its item (XItem of csrc/items, XArgs of core/arguments.h) and its schema.
// Functional: tensors in, new tensors out. Whoever declares, registers, launches, compiles or describes operators
// goes through this list; CMakeLists.txt reads it, one line per operator. hotnas_torch/ot/_operators holds the documented
// wrappers and hotnas_torch/ot/_reference the specification of each.
#pragma once

// clang-format off
#define HOTNAS_OPERATORS(X) \
  X(transport, Transport, \
    "(Tensor cost, Tensor a, Tensor b, int dummies=0)" \
    " -> (Tensor plan, Tensor objective, Tensor f, Tensor g, Tensor iterations, Tensor status)") \
  X(sinkhorn, Sinkhorn, \
    "(Tensor cost, Tensor a, Tensor b, float epsilon, float tol, int max_iter)" \
    " -> (Tensor f, Tensor g, Tensor residual, Tensor iterations, Tensor status)") \
  X(entropic_transport, EntropicTransport, \
    "(Tensor cost, Tensor a, Tensor b, float epsilon, float tol, int max_iter)" \
    " -> (Tensor plan, Tensor objective, Tensor linear, Tensor f, Tensor g, Tensor residual, Tensor iterations," \
    " Tensor status)") \
  X(fgw, Fgw, \
    "(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha, Tensor init," \
    " Tensor start_costs, int loss, int pairs, int num_starts, float tol, int max_iter, int dummies=0)" \
    " -> (Tensor plan, Tensor objective, Tensor f, Tensor g, Tensor gap, Tensor iterations, Tensor status)") \
  X(semirelaxed_fgw, SemirelaxedFgw, \
    "(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha, Tensor init," \
    " Tensor start_costs, int loss, int pairs, int num_starts, float tol, int max_iter)" \
    " -> (Tensor plan, Tensor objective, Tensor f, Tensor gap, Tensor iterations, Tensor status)") \
  X(unbalanced_sinkhorn, UnbalancedSinkhorn, \
    "(Tensor cost, Tensor a, Tensor b, float epsilon, float marginal_x, float marginal_y, int penalty, float tol," \
    " int max_iter) -> (Tensor f, Tensor g, Tensor residual, Tensor iterations, Tensor status)") \
  X(kl_transport, KlTransport, \
    "(Tensor cost, Tensor a, Tensor b, float marginal_x, float marginal_y, float tol, int max_iter)" \
    " -> (Tensor plan, Tensor objective, Tensor f, Tensor g, Tensor gap, Tensor iterations, Tensor status)") \
  X(fgw_backward, FgwBackward, \
    "(Tensor plan, Tensor struct_x, Tensor struct_y, Tensor weight, int loss, int pairs)" \
    " -> (Tensor grad_x, Tensor grad_y, Tensor value)") \
  X(entropic_fgw, EntropicFgw, \
    "(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha, Tensor init, float epsilon," \
    " int loss, int pairs, int proximal, float tol, int max_iter, float inner_tol, int inner_max_iter)" \
    " -> (Tensor log_plan, Tensor f, Tensor g, Tensor residual, Tensor iterations, Tensor status)") \
  X(fgw_lower_bound, LowerBound, \
    "(Tensor cost, Tensor struct_x, Tensor struct_y, Tensor a, Tensor b, Tensor alpha, int loss, int pairs)" \
    " -> Tensor") \
  X(cell_distances, CellDistances, \
    "(Tensor labels_x, Tensor features_x, Tensor struct_x, Tensor a, Tensor labels_y, Tensor features_y," \
    " Tensor struct_y, Tensor b, Tensor label_cost, Tensor index_x, Tensor index_y, float alpha, int loss," \
    " int pairs, int literal, int num_starts, Tensor start_costs, float tol, int max_iter)" \
    " -> (Tensor objective, Tensor gap, Tensor iterations, Tensor status)") \
  X(network_distances, NetworkDistances, \
    "(Tensor cell_cost, Tensor cells_x, Tensor mass_x, Tensor features_x, Tensor cells_y, Tensor mass_y," \
    " Tensor features_y, Tensor index_x, Tensor index_y) -> Tensor")
// clang-format on
