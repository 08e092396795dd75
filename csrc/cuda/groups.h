// Lanes of a GPU. The vocabulary is that of core/group.h; csrc/testing/group_threads.h is the same on threads
// of a CPU, and combines lanes in the same order.
#pragma once

#include "../core/group.h"

namespace hotnas::HOTNAS_ISA {

/// W threads of one warp, W = 8, 16 or 32. The other groups of the warp go their own way: every
/// shuffle and barrier names the lanes of this group alone.
template <int W>
class TileGroup : public ScalarLanes {
  static_assert(W == 8 || W == 16 || W == 32);

 public:
  static constexpr int width = W;

  __device__ TileGroup() : rank_(threadIdx.x % W), shift_(threadIdx.x % 32 / W * W) {}

  __device__ int begin() const { return rank_; }
  __device__ int step() const { return W; }
  __device__ bool leader() const { return rank_ == 0; }
  __device__ void sync() const { __syncwarp(mask()); }
  __device__ void poll(std::int64_t) const {}

  template <class T>
  __device__ LaneInt<T> index(int j0) const {
    return j0 + rank_;
  }
  template <class T>
  __device__ T load(const T* p) const {
    return p[rank_];
  }
  template <class T>
  __device__ LaneInt<T> load_int(const LaneInt<T>* p) const {
    return p[rank_];
  }
  template <class T>
  __device__ void store(T* p, T v) const {
    p[rank_] = v;
  }
  template <class T>
  __device__ void store_int(LaneInt<T>* p, LaneInt<T> v) const {
    p[rank_] = v;
  }

  template <class T>
  __device__ T sum(T v) const {
    return fold(v, [](T a, T b) { return a + b; });
  }
  template <class T>
  __device__ T total(T v) const {
    return sum(v);
  }
  template <class T>
  __device__ T max_of(T v) const {
    return -least_of(-v);
  }
  template <class T>
  __device__ MinAt<T> min_at(T v, LaneInt<T> index) const {
    const T least = least_of(v);
    constexpr int none = 0x7fffffff;
    const int at = __reduce_min_sync(mask(), v == least ? static_cast<int>(index) : none);
    return {least, at == none ? 0 : at};  // NaN: the caller's stop test sees it
  }
  template <class T>
  __device__ MinAt<T> min_at(T v) const {
    const T least = least_of(v);
    const unsigned lanes = ballot(v == least);
    return {least, lanes ? __ffs(static_cast<int>(lanes)) - 1 : 0};
  }
  template <class T>
  __device__ int append(bool mask, int j0, int* list, int count) const {
    const unsigned lanes = ballot(mask);
    if (mask) list[count + __popc(lanes & ((1u << rank_) - 1))] = j0 + rank_;
    return count + __popc(lanes);
  }
  /// Numbers from `queue` on, each given out once, to one group.
  __device__ std::int64_t next(unsigned long long* queue) const {
    unsigned long long number = 0;
    if (leader()) number = atomicAdd(queue, 1ULL);
    return static_cast<std::int64_t>(__shfl_sync(mask(), number, 0, W));
  }

 private:
  __device__ unsigned mask() const { return (0xffffffffu >> (32 - W)) << shift_; }
  /// Bit per lane of this group.
  __device__ unsigned ballot(bool vote) const {
    return (__ballot_sync(mask(), vote) >> shift_) & (0xffffffffu >> (32 - W));
  }
  /// Combines all lanes by halves. f(a, b) and f(b, a) are the same, so that all lanes end with the same bits.
  template <class V, class F>
  __device__ V fold(V v, F f) const {
#pragma unroll
    for (int half = W / 2; half > 0; half /= 2) v = f(v, __shfl_xor_sync(mask(), v, half, W));
    return v;
  }
  /// The least value; NaN only where there is no other.
  __device__ double least_of(double v) const {
    return fold(v, [](double a, double b) { return fmin(a, b); });
  }
  /// One instruction finds the least of integers.
  __device__ float least_of(float v) const {
    return __int_as_float(in_order(__reduce_min_sync(mask(), in_order(__float_as_int(v)))));
  }
  /// The bits of a float as an integer that is in the same order, and back.
  __device__ static int in_order(int bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

  int rank_, shift_;
};

/// The same for problems that have no more columns than there are lanes.
template <int W>
class OneRowGroup : public TileGroup<W> {
 public:
  static constexpr bool one_row = true;
};

/// All W threads of a block, for problems so large that a warp would take long.
template <int W>
class BlockGroup : public ScalarLanes {
  static_assert(W % 32 == 0);
  static constexpr int warps = W / 32;

