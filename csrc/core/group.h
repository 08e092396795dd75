// The vocabulary in which every algorithm of this folder is written.
//
// A Group is the set of lanes that share one problem. The same text runs with
//   SerialGroup   one lane                                   (reference, tests)
//   SimdGroup<W>  W lanes of one vector register             (csrc/cpu)
//   TileGroup<W>  W threads of a GPU's warp                  (csrc/cuda)
//   BlockGroup<W> W threads of a GPU, a whole block          (csrc/cuda)
//   ThreadGroup<W> W threads of the CPU and a barrier, which stand in for the GPU's (csrc/testing)
//
// Values are either uniform (plain scalars, equal on every lane) or of type Var (one per lane).
//   for (int j0 = 0; j0 < m; j0 += G::width)  ...  g.load(row + j0)    columns side by side on lanes
//   for (int k = g.begin(); k < count; k += g.step())                  scalar work shared out
// Memory is shared by the lanes: whoever reads what another lane wrote calls sync() in between.
// poll(work), work in entries of a matrix, tells a long call that it may end here, by an exception, if it shall.
// Collectives (sum, min_at, append) return the same bits on every lane, so that branches
// on their results never diverge. Rows are padded to a multiple of the width.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define HN_HD __host__ __device__ __forceinline__
#else
#define HN_HD inline
#endif

// For what runs seldom: a CPU's registers and cache lines are better spent on what surrounds it.
#if defined(__CUDACC__)
#define HN_APART HN_HD
#else
#define HN_APART __attribute__((noinline))
#endif

// Before a loop whose body is long: a GPU's registers are better spent on more problems than on more turns.
#if defined(__CUDA_ARCH__)
#define HN_ROLLED _Pragma("unroll 1")
#else
#define HN_ROLLED
#endif

// One instruction set, one namespace: the linker must never keep the AVX-512 copy of a template for
// a processor without it.
#if !defined(HOTNAS_ISA)
#define HOTNAS_ISA portable
#endif

namespace hotnas::HOTNAS_ISA {

template <class T>
struct LaneIntOf;
template <>
struct LaneIntOf<float> {
  using type = std::int32_t;
};
template <>
struct LaneIntOf<double> {
  using type = std::int64_t;
};
/// Integer as wide as T, so that an index fits the lane of a T.
template <class T>
using LaneInt = typename LaneIntOf<T>::type;

template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float huge = 1e30f, epsilon = 1.1920929e-07f, root_epsilon = 3.4526698e-04f;
  static constexpr int digits = 23, exponent = 126;  // of the fraction; 2^e and 2^-e are normal
};
template <>
struct Limits<double> {
  static constexpr double huge = 1e200, epsilon = 2.220446049250313e-16,
                          root_epsilon = 1.4901161193847656e-08;
  static constexpr int digits = 52, exponent = 1022;
};

/// Whether several lanes are those of one thread, which reads and writes for all of them.
template <class G, class T>
constexpr bool one_thread = !std::is_same_v<typename G::template Var<T>, T>;

/// Value and position of a minimum; the lowest position wins ties.
template <class T>
struct MinAt {
  T value;
  int index;
};

HN_HD int round_up(int count, int multiple) { return (count + multiple - 1) / multiple * multiple; }

/// `count` columns in whole rows of lanes. A group that never meets more columns than it has lanes says so
/// by a member one_row, and spares itself every loop over rows.
template <class G>
HN_HD int padded(int count) {
  if constexpr (requires { G::one_row; })
    return G::width;
  else
    return round_up(count, G::width);
}

/// Lane arithmetic for groups whose lane holds one scalar.
struct ScalarLanes {
  template <class T>
  using Var = T;
  template <class T>
  using Int = LaneInt<T>;
  template <class T>
  using Mask = bool;

  template <class T>
  HN_HD static T splat(T x) {
    return x;
  }
  template <class T>
  HN_HD static LaneInt<T> splat_int(int x) {
    return x;
  }
  template <class V>
  HN_HD static V select(bool mask, V yes, V no) {
    return mask ? yes : no;
  }
  template <class T>
  HN_HD static T gather(const T* p, LaneInt<T> at) {
    return p[at];
  }
  template <class T>
  HN_HD static T min(T a, T b) {
    return b < a ? b : a;
  }
  template <class T>
  HN_HD static T max(T a, T b) {
    return a < b ? b : a;
  }
  HN_HD static float abs(float x) { return fabsf(x); }
  HN_HD static double abs(double x) { return fabs(x); }
  HN_HD static float exp(float x) { return expf(x); }
  HN_HD static double exp(double x) { return ::exp(x); }
  HN_HD static float log(float x) { return logf(x); }
  HN_HD static double log(double x) { return ::log(x); }
};

/// One lane, one problem: the plain scalar program.
struct SerialGroup : ScalarLanes {
  static constexpr int width = 1;
  HN_HD int begin() const { return 0; }
  HN_HD int step() const { return 1; }
  HN_HD bool leader() const { return true; }
  HN_HD void sync() const {}
  HN_HD void poll(std::int64_t) const {}
  template <class T>
  HN_HD LaneInt<T> index(int j0) const {
    return j0;
  }
  template <class T>
  HN_HD T load(const T* p) const {
    return *p;
  }
  template <class T>
  HN_HD LaneInt<T> load_int(const LaneInt<T>* p) const {
    return *p;
  }
  template <class T>
  HN_HD void store(T* p, T v) const {
    *p = v;
  }
  template <class T>
  HN_HD void store_int(LaneInt<T>* p, LaneInt<T> v) const {
    *p = v;
  }
  template <class T>
  HN_HD T sum(T v) const {
    return v;
  }
  /// Sum of the scalars that begin()/step() shared out.
  template <class T>
  HN_HD T total(T v) const {
    return v;
  }
  template <class T>
  HN_HD T max_of(T v) const {
    return v;
  }
  template <class T>
  HN_HD MinAt<T> min_at(T v, LaneInt<T> index) const {
    return {v, static_cast<int>(index)};
  }
  /// Position within one row of lanes: the lane itself.
  template <class T>
  HN_HD MinAt<T> min_at(T v) const {
    return {v, 0};
  }
  /// Appends j0 + lane for every lane in mask to list, in lane order; returns the new count.
  template <class T>
  HN_HD int append(bool mask, int j0, int* list, int count) const {
    if (mask) list[count++] = j0;
    return count;
  }
};

}  // namespace hotnas::HOTNAS_ISA
