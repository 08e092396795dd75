// Every algorithm of the core on lanes that are threads, held to the same algorithm on one lane. A program
// without torch or Python, which ThreadSanitizer, AddressSanitizer and Valgrind can watch entirely.
//
//   lanes_main [lanes=1,2,8,16,32,simd] [kernels=transport,fgw,...] [nodes=33] [every=1] [terms=one]
//              [fill=255] [repeats=1] [skip=FILE:LINE] [wild=0]
//
// lanes: widths of the thread groups, simd for the vector kernels, serial for the one lane held to itself
// with other bytes in what it never wrote. nodes: the largest problem. every=k: one batch in k. terms=all:
// every loss and pair set on every batch. fill: the byte in unwritten work space, -1 leaves it to the
// allocator. repeats: solves of each item by lanes that do not meet in between. skip: a sync() of the core that
// lanes pass by. wild: instead of a comparison, that many problems of any bits and scale for the vector kernels and
// the one lane, of each type. Prints a line for each difference; exit status 1 if there was one.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lanes.h"

namespace hotnas::testing {
namespace {

/// How masses and costs are drawn. remainder: totals that differ by as little as rounding may;
/// infeasible: by half; nonfinite: some costs are NaN or infinite. cancelling: equal graphs, and costs that cancel
/// along every cycle but for their rounding, in every other problem far smaller than the structures.
enum class Kind { even, uneven, tied, absent, remainder, infeasible, nonfinite, cancelling };
constexpr Kind kinds[] = {Kind::even,      Kind::uneven,     Kind::tied,     Kind::absent,
                          Kind::remainder, Kind::infeasible, Kind::nonfinite};
constexpr const char* kind_names[] = {"even",      "uneven",     "tied",      "absent",
                                      "remainder", "infeasible", "nonfinite", "cancelling"};

/// A batch of problems of one size.
template <class T>
struct Problems {
  int count, n, m;
  std::vector<T> cost, struct_x, struct_y, a, b, alpha, init, start_costs;
  int starts = 6;        // of FGW
  double epsilon = 0.1;  // of unbalanced Sinkhorn
  bool to_rows = false;  // whether semi-relaxed FGW goes on until rows move alone
};

/// Masses and costs are whole multiples of powers of two, with so few digits that the sums by which FGW chooses
/// its steps are exact in T. Lanes add in another order than one lane; rounding would let them choose
/// another of several vertices that are as good, and a local minimum of FGW is no continuous function
/// of its input.
template <class T>
class Draw {
 public:
  Draw(Kind kind, unsigned seed) : kind_(kind), engine_(seed) {}

  Problems<T> problems(int count, int n, int m) {
    const bool same = kind_ == Kind::even || kind_ == Kind::tied || kind_ == Kind::cancelling;
    const bool proportional = same && n != m;
    const int larger = std::max(n, m);
    const int mass_digits = proportional ? digits_of(n * m) : digits_of(larger) + 1;
    value_digits_ = kind_ == Kind::tied
                        ? 1
                        : std::clamp((std::numeric_limits<T>::digits - 1) / 2 - mass_digits, 1, 16);
    unit_ = std::ldexp(T(1), -mass_digits);
    Problems<T> p{count, n, m, {}, {}, {}, {}, {}, {}, {}, {}};
    p.cost = values(count * n * m);
    p.struct_x = values(count * n * n);
    p.struct_y = values(count * m * m);
    p.start_costs = values(2 * n * m);
    if (kind_ == Kind::nonfinite) {
      p.cost[engine_() % p.cost.size()] = std::numeric_limits<T>::quiet_NaN();
      p.struct_x[engine_() % p.struct_x.size()] = std::numeric_limits<T>::infinity();
      p.struct_y[engine_() % p.struct_y.size()] = std::numeric_limits<T>::quiet_NaN();
      p.start_costs[0] = std::numeric_limits<T>::quiet_NaN();  // ends what the others spare
    }
    if (kind_ == Kind::cancelling) cancel(p);
    for (int item = 0; item < count; ++item) {
      std::vector<T> a(n, proportional ? m * unit_ : unit_);
      std::vector<T> b(m, proportional ? n * unit_ : unit_);
      if (!same) {
        a = masses(n, 1 << mass_digits);
        b = masses(m, 1 << mass_digits);
      }
      if (kind_ == Kind::infeasible) b = masses(m, 2 << mass_digits);
      if (kind_ == Kind::remainder) {
        // less than the square root of epsilon, which the launchers take for rounding
        const T little = std::ldexp(T(1), -std::numeric_limits<T>::digits / 2 - 1);
        *std::find_if(b.begin(), b.end(), [](T mass) { return mass > 0; }) -= little;
      }
      append(p.a, a);
      append(p.b, b);
      if (p.starts > 1) append(p.init, backwards(a, b));
      p.alpha.push_back(T(0.25) * static_cast<T>(1 + item % 3));
    }
    return p;
  }

