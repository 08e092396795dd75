// The basis of a small transport problem, all of whose columns, and all of whose rows, lie on the lanes of one register.
//
// What csrc/core/simplex.h keeps as lists is a word per node here: the arcs between the node and the root. An arc keeps
// its bit as long as it is in the tree, whichever of its nodes is the lower one. The cycle that an arc closes then is
// the exclusive or of the words of its two nodes, what hangs from the arc that leaves are the nodes with its bit, and
// where they hang from another arc their words change by that cycle. So a pivot has no loop and hardly a branch, and
// duals, which depend on each other along the tree, are found for all nodes at once, a level at a time.
// The numbers, and the pivots, are those of simplex.h to the bit.
#pragma once

#include "group_simd.h"

namespace hotnas::HOTNAS_ISA {

template <int W>
class BitTree {
  using Group = SimdGroup<W>;
  using Real = Pack<float, W>;
  using Whole = Pack<std::int32_t, W>;

 public:
  /// Takes over a tree of n rows and m columns: the parents of its nodes, in an order in which parents come first, and
  /// what flows between the two. Column j is node j, row i node W + i, the root the last row.
  void take(int n, int m, const int* order, const int* parent, const float* flow) {
    rows_ = n;
    columns_ = m;
    for (int x = 0; x < 2 * W; ++x) {
      path_[x] = row_[x] = column_[x] = 0;
      flow_[x] = 0;
    }
    row_below_ = 0;
    for (int t = 1; t < n + m; ++t) {
      const int x = order[t], above = parent[x], arc = t - 1;
      const bool row = x >= W;
      row_[arc] = (row ? x : above) - W;
      column_[arc] = row ? above : x;
      flow_[arc] = flow[x];
      path_[x] = path_[above] | bit(arc);
      if (row) row_below_ |= bit(arc);
    }
    hang();
  }

  /// Parents, -1 for the root, and flows.
  void give(int* parent, float* flow) const {
    for (int x = 0; x < W + rows_; ++x) {
      parent[x] = above_[x] + (x < W ? W : 0);
      flow[x] = flow_[arc_[x]];
    }
    parent[W + rows_ - 1] = -1;
  }

  /// Whether there is a tree.
  bool grown() const { return rows_ > 0; }

  float* duals() { return dual_; }
  const float* duals() const { return dual_; }

  /// Duals that make all arcs of the tree tight, and -huge at columns that are none; `far` is what a forbidden arc
  /// costs. Returns the largest magnitude.
  float renew(const float* cost, float far) {
    const Group g{};
    const Whole lane = g.template index<float>(0), none = lane - lane;
    const Whole from_row = g.load(above_), from_column = g.load(above_ + W);
    const auto real_row = lane < none + rows_, real_column = lane < none + columns_;
    const auto root = lane == none + (rows_ - 1);
    const Real zero{};
    const Real down = tamed(Group::gather(cost, from_row * W + lane), far);
    const Real up = tamed(Group::gather(cost, (real_row ? lane * W + from_column : none)), far);
    Real of_row = zero, of_column = zero;
    for (int level = 0; level < rows_; ++level) {  // of rows
      const Real before = of_row;
      of_column = down - Group::permute(of_row, from_row);
      of_row = root ? zero : up - Group::permute(of_column, from_column);
      if (mask_bits(of_row == before) == all_lanes) break;
    }
    const Real size = Group::max(real_column ? Group::abs(of_column) : zero,
                                 real_row ? Group::abs(of_row) : zero);
    g.store(dual_, real_column ? of_column : zero - Limits<float>::huge);
    g.store(dual_ + W, of_row);
    return g.max_of(size);
  }

