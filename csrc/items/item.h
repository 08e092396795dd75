// What the items of all operators share.
#pragma once

#include "../core/gather.h"

namespace hotnas::HOTNAS_ISA {

using std::int32_t;
using std::int64_t;

struct Nodes {
  int n, m;
};

/// The launcher's part of a work space: lanes per problem, atoms that FGW keeps apart, and the most nodes of
/// each side, with mass or without.
struct Sizing {
  int width, atoms, nodes_x, nodes_y;
};

HN_HD bool failed(Status status) {
  return status == Status::nonfinite || status == Status::infeasible;
}

/// What problems between two lists of masses have in common.
template <class Args, class T>
struct BatchItem {
  using Arguments = Args;
  using Scalar = T;

  HN_HD static Nodes nodes(const Args& p) { return {p.n, p.m}; }
  HN_HD static bool sides(const Args& p, int64_t item, Side<T>& a, Side<T>& b) {
    a = {p.a + item * p.n, p.n};
    b = {p.b + item * p.m, p.m};
    return true;
  }
  HN_HD static int64_t matrix(const Args& p) { return static_cast<int64_t>(p.n) * p.m; }
  HN_HD static int64_t own(const Args& p) { return static_cast<int64_t>(p.n) * p.n; }
  HN_HD static int64_t other(const Args& p) { return static_cast<int64_t>(p.m) * p.m; }
};

}  // namespace hotnas::HOTNAS_ISA
