// The GPU kernels of one operator and one floating-point type: an item of csrc/items on lanes of a warp, or of a block
// where a problem is large. Compiled once per operator and type:
//   HOTNAS_NAME  "Fgw", the operator    HOTNAS_ITEM  FgwItem, of csrc/items    HOTNAS_TYPE  float or double
//
// Problems of up to 8, 16 and 32 nodes a side take as many lanes, and what their inner loops touch lies in shared
// memory; those of up to 64 take a warp, two columns to a lane, and lie in global memory. The places of their arrays
// are known when the program is compiled. Larger ones take a block each and lie in global memory. The grid is as large
// as the GPU can hold at once; each group begins with the item of its own number and takes what comes next from a
// counter, as items differ in work by an order of magnitude. Who solves an item changes nothing in its result.
#define HOTNAS_ISA device

#include <cuda_runtime.h>

#include <algorithm>
#include <string>
#include <type_traits>

#include "../items/items.h"
#include "groups.h"
#include "launch.h"

namespace hotnas::HOTNAS_ISA {
namespace {

/// Registers of items that fetch ahead, for problems of up to 8, 16, 32 and 64 nodes: those with which the assembler of an
/// architecture spills none. Less shared memory holds fewer problems, which may have more.
struct Ahead {
  int floats[4], doubles[4];
};
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ / 100 == 9
constexpr Ahead ahead_registers{{72, 80, 96, 96}, {128, 128, 128, 128}};
#elif __CUDA_ARCH__ < 900
constexpr Ahead ahead_registers{{96, 128, 96, 128}, {128, 128, 128, 128}};
#elif __CUDA_ARCH__ < 1200
constexpr Ahead ahead_registers{{96, 96, 96, 96}, {128, 128, 128, 128}};
#else
constexpr Ahead ahead_registers{{96, 128, 96, 128}, {128, 128, 128, 160}};
#endif

/// How problems of up to N nodes a side share a block: its threads, and blocks that a multiprocessor shall hold at
/// once, which bounds their registers. 64 of 32 bits, so that half of the warps that it can hold are there, and 128 for
/// double; more for items that fetch ahead, of which shared memory holds fewer, and where loops go over rows of lanes.
template <class Item, int N>
struct Tiles {
  using T = typename Item::Lane;
  static constexpr bool one_row = N <= 32;
  using Group = std::conditional_t<one_row, OneRowGroup<one_row ? N : 32>, TileGroup<32>>;
  static constexpr int width = Group::width;
  static constexpr bool ahead = requires { Item::fetches_ahead; };
  static constexpr int threads = width == 32 || ahead ? 128 : 256;
  static constexpr int size = N == 8 ? 0 : N == 16 ? 1 : N == 32 ? 2 : 3;
  static constexpr bool doubles = sizeof(T) == 8;
  static constexpr int registers =
      ahead     ? (doubles ? ahead_registers.doubles[size] : ahead_registers.floats[size])
      : doubles ? 128
      : N > 32  ? 96
                : 64;
  static constexpr int blocks = 65536 / threads / registers;
  static constexpr int groups = threads / width;
  HN_HD static Shape most() { return {N, N, N, N, false}; }
  HN_HD static Sizing sizing() { return {width, atom_slots(most()), N, N}; }
  HN_HD static Arena arena(char* near, char* far) {
    return one_row ? Arena(near, far) : Arena(far);
  }
};
constexpr int block_width = 128;
constexpr int blocks_of_large = 2;

/// Global memory that the work spaces of one launch may take together.
constexpr std::size_t most_memory = std::size_t{2} << 30;

/// Bytes per problem.
struct Space {
  std::size_t near, far;
};

template <class Args>
HN_HD auto terms_of(const Args& args) {
  if constexpr (requires { args.loss; })
    return GivenTerms{static_cast<Loss>(args.loss), static_cast<Pairs>(args.pairs)};
  else
    return FixedTerms<Loss::l1, Pairs::all>{};
}

template <class Item, int N>
__global__ __launch_bounds__((Tiles<Item, N>::threads), (Tiles<Item, N>::blocks)) void tiles(
    const __grid_constant__ typename Item::Arguments args, const std::int64_t items,
    const __grid_constant__ Space space, char* const far, unsigned long long* const queue) {
  using Layout = Tiles<Item, N>;
  constexpr int width = Layout::width;
  extern __shared__ __align__(128) char near[];
  const int slot = static_cast<int>(threadIdx.x) / width;
  const int groups = static_cast<int>(blockDim.x) / width;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * groups + slot;
  const std::int64_t all = static_cast<std::int64_t>(gridDim.x) * groups;
  Arena arena = Layout::arena(near + slot * space.near, far + first * space.far);
  const auto work = Item::take(arena, Layout::most(), args, Layout::sizing());
  const auto terms = terms_of(args);
  const typename Layout::Group group;
  HN_ROLLED
  for (std::int64_t item = first; item < items;) {
    Item::solve(group, args, terms, item, work);
    group.sync();
    item = queue ? all + group.next(queue) : items;
  }
}

template <class Item>
__global__ __launch_bounds__(block_width, blocks_of_large) void blocks(
    const __grid_constant__ typename Item::Arguments args, const std::int64_t items,
    const __grid_constant__ Space space, char* const far, unsigned long long* const queue) {
  __shared__ BlockGroup<block_width>::Exchange exchange;
  const Nodes nodes = Item::nodes(args);
  const Shape most{nodes.n, nodes.m, round_up(nodes.m, block_width), round_up(nodes.n, block_width),
                   false};
  Arena arena(far + blockIdx.x * space.far);
  const auto work =
      Item::take(arena, most, args, {block_width, atom_slots(most), nodes.n, nodes.m});
  const auto terms = terms_of(args);
  const BlockGroup<block_width> group(exchange);
  HN_ROLLED
  for (std::int64_t item = blockIdx.x; item < items;) {
    Item::solve(group, args, terms, item, work);
    group.sync();
    item = queue ? gridDim.x + group.next(queue) : items;
  }
}

/// Queues `kernel` with as many blocks as fit the device, the items and the memory. `whole` is how many groups
/// make whole warps. Of the sizes of a block up to `groups`, it takes the one that leaves most groups resident:
/// large blocks leave a part of the shared memory empty.
template <class Kernel, class Args>
cudaError_t queue_blocks(Kernel kernel, int width, int groups, int whole, const Space& space,
                         const Args& args, std::int64_t items, const cuda::Queue& queue) {
  int multiprocessors = 0, shared = 0, of_block = 0;
  // torch has a CUDA runtime of its own, and need not have told this one
  if (const cudaError_t error = cudaSetDevice(queue.device)) return error;
  if (const cudaError_t error =
          cudaDeviceGetAttribute(&of_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, queue.device))
    return error;
  if (const cudaError_t error =
          cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, queue.device))
    return error;
  if (const cudaError_t error = cudaDeviceGetAttribute(
          &shared, cudaDevAttrMaxSharedMemoryPerMultiprocessor, queue.device))
    return error;
  const std::size_t fits = of_block / std::max<std::size_t>(space.near, 1);
  const int most = static_cast<int>(std::min<std::size_t>(groups, fits / whole * whole));
  if (most == 0) return cudaErrorInvalidConfiguration;
  if (const cudaError_t error = cudaFuncSetAttribute(
          kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(space.near * most)))
    return error;
  int resident = 0;
  groups = most;
  for (int size = most; size > 0; size -= whole) {
    int blocks_there = 0;
    if (const cudaError_t error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
            &blocks_there, kernel, size * width, space.near * size))
      return error;
    if (blocks_there * size > resident * groups) resident = blocks_there, groups = size;
  }
  if (resident == 0) return cudaErrorInvalidConfiguration;
  // few items: a block on every multiprocessor rather than full blocks on some
  const std::int64_t each = (items + multiprocessors - 1) / multiprocessors;
  if (each < groups) groups = static_cast<int>((each + whole - 1) / whole) * whole;
  const int threads = groups * width;
  const std::size_t near = space.near * groups;
  // no more of the cache than the resident blocks need; each of them costs another KiB
  const std::size_t carved = resident * (near + 1024) * 100 / shared + 1;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                               static_cast<int>(std::min<std::size_t>(carved, 100))))
    return error;
  const std::int64_t wanted = (items + groups - 1) / groups;
  const std::int64_t fitting = static_cast<std::int64_t>(most_memory / (space.far * groups + 1));
  const std::int64_t grid = std::max<std::int64_t>(
      1, std::min({wanted, fitting, std::int64_t{resident} * multiprocessors}));
  const auto stream = static_cast<cudaStream_t>(queue.stream);
  const std::size_t spaces = grid * groups * space.far;
  char* const far = static_cast<char*>(queue.allocate(spaces + sizeof(unsigned long long)));
  unsigned long long* next = nullptr;  // where every group has one item at most, none asks
  if (items > grid * groups) {
    next = reinterpret_cast<unsigned long long*>(far + spaces);
    if (const cudaError_t error = cudaMemsetAsync(next, 0, sizeof *next, stream)) return error;
  }
  kernel<<<static_cast<unsigned>(grid), threads, near, stream>>>(args, items, space, far, next);
  return cudaGetLastError();
}