 private:
  /// Any matching costs the same but for the rounding of the costs and of the duals, which have all digits of T.
  void cancel(Problems<T>& p) {
    std::uniform_real_distribution<T> level(0, 1);
    p.struct_y = p.struct_x;
    p.starts = 1;  // the signature's: of several that end at the optimum, rounding tells the best
    for (int item = 0; item < p.count; ++item) {
      std::vector<T> levels(p.n);
      for (T& each : levels) each = level(engine_);
      const T unit =
          item % 2 ? std::ldexp(T(1), -std::numeric_limits<T>::max_exponent * 7 / 8) : T(1);
      for (int i = 0; i < p.n; ++i)
        for (int j = 0; j < p.m; ++j)
          p.cost[(static_cast<std::size_t>(item) * p.n + i) * p.m + j] =
              unit * (levels[i] - levels[j]);
    }
  }

  static int digits_of(int count) { return static_cast<int>(std::ceil(std::log2(count))); }
  static void append(std::vector<T>& to, const std::vector<T>& from) {
    to.insert(to.end(), from.begin(), from.end());
  }

  /// In [0, 1].
  std::vector<T> values(int count) {
    std::vector<T> drawn(count);
    for (T& value : drawn)
      value = std::ldexp(static_cast<T>(engine_() % ((1u << value_digits_) + 1)), -value_digits_);
    return drawn;
  }

  /// At least one unit each, `units` in all; where nodes may be absent, to about two thirds of them.
  std::vector<T> masses(int nodes, int units) {
    std::vector<int> present;
    const int kept = static_cast<int>(engine_() % nodes);
    for (int i = 0; i < nodes; ++i)
      if (kind_ != Kind::absent || i == kept || engine_() % 3 != 0) present.push_back(i);
    std::vector<T> drawn(nodes, T(0));
    for (const int i : present) drawn[i] = unit_;
    for (int rest = units - static_cast<int>(present.size()); rest > 0; --rest)
      drawn[present[engine_() % present.size()]] += unit_;
    return drawn;
  }

  /// A coupling that takes the columns from the last to the first: no start that FGW has of its own.
  static std::vector<T> backwards(std::vector<T> a, std::vector<T> b) {
    const std::size_t n = a.size(), m = b.size();
    std::vector<T> plan(n * m, T(0));
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = m; j-- > 0;) {
        const T moved = std::min(a[i], b[j]);
        plan[i * m + j] = moved;
        a[i] -= moved;
        b[j] -= moved;
      }
    }
    return plan;
  }

  Kind kind_;
  std::mt19937 engine_;
  int value_digits_ = 0;
  T unit_ = 0;
};

/// What a kernel returned: arrays by name, and iteration counts.
template <class T>
struct Results {
  struct Array {
    const char* name;
    std::vector<T> values;
  };
  std::vector<Array> arrays;
  std::vector<std::int32_t> iterations, status;
  bool complete = true;

  /// Room for `count` values of T, all NaN until the kernel writes them.
  T* room(const char* name, std::size_t count) {
    arrays.push_back({name, std::vector<T>(count, std::numeric_limits<T>::quiet_NaN())});
    return arrays.back().values.data();
  }
};

/// The kernels under test, each called with the arguments that matter to lanes.
template <class T>
class Calls {
 public:
  Calls(const KernelsOf<T>& kernels, const Problems<T>& problems) : k_(kernels), p_(problems) {}

  /// The same problems, but with forbidden pairs, and for FGW with the last node of each side as a dummy.
  static Problems<T> partial(Problems<T> p) {
    const auto last = [](int k, int nodes) { return k % nodes == nodes - 1; };
    const auto clear = [&](std::vector<T>& structs, int nodes) {
      for (std::size_t e = 0; e < structs.size(); ++e)
        if (last(static_cast<int>(e), nodes) || last(static_cast<int>(e) / nodes, nodes))
          structs[e] = 0;
    };
    clear(p.struct_x, p.n);
    clear(p.struct_y, p.m);
    for (std::size_t e = 0; e < p.cost.size(); ++e)
      if (e % 11 == 5 || (last(static_cast<int>(e), p.m) && last(static_cast<int>(e) / p.m, p.n)))
        p.cost[e] = std::numeric_limits<T>::infinity();
    return p;
  }

  /// And of equal masses, of which the dummies take what is left of whole units and a half.
  static Problems<T> units(Problems<T> p) {
    const int rows = p.n - 1, columns = p.m - 1;
    const T moved = std::max(std::min(rows, columns) - T(1.5), T(0.5));
    for (int item = 0; item < p.count; ++item) {
      T *a = p.a.data() + item * p.n, *b = p.b.data() + item * p.m;
      std::fill(a, a + rows, T(0.125));
      std::fill(b, b + columns, T(0.125));
      a[rows] = T(0.125) * (columns - moved);
      b[columns] = T(0.125) * (rows - moved);
      T* cost = p.cost.data() + static_cast<std::size_t>(item) * p.n * p.m;
      for (int i = 0; i < rows; ++i) cost[i * p.m + columns] = 0;
      for (int j = 0; j < columns; ++j) cost[rows * p.m + j] = 0;
    }
    return p;
  }

