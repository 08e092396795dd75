// W lanes of one vector register: the columns of a problem lie side by side.
//
// Written with the compiler's portable vector types, so that the same text serves SSE2, AVX2,
// AVX-512 and NEON; intrinsics only where a mask must become bits.
#pragma once

#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "../core/group.h"
#include "watch.h"

namespace hotnas::HOTNAS_ISA {

template <class T, int W>
struct PackOf {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
  // rows of shared arrays are aligned to 64 bytes only at their start
  typedef T loose __attribute__((vector_size(sizeof(T) * W), aligned(sizeof(T)), may_alias));
};
template <class T, int W>
using Pack = typename PackOf<T, W>::type;

/// Bit per lane of a comparison result.
template <class M>
inline unsigned mask_bits(M mask) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(M) == 64 && sizeof(mask[0]) == 4)
    return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
  if constexpr (sizeof(M) == 64 && sizeof(mask[0]) == 8)
    return _mm512_movepi64_mask(reinterpret_cast<__m512i>(mask));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(M) == 32 && sizeof(mask[0]) == 4)
    return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
  if constexpr (sizeof(M) == 32 && sizeof(mask[0]) == 8)
    return static_cast<unsigned>(_mm256_movemask_pd(reinterpret_cast<__m256d>(mask)));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(M) == 16 && sizeof(mask[0]) == 4)
    return static_cast<unsigned>(_mm_movemask_ps(reinterpret_cast<__m128>(mask)));
  if constexpr (sizeof(M) == 16 && sizeof(mask[0]) == 8)
    return static_cast<unsigned>(_mm_movemask_pd(reinterpret_cast<__m128d>(mask)));
#endif
  unsigned bits = 0;
  for (unsigned lane = 0; lane < sizeof(M) / sizeof(mask[0]); ++lane)
    bits |= (mask[lane] ? 1u : 0u) << lane;
  return bits;
}

template <int W>
class BitTree;

template <int W>
struct SimdGroup {
  static constexpr int width = W;
  Watch* watch = nullptr;

  /// See csrc/cpu/bit_tree.h.
  template <class T>
    requires std::is_same_v<T, float>
  using SmallTree = BitTree<W>;

  /// Whether the pair costs of problems that fit the lanes fit a part of the first cache; see csrc/core/pair_table.h.
  template <class T>
  static constexpr bool tabulates = W * W * W * W * sizeof(T) <= 1 << 14;

  template <class T>
  using Var = Pack<T, W>;
  template <class T>
  using Int = Pack<LaneInt<T>, W>;
  template <class T>
  using Mask = Pack<LaneInt<T>, W>;

  int begin() const { return 0; }
  int step() const { return 1; }
  bool leader() const { return true; }
  void sync() const {}
  void poll(std::int64_t work) const { spend(*watch, work); }

  template <class T>
  static Pack<T, W> splat(T x) {
    return x - Pack<T, W>{};
  }
  template <class T>
  static Pack<LaneInt<T>, W> splat_int(int x) {
    return static_cast<LaneInt<T>>(x) - Pack<LaneInt<T>, W>{};
  }
  template <class M, class V>
  static V select(M mask, V yes, V no) {
    return mask ? yes : no;
  }
  template <class V>
  static V min(V a, V b) {
    return b < a ? b : a;
  }
  template <class V>
  static V max(V a, V b) {
    return a < b ? b : a;
  }
  template <class V>
  static V abs(V x) {
    using T = std::remove_cvref_t<decltype(x[0])>;
    using I = LaneInt<T>;
    const Pack<I, W> magnitude = splat_int_of<I>(static_cast<I>(~(I(1) << (sizeof(I) * 8 - 1))));
    return reinterpret_cast<V>(reinterpret_cast<Pack<I, W>>(x) & magnitude);
  }

