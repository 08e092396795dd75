// W threads share one problem, as the lanes of a GPU tile would: each lane is a thread, holds one scalar per
// Var, and meets the others at a barrier. What a GPU cannot be asked here, the threads answer:
//   a forgotten sync() is a data race, which ThreadSanitizer reports;
//   lanes that take different branches meet at different lines, which is reported as LanesDiverged;
//   collectives return what they promise for every width.
// As on a GPU, a collective orders no memory: it meets at the same barrier, but hides that from
// ThreadSanitizer, so that only sync() counts as an order between one lane's write and another's read.
// Not shown: shuffle masks, the limits of shared memory, speed.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <bit>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../core/group.h"
#include "lanes.h"

#if defined(__SANITIZE_THREAD__)
// Exported by the runtime of ThreadSanitizer, declared by no header.
extern "C" {
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace hotnas::HOTNAS_ISA {

/// Lanes of one problem arrived at different places of the text.
class LanesDiverged : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// While it lives, what this thread synchronises with orders nothing for ThreadSanitizer.
class Unordered {
 public:
#if defined(__SANITIZE_THREAD__)
  Unordered() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unordered() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#else
  Unordered() {}
  ~Unordered() {}
#endif
  Unordered(const Unordered&) = delete;
  Unordered& operator=(const Unordered&) = delete;
};

/// What a lane brings to a collective: a value and, for the position of a minimum, an index.
struct Brought {
  std::uint64_t value = 0;
  std::int64_t index = 0;
};

/// Where W lanes meet: a barrier, and the place and values with which each lane came.
/// Two sets of slots take turns, so that a lane can bring its next value while others still read.
template <int W>
class Meeting {
 public:
  /// Meets the other lanes and orders memory between before and after.
  void sync(int rank, unsigned round, const std::source_location& place) {
    if constexpr (W > 1) {
      bring(slots_[round % 2][rank], {}, place);
      barrier_.arrive_and_wait();
      compare(slots_[round % 2]);
    }
  }

  /// Meets the other lanes and returns what each of them brought; orders no memory.
  std::array<Brought, W> exchange(int rank, unsigned round, Brought mine,
                                  const std::source_location& place) {
    std::array<Brought, W> all;
    all[rank] = mine;
    if constexpr (W > 1) {
      const Slots& slots = slots_[round % 2];
      bring(slots_[round % 2][rank], mine, place);
      {
        const Unordered unordered;
        barrier_.arrive_and_wait();
      }
      compare(slots);
      for (int lane = 0; lane < W; ++lane)
        all[lane] = {slots[lane].value.load(std::memory_order_relaxed),
                     slots[lane].index.load(std::memory_order_relaxed)};
    }
    return all;
  }

 private:
  struct alignas(64) Slot {
    std::atomic<std::uint64_t> value;
    std::atomic<std::int64_t> index;
    std::atomic<const char*> file;
    std::atomic<unsigned> line;
  };
  using Slots = std::array<Slot, W>;

  static void bring(Slot& slot, Brought mine, const std::source_location& place) {
    slot.value.store(mine.value, std::memory_order_relaxed);
    slot.index.store(mine.index, std::memory_order_relaxed);
    slot.file.store(place.file_name(), std::memory_order_relaxed);
    slot.line.store(place.line(), std::memory_order_relaxed);
  }

  /// Every lane compares the same places, so either all of them throw or none does.
  static void compare(const Slots& slots) {
    const char* file = slots[0].file.load(std::memory_order_relaxed);
    const unsigned line = slots[0].line.load(std::memory_order_relaxed);
    for (int lane = 1; lane < W; ++lane) {
      const char* other_file = slots[lane].file.load(std::memory_order_relaxed);
      const unsigned other_line = slots[lane].line.load(std::memory_order_relaxed);
      if (other_line == line && (other_file == file || std::strcmp(other_file, file) == 0))
        continue;
      throw LanesDiverged("lane 0 of " + std::to_string(W) + " is at " + file + ":" +
                          std::to_string(line) + ", lane " + std::to_string(lane) + " at " +
                          other_file + ":" + std::to_string(other_line));
    }
  }

  std::barrier<> barrier_{W};
  Slots slots_[2];
};

/// One lane of W. The interface is SerialGroup's.
template <int W>
class ThreadGroup : public ScalarLanes {
  using Place = std::source_location;

 public:
  static constexpr int width = W;

  ThreadGroup(Meeting<W>& meeting, unsigned& round, int rank)
      : meeting_(meeting), round_(round), rank_(rank) {}

  int begin() const { return rank_; }
  int step() const { return W; }
  bool leader() const { return rank_ == 0; }
  void sync(const Place& place = Place::current()) const {
    if (!testing::skipped.is(place)) meeting_.sync(rank_, round_++, place);
  }
  void poll(std::int64_t) const {}

  template <class T>
  LaneInt<T> index(int j0) const {
    return j0 + rank_;
  }
  template <class T>
  T load(const T* p) const {
    return p[rank_];
  }
  template <class T>
  LaneInt<T> load_int(const LaneInt<T>* p) const {
    return p[rank_];
  }
  template <class T>
  void store(T* p, T v) const {
    p[rank_] = v;
  }
  template <class T>
  void store_int(LaneInt<T>* p, LaneInt<T> v) const {
    p[rank_] = v;
  }

  template <class T>
  T sum(T v, const Place& place = Place::current()) const {
    return fold(v, [](T a, T b) { return a + b; }, place);
  }
  template <class T>
  T total(T v, const Place& place = Place::current()) const {
    return sum(v, place);
  }
  template <class T>
  T max_of(T v, const Place& place = Place::current()) const {
    return fold(v, [](T a, T b) { return a < b ? b : a; }, place);
  }
  template <class T>
  MinAt<T> min_at(T v, LaneInt<T> index, const Place& place = Place::current()) const {
    const auto all = exchange(v, index, place);
    std::array<T, W> values = values_of<T>(all);
    const T least = halve(values, [](T a, T b) { return b < a ? b : a; });
    MinAt<T> found{least, 0};  // position 0 for NaN: the caller's stop test sees it
    bool any = false;
    for (const Brought& brought : all) {
      if (value_of<T>(brought) != least || (any && brought.index >= found.index)) continue;
      found.index = static_cast<int>(brought.index);
      any = true;
    }
    return found;
  }
  template <class T>
  MinAt<T> min_at(T v, const Place& place = Place::current()) const {
    return min_at<T>(v, static_cast<LaneInt<T>>(rank_), place);
  }
  template <class T>
  int append(bool mask, int j0, int* list, int count, const Place& place = Place::current()) const {
    const auto all = exchange(mask, 0, place);
    for (int lane = 0; lane < W; ++lane) {
      if (all[lane].value == 0) continue;
      if (lane == rank_) list[count] = j0 + rank_;
      ++count;
    }
    return count;
  }

 private:
  template <class V>
  std::array<Brought, W> exchange(V v, std::int64_t index, const Place& place) const {
    Brought mine{0, index};
    std::memcpy(&mine.value, &v, sizeof(V));
    return meeting_.exchange(rank_, round_++, mine, place);
  }
  template <class V>
  static V value_of(const Brought& brought) {
    V value;
    std::memcpy(&value, &brought.value, sizeof(V));
    return value;
  }
  template <class V>
  static std::array<V, W> values_of(const std::array<Brought, W>& all) {
    std::array<V, W> values;
    for (int lane = 0; lane < W; ++lane) values[lane] = value_of<V>(all[lane]);
    return values;
  }
  /// Combines the lanes' values by halves, as shuffles would.
  template <class V, class F>
  static V halve(std::array<V, W>& values, F f) {
    for (int half = W / 2; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) values[lane] = f(values[lane], values[lane + half]);
    return values[0];
  }
  template <class V, class F>
  V fold(V v, F f, const Place& place) const {
    std::array<V, W> values = values_of<V>(exchange(v, 0, place));
    return halve(values, f);
  }

  Meeting<W>& meeting_;
  unsigned& round_;
  int rank_;
};

/// W lanes that are kept from one problem to the next: the calling thread and W - 1 others.
template <int W>
class ThreadTeam {
 public:
  using Group = ThreadGroup<W>;

  ThreadTeam() {
    static_assert(std::has_single_bit(static_cast<unsigned>(W)));
    for (int rank = 1; rank < W; ++rank) threads_.emplace_back([this, rank] { serve(rank); });
  }
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  ~ThreadTeam() {
    job_ = nullptr;
    begin(0, round_);
    for (std::thread& thread : threads_) thread.join();
  }

  /// Runs f(group) on every lane; throws what the lanes threw, all of them together.
  template <class F>
  void run(F f) {
    job_ = std::ref(f);
    begin(0, round_);
    work(0, round_);
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  void begin(int rank, unsigned& round) {
    meeting_.sync(rank, round++, std::source_location::current());
  }

  void work(int rank, unsigned& round) {
    try {
      const Group group(meeting_, round, rank);
      for (int k = 0; k < testing::repeats; ++k) {
        if (k > 0) group.sync();
        job_(group);
      }
      meeting_.sync(rank, round++, std::source_location::current());
    } catch (const LanesDiverged&) {
      if (rank == 0) error_ = std::current_exception();
      meeting_.sync(rank, round++, std::source_location::current());  // all lanes have unwound
    }
  }

  void serve(int rank) {
    unsigned round = 0;
    for (;;) {
      begin(rank, round);
      if (!job_) return;
      work(rank, round);
    }
  }

  Meeting<W> meeting_;
  std::function<void(const Group&)> job_;
  std::exception_ptr error_;
  unsigned round_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace hotnas::HOTNAS_ISA