  Results<T> transport(int dummies = 0) {
    Results<T> r = results(4);
    const TransportArgs<T> args{p_.n,
                                p_.m,
                                dummies,
                                p_.cost.data(),
                                p_.a.data(),
                                p_.b.data(),
                                r.room("plan", matrix()),
                                r.room("objective", p_.count),
                                r.room("f", rows()),
                                r.room("g", columns()),
                                r.iterations.data(),
                                r.status.data()};
    r.complete = k_.transport(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> sinkhorn() {
    Results<T> r = results(3);
    const SinkhornArgs<T> args{p_.n,
                               p_.m,
                               p_.cost.data(),
                               p_.a.data(),
                               p_.b.data(),
                               0.02,  // of which K alone holds no first sweep
                               1e-4,
                               20,
                               r.room("f", rows()),
                               r.room("g", columns()),
                               r.room("residual", p_.count),
                               r.iterations.data(),
                               r.status.data()};
    r.complete = k_.sinkhorn(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> entropic_transport() {
    Results<T> r = results(6);
    const EntropicTransportArgs<T> args{p_.n,
                                        p_.m,
                                        p_.cost.data(),
                                        p_.a.data(),
                                        p_.b.data(),
                                        0.02,
                                        1e-4,
                                        20,
                                        r.room("plan", matrix()),
                                        r.room("objective", p_.count),
                                        r.room("linear", p_.count),
                                        r.room("f", rows()),
                                        r.room("g", columns()),
                                        r.room("residual", p_.count),
                                        r.iterations.data(),
                                        r.status.data()};
    r.complete = k_.entropic_transport(args, 0, p_.count, watch_);
    return r;
  }

  /// All kinds of starts: the given one, pointwise, signature, order-preserving, and two costs.
  Results<T> fgw(int loss, int pairs, int has_init, int dummies = 0) {
    Results<T> r = results(5);
    const FgwArgs<T> args{p_.n,
                          p_.m,
                          p_.cost.data(),
                          p_.struct_x.data(),
                          p_.struct_y.data(),
                          p_.a.data(),
                          p_.b.data(),
                          p_.alpha.data(),
                          has_init ? p_.init.data() : nullptr,
                          p_.start_costs.data(),
                          2,
                          loss,
                          pairs,
                          p_.starts,
                          1e-3,
                          12,
                          dummies,
                          r.room("plan", matrix()),
                          r.room("objective", p_.count),
                          r.room("f", rows()),
                          r.room("g", columns()),
                          r.room("gap", p_.count),
                          r.iterations.data(),
                          r.status.data()};
    r.complete = k_.fgw(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> semirelaxed_fgw(int loss, int pairs, int has_init) {
    Results<T> r = results(4);
    const SemirelaxedFgwArgs<T> args{p_.n,
                                     p_.m,
                                     p_.cost.data(),
                                     p_.struct_x.data(),
                                     p_.struct_y.data(),
                                     p_.a.data(),
                                     p_.b.data(),
                                     p_.alpha.data(),
                                     has_init ? p_.init.data() : nullptr,
                                     p_.start_costs.data(),
                                     2,
                                     loss,
                                     pairs,
                                     p_.starts > 1 ? 4 : 1,
                                     p_.to_rows ? 0 : 1e-3,
                                     p_.to_rows ? 104 : 25,
                                     r.room("plan", matrix()),
                                     r.room("objective", p_.count),
                                     r.room("f", rows()),
                                     r.room("gap", p_.count),
                                     r.iterations.data(),
                                     r.status.data()};
    r.complete = k_.semirelaxed_fgw(args, 0, p_.count, watch_);
    return r;
  }

  /// Rows that pay, and columns of more mass that are held or pay, too.
  Results<T> unbalanced_sinkhorn(int penalty, int held) {
    Results<T> r = results(3);
    std::vector<T> b = p_.b;
    for (T& mass : b) mass *= T(1.5);
    const UnbalancedSinkhornArgs<T> args{p_.n,
                                         p_.m,
                                         p_.cost.data(),
                                         p_.a.data(),
                                         b.data(),
                                         p_.epsilon,
                                         0.3,
                                         held ? std::numeric_limits<double>::infinity() : 0.5,
                                         penalty,
                                         1e-4,
                                         20,
                                         r.room("f", rows()),
                                         r.room("g", columns()),
                                         r.room("residual", p_.count),
                                         r.iterations.data(),
                                         r.status.data()};
    r.complete = k_.unbalanced_sinkhorn(args, 0, p_.count, watch_);
    return r;
  }

  /// The same without entropy; some arcs fewer than it takes.
  Results<T> kl_transport(int held) {
    Results<T> r = results(5);
    std::vector<T> b = p_.b;
    for (T& mass : b) mass *= T(1.5);
    const KlTransportArgs<T> args{p_.n,
                                  p_.m,
                                  p_.cost.data(),
                                  p_.a.data(),
                                  b.data(),
                                  0.3,
                                  held ? std::numeric_limits<double>::infinity() : 0.5,
                                  1e-4,
                                  12,
                                  r.room("plan", matrix()),
                                  r.room("objective", p_.count),
                                  r.room("f", rows()),
                                  r.room("g", columns()),
                                  r.room("gap", p_.count),
                                  r.iterations.data(),
                                  r.status.data()};
    r.complete = k_.kl_transport(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> fgw_backward(int loss, int pairs) {
    Results<T> r = results(3);
    const FgwBackwardArgs<T> args{
        p_.n,
        p_.m,
        p_.init.data(),
        p_.struct_x.data(),
        p_.struct_y.data(),
        p_.alpha.data(),
        loss,
        pairs,
        r.room("grad_x", static_cast<std::size_t>(p_.count) * p_.n * p_.n),
        r.room("grad_y", static_cast<std::size_t>(p_.count) * p_.m * p_.m),
        r.room("value", p_.count)};
    r.complete = k_.fgw_backward(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> entropic_fgw(int loss, int pairs, int proximal) {
    Results<T> r = results(4);
    const EntropicFgwArgs<T> args{p_.n,
                                  p_.m,
                                  p_.cost.data(),
                                  p_.struct_x.data(),
                                  p_.struct_y.data(),
                                  p_.a.data(),
                                  p_.b.data(),
                                  p_.alpha.data(),
                                  loss == proximal ? nullptr : p_.init.data(),
                                  0.2,
                                  loss,
                                  pairs,
                                  proximal,
                                  1e-3,
                                  3,
                                  0,  // a stop that rounding moves by one would show
                                  10,
                                  r.room("log_plan", matrix()),
                                  r.room("f", rows()),
                                  r.room("g", columns()),
                                  r.room("residual", p_.count),
                                  r.iterations.data(),
                                  r.status.data()};
    r.complete = k_.entropic_fgw(args, 0, p_.count, watch_);
    return r;
  }

  Results<T> fgw_lower_bound(int loss, int pairs) {
    Results<T> r = results(1);
    const LowerBoundArgs<T> args{p_.n,
                                 p_.m,
                                 p_.cost.data(),
                                 p_.struct_x.data(),
                                 p_.struct_y.data(),
                                 p_.a.data(),
                                 p_.b.data(),
                                 p_.alpha.data(),
                                 loss,
                                 pairs,
                                 r.room("bound", p_.count)};
    r.complete = k_.fgw_lower_bound(args, 0, p_.count, watch_);
    return r;
  }

  /// The problems' graphs as tables; labels 0 and 1 in turn, one feature: the node's mass.
  Results<T> cell_distances(int loss, int pairs, int literal) {
    Results<T> r = results(2);
    const std::vector<std::int64_t> labels_x = alternating(rows(), 2),
                                    labels_y = alternating(columns(), 2);
    const std::vector<std::int64_t> pairing = alternating(p_.count, p_.count);
    const std::vector<T> label_cost{0, 1, 1, 0};
    const CellDistancesArgs<T> args{
        {p_.count, p_.n, labels_x.data(), p_.a.data(), p_.struct_x.data(), p_.a.data()},
        {p_.count, p_.m, labels_y.data(), p_.b.data(), p_.struct_y.data(), p_.b.data()},
        label_cost.data(),
        2,
        1,
        pairing.data(),
        pairing.data(),
        T(0.5),
        loss,
        pairs,
        literal,
        3,
        0,
        nullptr,
        1e-3,
        12,
        r.room("objective", p_.count),
        r.room("gap", p_.count),
        r.iterations.data(),
        r.status.data()};
    r.complete = k_.cell_distances(args, 0, p_.count, watch_);
    return r;
  }

  /// The nodes as cells of networks: cell i of x and cell j of y cost the first problem's cost_ij.
  Results<T> network_distances() {
    Results<T> r = results(1);
    const std::vector<std::int64_t> cells_x = alternating(rows(), p_.n),
                                    cells_y = alternating(columns(), p_.m);
    const std::vector<std::int64_t> pairing = alternating(p_.count, p_.count);
    const NetworkDistancesArgs<T> args{{p_.count, p_.n, cells_x.data(), p_.a.data(), p_.a.data()},
                                       {p_.count, p_.m, cells_y.data(), p_.b.data(), p_.b.data()},
                                       p_.cost.data(),
                                       p_.n,
                                       p_.m,
                                       1,
                                       pairing.data(),
                                       pairing.data(),
                                       r.room("objective", p_.count)};
    r.complete = k_.network_distances(args, 0, p_.count, watch_);
    return r;
  }

 private:
  std::size_t rows() const { return static_cast<std::size_t>(p_.count) * p_.n; }
  std::size_t columns() const { return static_cast<std::size_t>(p_.count) * p_.m; }
  std::size_t matrix() const { return static_cast<std::size_t>(p_.count) * p_.n * p_.m; }

  Results<T> results(std::size_t arrays) const {
    Results<T> r;
    r.arrays.reserve(arrays);  // so that the pointers handed out stay
    r.iterations.assign(p_.count, 0);
    r.status.assign(p_.count, 0);
    return r;
  }

  static std::vector<std::int64_t> alternating(std::size_t count, std::int64_t below) {
    std::vector<std::int64_t> values(count);
    for (std::size_t e = 0; e < count; ++e) values[e] = static_cast<std::int64_t>(e) % below;
    return values;
  }

  const KernelsOf<T>& k_;
  const Problems<T>& p_;
  Watch watch_;
};

/// Equal up to `tolerance` relative to 1 + |expected|; infinities and NaN where they are expected.
template <class T>
bool close(T got, T expected, T tolerance) {
  if (got == expected || (got != got && expected != expected)) return true;
  return std::abs(got - expected) <= tolerance * (1 + std::abs(expected));
}

/// What the command line chose.
struct Choice {
  std::vector<std::string> lanes;  // all that were compiled
  std::vector<std::string> kernels{"transport",          "sinkhorn",
                                   "entropic_transport", "fgw",
                                   "fgw_merging",        "fgw_backward",
                                   "entropic_fgw",       "fgw_lower_bound",
                                   "cell_distances",     "network_distances",
                                   "forbidding",         "fgw_partial",
                                   "semirelaxed_fgw",    "unbalanced_sinkhorn",
                                   "kl_transport",       "partial_assignment",
                                   "fgw_units"};
  int nodes = 33, every = 1, fill = 255, wild = 0;
  bool all_terms = false;
};

class Comparison {
 public:
  explicit Comparison(const Choice& choice) : choice_(choice) {}

  template <class T>
  void run(const char* type) {
    constexpr int sizes[][2] = {{1, 1}, {1, 8}, {7, 7},   {7, 9},   {8, 8},   {9, 8},   {33, 1},
                                {9, 9}, {9, 7}, {31, 31}, {32, 32}, {31, 33}, {33, 31}, {33, 33}};
    unsigned seed = 0;
    for (const auto& size : sizes) {
      for (const Kind kind : kinds) {
        ++seed;
        if (std::max(size[0], size[1]) > choice_.nodes) continue;
        // one in `every`, and not those of one kind
        if ((seed * 2654435761u >> 16) % choice_.every != 0) continue;
        ++batches_;
        const int count = std::max(size[0], size[1]) > 9 ? 1 : 2;
        const Problems<T> problems = Draw<T>(kind, seed).problems(count, size[0], size[1]);
        const std::string where = std::string(type) + " " + std::to_string(size[0]) + "x" +
                                  std::to_string(size[1]) + " " +
                                  kind_names[static_cast<int>(kind)];
        const Problems<T> partial = Calls<T>::partial(problems);
        for (const std::string& kernel : choice_.kernels) {
          if (kernel == "partial_assignment" || kernel == "fgw_units") {
            const bool room = size[0] > 1 && size[1] > 1 && kind != Kind::nonfinite;
            if (room) compare(kernel, kind, Calls<T>::units(partial), where);
            continue;
          }
          const bool part = kernel == "forbidding" || kernel == "fgw_partial";
          compare(kernel, kind, part ? partial : problems, where);
        }
      }
    }
    // sums of all digits are as one lane has them only for few
    for (const int nodes : {7, 8, 9}) {
      ++batches_;
      const std::string where = std::string(type) + " " + std::to_string(nodes);
      // FGW alone proves its gaps, and parts with its terms
      if (chosen("fgw"))
        compare("fgw", Kind::cancelling, Draw<T>(Kind::cancelling, nodes).problems(2, nodes, nodes),
                where + " cancelling");
      if (!chosen("semirelaxed_fgw")) continue;
      Problems<T> apart = Draw<T>(Kind::uneven, nodes).problems(2, nodes, nodes);
      for (T& cost : apart.cost)
        cost = std::ldexp(cost, -std::numeric_limits<T>::max_exponent * 3 / 4);
      compare("semirelaxed_fgw", Kind::uneven, apart, where + " apart");
    }
    if constexpr (sizeof(T) == sizeof(double)) run_long<T>(type);
  }

  int differences() const { return differences_; }
  int comparisons() const { return comparisons_; }

 private:
  bool chosen(const std::string& kernel) const {
    return std::ranges::find(choice_.kernels, kernel) != choice_.kernels.end();
  }

  /// What takes so long that rounding in single precision shows, with the terms that make it long.
  template <class T>
  void run_long(const std::string& type) {
    Problems<T> sharp = Draw<T>(Kind::even, 202).problems(1, 2, 2);
    sharp.epsilon = 1e-3;  // of which K holds no sweep, before or after a look at the error
    if (chosen("unbalanced_sinkhorn"))
      compare("unbalanced_sinkhorn", Kind::even, sharp, type + " sharp", 1);
    Problems<T> slow = Draw<T>(Kind::tied, 505).problems(1, 5, 5);
    slow.to_rows = true;  // whose minimum, between vertices, is more than 100 steps away
    slow.starts = 1;
    if (chosen("semirelaxed_fgw")) compare("semirelaxed_fgw", Kind::tied, slow, type + " slow", 0);
    // The last start ends at a forbidden arc, and the best one's terms are apart.
    Problems<T> barred = Draw<T>(Kind::uneven, 300).problems(1, 5, 6);
    barred.starts = 3;
    for (T& cost : barred.cost)
      cost = std::ldexp(cost, -std::numeric_limits<T>::max_exponent * 3 / 4);
    barred = Calls<T>::partial(barred);
    if (chosen("fgw_partial")) compare("fgw_partial", Kind::uneven, barred, type + " barred", 0);
  }

  template <class T>
  static const KernelsOf<T>& of(const Kernels& kernels) {
    if constexpr (sizeof(T) == sizeof(float))
      return kernels.f32;
    else
      return kernels.f64;
  }

  static const Kernels& lanes(const std::string& name) {
    if (name == "simd") return baseline::kernels;
    return *lane_kernels().at(name == "serial" ? 0 : std::atoi(name.c_str()));
  }

  template <class T>
  static Results<T> call(const std::string& kernel, Calls<T> calls, int loss, int pairs, int flag) {
    if (kernel == "transport") return calls.transport();
    if (kernel == "sinkhorn") return calls.sinkhorn();
    if (kernel == "entropic_transport") return calls.entropic_transport();
    if (kernel == "forbidding" || kernel == "partial_assignment") return calls.transport(1);
    if (kernel == "fgw_partial" || kernel == "fgw_units") return calls.fgw(loss, pairs, 0, 1);
    if (kernel == "fgw" || kernel == "fgw_merging") return calls.fgw(loss, pairs, flag);
    if (kernel == "fgw_backward") return calls.fgw_backward(loss, pairs);
    if (kernel == "entropic_fgw") return calls.entropic_fgw(loss, pairs, flag);
    if (kernel == "fgw_lower_bound") return calls.fgw_lower_bound(loss, pairs);
    if (kernel == "cell_distances") return calls.cell_distances(loss, pairs, flag);
    if (kernel == "network_distances") return calls.network_distances();
    if (kernel == "semirelaxed_fgw") return calls.semirelaxed_fgw(loss, pairs, flag);
    if (kernel == "unbalanced_sinkhorn") return calls.unbalanced_sinkhorn(loss, flag);
    if (kernel == "kl_transport") return calls.kl_transport(flag);
    std::fprintf(stderr, "no kernel %s\n", kernel.c_str());
    std::exit(2);
  }

  /// One kernel on one batch, with one loss and pair set, the next where `turn` names none, or with all of them.
  template <class T>
  void compare(const std::string& kernel, Kind kind, const Problems<T>& p, const std::string& where,
               int turn = -1) {
    const bool plain = kernel == "transport" || kernel == "sinkhorn" ||
                       kernel == "entropic_transport" || kernel == "forbidding" ||
                       kernel == "network_distances" || kernel == "partial_assignment";
    if (kernel == "fgw_lower_bound" && p.n * p.m > 100) return;  // n m transport problems
    // the remainder has too many digits for exact sums (see Draw)
    if (kind == Kind::remainder && !plain && kernel != "fgw_lower_bound") return;
    // nor have the weights of merged atoms: only where no two vertices are as good by construction, and with the
    // terms of the turn, as by others some descents part for a rounding
    const bool merging = kernel == "fgw_merging";
    if (merging && (kind == Kind::tied || sizeof(T) == sizeof(float))) return;
    if (turn < 0) turn = batches_ % 6;
    for (int terms = 0; terms < 6; ++terms) {
      if (terms != turn && (plain || merging || !choice_.all_terms)) continue;
      const int loss = terms % 2, pairs = terms / 2, flag = batches_ / 6 % 2;
      atom_slots = kernel == "fgw_merging" ? 3 : 0;
      workspace_fill = choice_.fill < 0 ? -1 : 0;
      const Results<T> expected =
          call(kernel, Calls<T>(of<T>(lanes("serial")), p), loss, pairs, flag);
      workspace_fill = choice_.fill;
      for (const std::string& name : choice_.lanes) {
        if (name == "simd" && atom_slots > 0) continue;
        std::string what = kernel + " lanes=" + name + " " + where;
        if (!plain) what += " loss=" + std::to_string(loss) + " pairs=" + std::to_string(pairs);
        ++comparisons_;
        try {
          const Results<T> got = call(kernel, Calls<T>(of<T>(lanes(name)), p), loss, pairs, flag);
          T tolerance = sizeof(T) == sizeof(float) ? T(1e-6) : T(1e-12);
          if (name == "simd") tolerance *= 4;  // its exponential is another
          compare(got, expected, tolerance, what);
        } catch (const std::exception& error) {
          differ(what + ": " + error.what());
        }
      }
    }
  }

  template <class T>
  void compare(const Results<T>& got, const Results<T>& expected, T tolerance,
               const std::string& what) {
    if (!got.complete) return differ(what + ": out of memory");
    for (std::size_t item = 0; item < expected.status.size(); ++item) {
      if (got.status[item] != expected.status[item])
        return differ(what + ": status[" + std::to_string(item) + "] is " +
                      std::to_string(got.status[item]) + ", serial " +
                      std::to_string(expected.status[item]));
      if (std::abs(got.iterations[item] - expected.iterations[item]) > 1)
        return differ(what + ": iterations[" + std::to_string(item) + "] is " +
                      std::to_string(got.iterations[item]) + ", serial " +
                      std::to_string(expected.iterations[item]));
    }
    for (std::size_t k = 0; k < expected.arrays.size(); ++k) {
      const auto &mine = got.arrays[k].values, &other = expected.arrays[k].values;
      for (std::size_t e = 0; e < other.size(); ++e) {
        if (close(mine[e], other[e], tolerance)) continue;
        char text[160];
        std::snprintf(text, sizeof(text), ": %s[%zu] is %.17g, serial %.17g",
                      expected.arrays[k].name, e, static_cast<double>(mine[e]),
                      static_cast<double>(other[e]));
        return differ(what + text);
      }
    }
  }

  void differ(const std::string& line) {
    ++differences_;
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  }

  const Choice& choice_;
  int batches_ = 0, differences_ = 0, comparisons_ = 0;
};

/// Problems of any bits: what a kernel makes of them is its own affair, as long as it stays in its arrays, ends, and
/// calls converged only what has the masses it was given.
template <class T>
class Wild {
 public:
  explicit Wild(unsigned seed) : engine_(seed) {}

  Problems<T> problems() {
    const int count = 1 + below(3), n = below(8) ? 1 + below(7) : 0,
              m = below(8) ? 1 + below(7) : 0;
    scale_ = std::ldexp(T(1), below(2 * std::numeric_limits<T>::max_exponent - 8) -
                                  std::numeric_limits<T>::max_exponent + 4);
    odd_ = below(3) ? 0 : 1 + below(20);
    Problems<T> p{count, n, m, {}, {}, {}, {}, {}, {}, {}, {}};
    p.cost = values(count * n * m);
    p.struct_x = values(count * n * n);
    p.struct_y = values(count * m * m);
    p.init = values(count * n * m);
    p.start_costs = values(2 * n * m);
    p.a = masses(count, n);
    p.b = masses(count, m);
    for (int item = 0; item < count; ++item)
      p.alpha.push_back(below(4) ? static_cast<T>(below(5)) / 4 : value());
    return p;
  }

 private:
  int below(int most) { return static_cast<int>(engine_() % static_cast<unsigned>(most)); }

  T value() {
    constexpr T special[] = {0,
                             -0.0f,
                             1,
                             -1,
                             std::numeric_limits<T>::quiet_NaN(),
                             std::numeric_limits<T>::infinity(),
                             -std::numeric_limits<T>::infinity(),
                             std::numeric_limits<T>::max(),
                             std::numeric_limits<T>::lowest(),
                             std::numeric_limits<T>::min(),
                             std::numeric_limits<T>::denorm_min()};
    if (odd_ == 0 || below(odd_))
      return scale_ * static_cast<T>(below(1 << 16) - (below(4) ? 0 : 1 << 15)) / (1 << 16);
    if (below(2)) return special[below(static_cast<int>(std::size(special)))];
    std::uint64_t bits = engine_();
    bits = bits << 32 | engine_();
    T drawn;
    std::memcpy(&drawn, &bits, sizeof(T));
    return drawn;
  }

  std::vector<T> values(int count) {
    std::vector<T> drawn(count);
    const int apart = below(3) ? 1 : 1 + below(60);  // binary digits that sizes may be apart
    for (T& each : drawn) each = std::ldexp(value(), -below(apart));
    return drawn;
  }

  /// Mostly of one total.
  std::vector<T> masses(int count, int nodes) {
    std::vector<T> drawn(static_cast<std::size_t>(count) * nodes);
    const bool wild = below(4) == 0;
    for (int item = 0; item < count; ++item) {
      T total = 0;
      T* const part = drawn.data() + static_cast<std::size_t>(item) * nodes;
      for (int i = 0; i < nodes; ++i)
        total += part[i] = wild ? value() : below(4) ? static_cast<T>(1 + below(64)) : T(0);
      for (int i = 0; i < nodes && !wild && total > 0; ++i) part[i] /= total;
    }
    return drawn;
  }

  std::mt19937 engine_;
  T scale_ = 1;
  int odd_ = 0;
};

template <class T>
bool keeps_mass(const Problems<T>& p, const Results<T>& r) {
  const std::vector<T>& plan = r.arrays[0].values;
  for (int item = 0; item < p.count; ++item) {
    if (r.status[item] != 0) continue;
    std::vector<double> columns(p.m, 0.0);
    double total = 0, wrong = 0;
    for (int i = 0; i < p.n; ++i) {
      double row = 0;
      for (int j = 0; j < p.m; ++j) {
        const double mass = plan[(static_cast<std::size_t>(item) * p.n + i) * p.m + j];
        row += mass;
        columns[j] += mass;
      }
      total += p.a[item * p.n + i];
      wrong = std::max(wrong, std::abs(row - p.a[item * p.n + i]));
    }
    for (int j = 0; j < p.m; ++j)
      wrong = std::max(wrong, std::abs(columns[j] - p.b[item * p.m + j]));
    const double rounding = std::sqrt(static_cast<double>(std::numeric_limits<T>::epsilon()));
    const double smallest = 64.0 * std::numeric_limits<T>::denorm_min();
    if (!(wrong <= 4 * rounding * total + smallest)) return false;
  }
  return true;
}

/// Calls every kernel on wild problems; returns how many claims were false.
template <class T>
int run_wild(const Choice& choice, const Kernels& kernels, int rounds, unsigned seed) {
  const KernelsOf<T>* table = nullptr;
  if constexpr (sizeof(T) == sizeof(float))
    table = &kernels.f32;
  else
    table = &kernels.f64;
  int wrong = 0;
  for (int round = 0; round < rounds; ++round) {
    const Problems<T> p = Wild<T>(seed + round).problems();
    const int loss = round % 2, pairs = round / 2 % 3, flag = round / 6 % 2;
    Calls<T> calls(*table, p);
    for (const std::string& kernel : choice.kernels) {
      bool good = true;
      if (kernel == "transport") good = keeps_mass(p, calls.transport());
      if (kernel == "sinkhorn") calls.sinkhorn();
      if (kernel == "entropic_transport") calls.entropic_transport();
      if (kernel == "fgw") good = keeps_mass(p, calls.fgw(loss, pairs, flag));
      if (kernel == "fgw_backward") calls.fgw_backward(loss, pairs);
      if (kernel == "entropic_fgw") calls.entropic_fgw(loss, pairs, flag);
      if (kernel == "fgw_lower_bound") calls.fgw_lower_bound(loss, pairs);
      if (kernel == "cell_distances") calls.cell_distances(loss, pairs, flag);
      if (kernel == "network_distances") calls.network_distances();
      if (kernel == "semirelaxed_fgw") calls.semirelaxed_fgw(loss, pairs, flag);
      if (kernel == "unbalanced_sinkhorn") calls.unbalanced_sinkhorn(loss, flag);
      if (kernel == "kl_transport") calls.kl_transport(flag);
      if (good) continue;
      ++wrong;
      std::printf("%s: converged without the masses, seed %u\n", kernel.c_str(), seed + round);
    }
  }
  return wrong;
}

std::vector<std::string> split(const char* text) {
  std::vector<std::string> parts(1);
  for (; *text; ++text) {
    if (*text == ',')
      parts.emplace_back();
    else
      parts.back() += *text;
  }
  return parts;
}

Choice parse(int argc, char** argv) {
  Choice choice;
  for (int k = 1; k < argc; ++k) {
    const char* value = std::strchr(argv[k], '=');
    const std::string name(argv[k], value ? value - argv[k] : 0);
    if (name == "lanes")
      choice.lanes = split(value + 1);
    else if (name == "kernels")
      choice.kernels = split(value + 1);
    else if (name == "nodes")
      choice.nodes = std::atoi(value + 1);
    else if (name == "every")
      choice.every = std::max(1, std::atoi(value + 1));
    else if (name == "terms")
      choice.all_terms = std::strcmp(value + 1, "all") == 0;
    else if (name == "fill")
      choice.fill = std::atoi(value + 1);
    else if (name == "repeats")
      repeats = std::atoi(value + 1);
    else if (name == "wild")
      choice.wild = std::atoi(value + 1);
    else if (name == "skip" && std::strchr(value, ':'))
      skipped = {{value + 1, std::strchr(value, ':')},
                 static_cast<unsigned>(std::atoi(std::strchr(value, ':') + 1))};
    else {
      std::fprintf(
          stderr,
          "%s: expected lanes=, kernels=, nodes=, every=, terms=, fill=, repeats=, wild= or"
          " skip=FILE:LINE\n",
          argv[k]);
      std::exit(2);
    }
  }
  if (choice.lanes.empty()) {
    choice.lanes.push_back("simd");
    for (const auto& [width, kernels] : lane_kernels())
      if (width > 0) choice.lanes.push_back(std::to_string(width));
  }
  for (const std::string& name : choice.lanes) {
    if (name == "serial" || name == "simd" || lane_kernels().contains(std::atoi(name.c_str())))
      continue;
    std::fprintf(stderr, "lanes=%s: expected serial, simd, 1, 2, 8, 16 or 32\n", name.c_str());
    std::exit(2);
  }
  return choice;
}

}  // namespace
}  // namespace hotnas::testing

int main(int argc, char** argv) {
  const hotnas::testing::Choice choice = hotnas::testing::parse(argc, argv);
  if (choice.wild > 0) {
    int wrong = 0;
    for (const hotnas::Kernels* lanes :
         {&hotnas::baseline::kernels, hotnas::testing::lane_kernels().at(0)}) {
      wrong += hotnas::testing::run_wild<float>(choice, *lanes, choice.wild, 1);
      wrong += hotnas::testing::run_wild<double>(choice, *lanes, choice.wild, 1);
    }
    std::printf("%d problems, %d false claims\n", 4 * choice.wild, wrong);
    return wrong == 0 ? 0 : 1;
  }
  hotnas::testing::Comparison comparison(choice);
  comparison.run<float>("float32");
  comparison.run<double>("float64");
  std::printf("%d comparisons, %d differences\n", comparison.comparisons(),
              comparison.differences());
  return comparison.differences() == 0 ? 0 : 1;
}