  /// e^x by 2^k times a Taylor polynomial (Estrin's scheme) on |r| <= ln2 / 2; correct to the last two bits.
  template <class V>
  static V exp(V x) {
    using T = std::remove_cvref_t<decltype(x[0])>;
    using I = LaneInt<T>;
    constexpr bool single = sizeof(T) == 4;
    constexpr int mantissa = single ? 23 : 52, bias = single ? 127 : 1023, terms = single ? 7 : 13;
    // adding and subtracting 1.5 * 2^mantissa rounds to the nearest integer, which is in the last bits in between,
    // here as the exponent of a number
    const V magic = splat((single ? T(12582912.0) : T(6755399441055744.0)) + T(bias));
    const V lowest = splat(single ? T(-87) : T(-708)), highest = splat(single ? T(88) : T(709));
    const V inside = min(max(x, lowest), highest);
    const V shifted = inside * splat(T(1.4426950408889634)) + magic, k = shifted - magic;
    // ln 2 in two parts, so that k ln 2 is subtracted without rounding
    const V high = splat(single ? T(0.693145751953125) : T(6.93147180369123816490e-01));
    const V low = splat(single ? T(1.428606765330187e-06) : T(1.90821492927058770002e-10));
    const V r = (inside - k * high) - k * low;
    // e^r = 1 + (r + r^2 q), q by pairs of terms, pairs of pairs and so on: few wait for one another
    constexpr int pairs = (terms - 1) / 2;
    V q[pairs];
    T factor = 1;
    for (int pair = 0; pair < pairs; ++pair) {
      const T even = 1 / (factor *= T(2 * pair + 2)), odd = 1 / (factor *= T(2 * pair + 3));
      q[pair] = splat(odd) * r + splat(even);
    }
    const V square = r * r;
    V by = square;
    for (int count = pairs; count > 1; count = (count + 1) / 2) {
      for (int pair = 0; pair < count / 2; ++pair) q[pair] = q[2 * pair + 1] * by + q[2 * pair];
      if (count % 2) q[count / 2] = q[count - 1];
      by *= by;
    }
    const V sum = (q[0] * square + r) + splat(T(1));
    const V power = reinterpret_cast<V>(reinterpret_cast<Pack<I, W>>(shifted) << mantissa);
    return x < lowest ? V{} : sum * power;  // NaN stays NaN
  }
  /// log x = k log 2 + 2 atanh(s), s = (m - 1) / (m + 1), for x = 2^k m and m between sqrt(1/2) and sqrt(2);
  /// correct to the last two bits.
  template <class V>
  static V log(V x) {
    using T = std::remove_cvref_t<decltype(x[0])>;
    using I = LaneInt<T>;
    constexpr bool single = sizeof(T) == 4;
    constexpr int mantissa = single ? 23 : 52, terms = single ? 5 : 11;
    constexpr T smallest = std::numeric_limits<T>::min(), largest = std::numeric_limits<T>::max();
    if (mask_bits((x >= splat(smallest)) & (x <= splat(largest))) != (1u << W) - 1) {
      for (int lane = 0; lane < W; ++lane) x[lane] = std::log(x[lane]);
      return x;  // zeros, infinities and the like, which are rare
    }
    const Pack<I, W> bits = reinterpret_cast<Pack<I, W>>(x);
    const Pack<I, W> power =
        (bits - splat_int_of<I>(std::bit_cast<I>(T(0.70710678118654752)))) >> mantissa;
    const V m = reinterpret_cast<V>(bits - (power << mantissa));
    const V k = __builtin_convertvector(power, V);
    const V s = (m - splat(T(1))) / (m + splat(T(1))), square = s * s;
    V rest = splat(T(1) / T(2 * terms - 1));
    for (int t = terms - 2; t >= 1; --t) rest = rest * square + splat(T(1) / T(2 * t + 1));
    // ln 2 in two parts, so that k ln 2 is added without rounding
    const V high = splat(single ? T(0.693145751953125) : T(6.93147180369123816490e-01));
    const V low = splat(single ? T(1.428606765330187e-06) : T(1.90821492927058770002e-10));
    const V first = s + s;
    return k * high + (first + (first * (square * rest) + k * low));
  }