 public:
  static constexpr int width = W;

  /// What each warp brings to a collective. Two sets take turns, so that a warp can bring its next value while
  /// others still read; a third is never needed, as every collective waits for all warps once.
  struct Exchange {
    unsigned long long value[2][warps];
    int index[2][warps];
  };

  __device__ explicit BlockGroup(Exchange& exchange) : exchange_(exchange) {}

  __device__ int begin() const { return threadIdx.x; }
  __device__ int step() const { return W; }
  __device__ bool leader() const { return threadIdx.x == 0; }
  __device__ void sync() const { __syncthreads(); }
  __device__ void poll(std::int64_t) const {}

  template <class T>
  __device__ LaneInt<T> index(int j0) const {
    return j0 + static_cast<int>(threadIdx.x);
  }
  template <class T>
  __device__ T load(const T* p) const {
    return p[threadIdx.x];
  }
  template <class T>
  __device__ LaneInt<T> load_int(const LaneInt<T>* p) const {
    return p[threadIdx.x];
  }
  template <class T>
  __device__ void store(T* p, T v) const {
    p[threadIdx.x] = v;
  }
  template <class T>
  __device__ void store_int(LaneInt<T>* p, LaneInt<T> v) const {
    p[threadIdx.x] = v;
  }

  template <class T>
  __device__ T sum(T v) const {
    const unsigned round = round_++ % 2;
    bring(round, warp_.sum(v), 0);
    T all = brought<T>(round, 0);
    for (int k = 1; k < warps; ++k) all += brought<T>(round, k);
    return all;
  }
  template <class T>
  __device__ T total(T v) const {
    return sum(v);
  }
  template <class T>
  __device__ T max_of(T v) const {
    const unsigned round = round_++ % 2;
    bring(round, warp_.max_of(v), 0);
    T most = brought<T>(round, 0);
    for (int k = 1; k < warps; ++k) most = ScalarLanes::max(most, brought<T>(round, k));
    return most;
  }
  template <class T>
  __device__ MinAt<T> min_at(T v, LaneInt<T> index) const {
    const unsigned round = round_++ % 2;
    const MinAt<T> mine = warp_.min_at(v, index);
    bring(round, mine.value, mine.index);
    MinAt<T> least{brought<T>(round, 0), exchange_.index[round][0]};
    for (int k = 1; k < warps; ++k) {
      const MinAt<T> other{brought<T>(round, k), exchange_.index[round][k]};
      if (other.value < least.value || (other.value == least.value && other.index < least.index))
        least = other;
    }
    return least;
  }
  template <class T>
  __device__ MinAt<T> min_at(T v) const {
    return min_at<T>(v, static_cast<LaneInt<T>>(threadIdx.x));
  }
  template <class T>
  __device__ int append(bool mask, int j0, int* list, int count) const {
    const unsigned round = round_++ % 2;
    const unsigned lanes = __ballot_sync(0xffffffffu, mask);
    bring(round, 0, __popc(lanes));
    const int mine = static_cast<int>(threadIdx.x) / 32;
    int before = count;
    for (int k = 0; k < warps; ++k) {
      if (k == mine) before = count;
      count += exchange_.index[round][k];
    }
    const unsigned lower = (1u << threadIdx.x % 32) - 1;
    if (mask) list[before + __popc(lanes & lower)] = j0 + static_cast<int>(threadIdx.x);
    return count;
  }
  __device__ std::int64_t next(unsigned long long* queue) const {
    const unsigned round = round_++ % 2;
    unsigned long long number = 0;
    if (leader()) number = atomicAdd(queue, 1ULL);
    bring(round, number, 0);
    return static_cast<std::int64_t>(brought<unsigned long long>(round, 0));
  }

 private:
  template <class V>
  __device__ void bring(unsigned round, V value, int index) const {
    static_assert(sizeof(V) <= sizeof(unsigned long long));
    if (threadIdx.x % 32 == 0) {
      memcpy(&exchange_.value[round][threadIdx.x / 32], &value, sizeof(V));
      exchange_.index[round][threadIdx.x / 32] = index;
    }
    __syncthreads();
  }
  template <class V>
  __device__ V brought(unsigned round, int warp) const {
    V value;
    memcpy(&value, &exchange_.value[round][warp], sizeof(V));
    return value;
  }

  Exchange& exchange_;
  TileGroup<32> warp_;
  mutable unsigned round_ = 0;
};

}  // namespace hotnas::HOTNAS_ISA