template <class Item, int N>
Space space_of_tile(const typename Item::Arguments& args) {
  using Layout = Tiles<Item, N>;
  Arena arena = Layout::arena(nullptr, nullptr);
  Item::take(arena, Layout::most(), args, Layout::sizing());
  const auto whole = [](std::size_t bytes) { return (bytes + 127) / 128 * 128; };
  if (!Layout::one_row) return {0, whole(arena.used())};
  // Neighbours in a warp start in different banks of shared memory.
  constexpr std::size_t row = N * sizeof(typename Item::Lane) % 128;
  return {whole(arena.used()) + row, whole(arena.used_far())};
}

template <class Item, int N>
cudaError_t queue_tiles(const typename Item::Arguments& args, std::int64_t items,
                        const cuda::Queue& queue) {
  using Layout = Tiles<Item, N>;
  return queue_blocks(tiles<Item, N>, Layout::width, Layout::groups, 32 / Layout::width,
                      space_of_tile<Item, N>(args), args, items, queue);
}

template <class Item>
cudaError_t queue_large(const typename Item::Arguments& args, std::int64_t items,
                        const cuda::Queue& queue) {
  const Nodes nodes = Item::nodes(args);
  const Shape most{nodes.n, nodes.m, round_up(nodes.m, block_width), round_up(nodes.n, block_width),
                   false};
  Arena arena(nullptr);
  Item::take(arena, most, args, {block_width, atom_slots(most), nodes.n, nodes.m});
  const Space space{0, (arena.used() + 127) / 128 * 128};
  return queue_blocks(blocks<Item>, block_width, 1, 1, space, args, items, queue);
}

}  // namespace
}  // namespace hotnas::HOTNAS_ISA

