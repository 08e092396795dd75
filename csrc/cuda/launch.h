// What register.cpp asks of the GPU kernels. Neither torch nor CUDA headers: one side is compiled with the
// first alone, the other with the second.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "../core/arguments.h"

namespace hotnas::cuda {

/// Where the work goes, and whence its memory comes.
struct Queue {
  int device;
  void* stream;  // cudaStream_t of that device
  std::function<void*(std::size_t)>
      allocate;  // device memory that lives until the queued work is done
};

/// Queues an operator on `items` items and returns without waiting. Null, or what went wrong.
template <class Args>
const char* launch(const Args& args, std::int64_t items, const Queue& queue);

/// A line per kernel for problems of up to 64 nodes: operator, type, most nodes, threads of a block, and bytes of
/// shared and of global memory per problem.
template <class Args>
std::string describe(const Args& args);

}  // namespace hotnas::cuda