  template <class T>
  Pack<LaneInt<T>, W> index(int j0) const {
    return lanes<LaneInt<T>>(std::make_integer_sequence<int, W>{}) + splat_int<T>(j0);
  }
  template <class T>
  Pack<T, W> load(const T* p) const {
    return *reinterpret_cast<const typename PackOf<T, W>::loose*>(p);
  }
  template <class T>
  void store_int(LaneInt<T>* p, Pack<LaneInt<T>, W> v) const {
    store(p, v);
  }
  template <class T>
  Pack<LaneInt<T>, W> load_int(const LaneInt<T>* p) const {
    return load(p);
  }
  template <class T, class I>
  static Pack<T, W> gather(const T* p, I at) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && W == 16)
      return reinterpret_cast<Pack<T, W>>(
          _mm512_mask_i32gather_ps(__m512{}, 0xffff, reinterpret_cast<__m512i>(at), p, sizeof(T)));
    if constexpr (sizeof(T) == 8 && W == 8)
      return reinterpret_cast<Pack<T, W>>(
          _mm512_mask_i64gather_pd(__m512d{}, 0xff, reinterpret_cast<__m512i>(at), p, sizeof(T)));
#endif
#if defined(__AVX2__)
    if constexpr (sizeof(T) == 4 && W == 8)
      return reinterpret_cast<Pack<T, W>>(_mm256_i32gather_ps(
          reinterpret_cast<const float*>(p), reinterpret_cast<__m256i>(at), sizeof(T)));
    if constexpr (sizeof(T) == 8 && W == 4)
      return reinterpret_cast<Pack<T, W>>(_mm256_i64gather_pd(
          reinterpret_cast<const double*>(p), reinterpret_cast<__m256i>(at), sizeof(T)));
#endif
    Pack<T, W> out{};
    for (int lane = 0; lane < W; ++lane) out[lane] = p[at[lane]];
    return out;
  }
  /// Lane k of the result is lane at[k] of v.
  template <class V, class I>
  static V permute(V v, I at) {
#if defined(__clang__)
    V out{};
    for (int lane = 0; lane < W; ++lane) out[lane] = v[at[lane]];
    return out;
#else
    return __builtin_shuffle(v, at);
#endif
  }
  template <class T>
  void store(T* p, Pack<T, W> v) const {
    *reinterpret_cast<typename PackOf<T, W>::loose*>(p) = v;
  }

  template <class V>
  auto sum(V v) const {
    return fold<W / 2>(v, [](V a, V b) { return a + b; })[0];
  }
  template <class T>
  T total(T v) const {
    return v;
  }
  template <class V>
  auto max_of(V v) const {
    return fold<W / 2>(v, [](V a, V b) { return a < b ? b : a; })[0];
  }
  template <class T>
  MinAt<T> min_at(Pack<T, W> v, Pack<LaneInt<T>, W> index) const {
    const Pack<T, W> least = fold<W / 2>(v, [](auto a, auto b) { return b < a ? b : a; });
    unsigned bits = mask_bits(v == least);
    if (bits == 0) return {least[0], 0};  // NaN: the caller's stop test sees it
    int at = static_cast<int>(index[std::countr_zero(bits)]);
    for (bits &= bits - 1; bits; bits &= bits - 1) {
      const int other = static_cast<int>(index[std::countr_zero(bits)]);
      at = other < at ? other : at;
    }
    return {least[0], at};
  }
  template <class T>
  MinAt<T> min_at(Pack<T, W> v) const {
    const Pack<T, W> least = fold<W / 2>(v, [](auto a, auto b) { return b < a ? b : a; });
    const unsigned bits = mask_bits(v == least);
    return {least[0], bits ? std::countr_zero(bits) : 0};
  }
  template <class T, class M>
  int append(M mask, int j0, int* list, int count) const {
    for (unsigned bits = mask_bits(mask); bits; bits &= bits - 1)
      list[count++] = j0 + std::countr_zero(bits);
    return count;
  }

 private:
  template <class I>
  static Pack<I, W> splat_int_of(I x) {
    return x - Pack<I, W>{};
  }
  template <class I, int... L>
  static Pack<I, W> lanes(std::integer_sequence<int, L...>) {
    return Pack<I, W>{L...};
  }
  /// Combines all lanes by halves; every lane ends with the result.
  template <int S, class V, class F>
  static V fold(V v, F f) {
    if constexpr (S == 0) {
      return v;
    } else {
      return fold<S / 2>(f(v, swap<S>(v, std::make_integer_sequence<int, W>{})), f);
    }
  }
  template <int S, class V, int... L>
  static V swap(V v, std::integer_sequence<int, L...>) {
    return __builtin_shufflevector(v, v, (L ^ S)...);
  }
};

}  // namespace hotnas::HOTNAS_ISA