namespace hotnas::cuda {

template <class Args>
const char* launch(const Args& args, std::int64_t items, const Queue& queue) {
  using Item = HOTNAS_ISA::HOTNAS_ITEM<HOTNAS_TYPE>;
  if (items == 0) return nullptr;
  const HOTNAS_ISA::Nodes nodes = Item::nodes(args);
  const int most = std::max(nodes.n, nodes.m);
  const cudaError_t error = most <= 8    ? HOTNAS_ISA::queue_tiles<Item, 8>(args, items, queue)
                            : most <= 16 ? HOTNAS_ISA::queue_tiles<Item, 16>(args, items, queue)
                            : most <= 32 ? HOTNAS_ISA::queue_tiles<Item, 32>(args, items, queue)
                            : most <= 64 ? HOTNAS_ISA::queue_tiles<Item, 64>(args, items, queue)
                                         : HOTNAS_ISA::queue_large<Item>(args, items, queue);
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();  // or the next launch would report this one's
  return cudaGetErrorString(error);
}

template <class Args>
std::string describe(const Args& args) {
  using Item = HOTNAS_ISA::HOTNAS_ITEM<HOTNAS_TYPE>;
  std::string lines;
  const auto add = [&]<int N>() {
    const HOTNAS_ISA::Space space = HOTNAS_ISA::space_of_tile<Item, N>(args);
    lines += HOTNAS_NAME;
    for (const std::size_t value :
         {sizeof(HOTNAS_TYPE) * 8, std::size_t{N},
          static_cast<std::size_t>(HOTNAS_ISA::Tiles<Item, N>::threads), space.near, space.far})
      lines.append(1, ' ').append(std::to_string(value));
    lines.append(1, '\n');
  };
  add.template operator()<8>();
  add.template operator()<16>();
  add.template operator()<32>();
  add.template operator()<64>();
  return lines;
}

using Arguments = HOTNAS_ISA::HOTNAS_ITEM<HOTNAS_TYPE>::Arguments;
template const char* launch(const Arguments&, std::int64_t, const Queue&);
template std::string describe(const Arguments&);

}  // namespace hotnas::cuda