  /// Arc (i, j), whose cost is `value` more than its duals, enters; what leaves is what Forest::exchange chooses.
  void exchange(int i, int j, float value) {
    const Group g{};
    const unsigned of_row = path_[W + i], of_column = path_[j], cycle = of_row ^ of_column;
    // mass comes down from the top of the cycle to i, and goes up there from j
    const unsigned down = of_row & cycle & row_below_, up = of_column & cycle & ~row_below_;
    const Real low = g.load(flow_), high = g.load(flow_ + W);
    const auto dries_low = lanes(down | up, 0), dries_high = lanes(down | up, W);
    const Real full = Real{} + Limits<float>::huge;
    const float moved = -g.max_of(-Group::min(dries_low ? low : full, dries_high ? high : full));
    const unsigned dry = mask_bits(dries_low & (low == Real{} + moved)) |
                         mask_bits(dries_high & (high == Real{} + moved)) << W;
    // of several, the last one on the way around from the cycle's top
    const bool by_up = (dry & up) != 0;
    const int* end = by_up ? column_ : row_;
    const std::int32_t* path = by_up ? path_ : path_ + W;
    unsigned ties = by_up ? dry & up : dry;
    int arc = std::countr_zero(ties);
    while (ties &= ties - 1) {
      const int other = std::countr_zero(ties);
      const int depth = std::popcount(static_cast<unsigned>(path[end[arc]]));
      const int depth_of_other = std::popcount(static_cast<unsigned>(path[end[other]]));
      if ((depth_of_other < depth) == by_up) arc = other;
    }
    const Real more = Real{} + moved;
    g.store(flow_, low + flows(cycle, dries_low, more, 0));
    g.store(flow_ + W, high + flows(cycle, dries_high, more, W));
    flow_[arc] = moved;
    // between the nodes of the arc that leaves and of the one that enters, what was above is below
    row_below_ ^= (by_up ? of_column : of_row) & ~static_cast<unsigned>(path[end[arc]]);
    row_below_ = (row_below_ & ~bit(arc)) | (by_up ? 0u : bit(arc));
    row_[arc] = i;
    column_[arc] = j;
    const Whole leaves = Whole{} + static_cast<std::int32_t>(bit(arc));
    const Whole change = Whole{} + static_cast<std::int32_t>(cycle & ~bit(arc));
    const Real to_columns = Real{} + (by_up ? value : -value), to_rows = -to_columns;
    move(0, leaves, change, to_columns);
    move(W, leaves, change, to_rows);
  }

  /// What hangs from what, after the last of some exchanges.
  void hang() {
    for (int x = 0; x < 2 * W; ++x) above_[x] = 0, arc_[x] = 2 * W - 1;  // an arc that is none
    for (int arc = 0; arc < rows_ + columns_ - 1; ++arc) {
      const bool row = (row_below_ & bit(arc)) != 0;
      const int i = row_[arc], j = column_[arc], x = row ? W + i : j;
      above_[x] = row ? j : i;
      arc_[x] = arc;
    }
  }

  /// put(t, row, column, mass) for each arc with more than `dust`, by the lower nodes; returns how many.
  template <class Put>
  int list(float dust, Put put) const {
    int count = 0;
    for (int j = 0; j < columns_; ++j) {
      const float mass = flow_[arc_[j]];
      if (mass > dust) put(count++, above_[j], j, mass);
    }
    for (int i = 0; i < rows_ - 1; ++i) {
      const float mass = flow_[arc_[W + i]];
      if (mass > dust) put(count++, i, above_[W + i], mass);
    }
    return count;
  }

 private:
  static constexpr unsigned all_lanes = W < 32 ? (1u << W) - 1 : ~0u;

  static unsigned bit(int arc) { return 1u << arc; }

  static Real tamed(Real cost, float far) {
    return cost > Real{} + Limits<float>::huge / 2 ? Real{} + far : cost;
  }

  /// The lanes whose arcs, from `first` on, are in the set.
  static Whole lanes(unsigned set, int first) {
    const Whole lane = Group{}.template index<float>(first);
    return ((Whole{} + static_cast<std::int32_t>(set)) & ((Whole{} + 1) << lane)) != 0;
  }

  static Real flows(unsigned cycle, Whole dries, Real more, int first) {
    return dries ? -more : lanes(cycle, first) ? more : Real{};
  }

  void move(int side, Whole leaves, Whole change, Real more) {
    const Group g{};
    const Whole path = g.load(path_ + side);
    const auto moves = (path & leaves) != 0;
    const Real dual = g.load(dual_ + side);
    g.store(path_ + side, moves ? path ^ change : path);
    g.store(dual_ + side, moves ? dual + more : dual);
  }

  // By node: the arcs on its way to the root, its dual, the node above it in the numbers of the other side, the arc
  // between the two. By arc: its nodes and what flows.
  alignas(64) std::int32_t path_[2 * W];
  alignas(64) float dual_[2 * W];
  alignas(64) std::int32_t above_[2 * W];
  alignas(64) float flow_[2 * W];
  int arc_[2 * W], row_[2 * W], column_[2 * W];
  unsigned row_below_;  // arcs whose row is the lower node
  int rows_ = 0, columns_;
};

}  // namespace hotnas::HOTNAS_ISA
