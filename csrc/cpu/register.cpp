// The operators on the CPU: items are shared out among torch's threads.
#include <atomic>
#include <thread>

#include "operators.h"

namespace hotnas {
namespace {

template <class T>
const KernelsOf<T>& kernels_of() {
  if constexpr (sizeof(T) == sizeof(float))
    return kernels().f32;
  else
    return kernels().f64;
}

struct Cpu {
  /// Items in chunks that threads take as they become free: iteration counts differ from item to item.
  template <class T, class Args>
  static void run(bool (*KernelsOf<T>::*kernel)(const Args&, std::int64_t, std::int64_t, Watch&),
                  const Args& args, std::int64_t items, std::int64_t chunk, const Call& op) {
    const auto range = kernels_of<T>().*kernel;
    std::atomic<std::int64_t> next{0};
    std::atomic<std::int64_t> finished{0};
    std::atomic<bool> fits{true}, stop{false};
    const std::thread::id caller = std::this_thread::get_id();
    const std::int64_t threads =
        std::clamp<std::int64_t>(torch::stable::get_num_threads(), 1, items / chunk + 1);
    torch::stable::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
      try {
        Watch watch = watch_of_thread(stop);
        for (std::int64_t worker = begin; worker < end; ++worker) {
          for (;;) {
            const std::int64_t from = next.fetch_add(chunk);
            if (from >= items) break;
            const std::int64_t to = std::min(from + chunk, items);
            if (!range(args, from, to, watch)) fits = false;
            finished += to - from;
          }
        }
        if (std::this_thread::get_id() == caller) wait(finished, items, watch);
      } catch (const Stopped&) {
      }
    });
    STD_TORCH_CHECK(!stop.load(), op, ": ended early, because the handler of a signal raised");
    STD_TORCH_CHECK(fits.load(), op, ": out of memory for the work space; use fewer threads");
  }

  /// The last items of other threads may take long, and the caller's thread is the one that handles signals.
  static void wait(const std::atomic<std::int64_t>& finished, std::int64_t items, Watch& watch) {
    for (int turn = 0; watch.asks && finished < items; ++turn) {
      if (turn < 1000)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      look(watch);
    }
  }

  static void check_index(const Call& op, const char* name, const Tensor& index,
                          std::int64_t below) {
    const std::int64_t* value = data<std::int64_t>(index);
    for (std::int64_t p = 0; p < index.numel(); ++p)
      STD_TORCH_CHECK(value[p] >= 0 && value[p] < below, op, ": ", name, "[", p, "] = ", value[p],
                      " is outside 0..", below - 1);
  }
};

std::int64_t cpu_isa() { return kernels().isa; }

}  // namespace

HOTNAS_LIBRARY_IMPL(CompositeExplicitAutograd, m) { m.impl("cpu_isa", TORCH_BOX(&cpu_isa)); }

HOTNAS_LIBRARY_IMPL(CPU, m) { register_operators<Cpu>(m); }

}  // namespace hotnas
