// The launchers of the CPU: item by item, memory for the nodes that carry mass, then csrc/items on the lanes.
// One text for every lane group:
//
// A Lanes object, made for a watch, gives each item its work space and picks the lane group:
//   void* memory(bytes)      work space aligned to 64 bytes, or null when there is none
//   choose<T>(columns, f)    calls f(team) with the team that suits rows of `columns` columns
//   int atom_slots(shape)    how many atoms FGW keeps apart
// A team has the lane group as its type Group, and runs the core on all lanes:
//   run(f)                   calls f(group) on every lane; returns when all lanes have
#pragma once

#include <type_traits>

#include "../items/items.h"
#include "kernels.h"

namespace hotnas::HOTNAS_ISA {

template <Loss L, class F>
auto with_pairs(int pairs, F f) {
  if (pairs == static_cast<int>(Pairs::all)) return f(FixedTerms<L, Pairs::all>{});
  if (pairs == static_cast<int>(Pairs::directed)) return f(FixedTerms<L, Pairs::directed>{});
  return f(FixedTerms<L, Pairs::ordered>{});
}

/// Calls f with the loss and pair set of the arguments as compile-time constants.
template <class Args, class F>
auto with_terms(const Args& args, F f) {
  if constexpr (requires { args.loss; })
    return args.loss == static_cast<int>(Loss::l1) ? with_pairs<Loss::l1>(args.pairs, f)
                                                   : with_pairs<Loss::l2>(args.pairs, f);
  else
    return f(FixedTerms<Loss::l1, Pairs::all>{});
}

/// How many nodes carry mass.
template <class T>
int present(const Side<T>& side) {
  if (side.mass == nullptr) return side.nodes;
  int count = 0;
  for (int i = 0; i < side.nodes; ++i) count += side.mass[i] > 0 ? 1 : 0;
  return count;
}

template <class Lanes, class Item>
bool launch(const typename Item::Arguments& args, int64_t begin, int64_t end, Watch& watch) {
  using T = typename Item::Scalar;
  Lanes lanes(watch);
  const Nodes all = Item::nodes(args);
  // items of one batch are mostly alike: their arrays lie where those of the item before lay
  Nodes placed{-1, -1};
  std::size_t bytes = 0;
  void* place = nullptr;
  typename Item::Work work{};
  return with_terms(args, [&](auto terms) {
    for (int64_t item = begin; item < end; ++item) {
      Side<T> a{nullptr, 0}, b{nullptr, 0};
      Item::sides(args, item, a, b);
      const int n = present(a), m = present(b);
      spend(watch, static_cast<int64_t>(n + 1) * (m + 1));
      const bool fits = lanes.template choose<typename Item::Lane>(m, [&](auto&& team) {
        using G = typename std::remove_cvref_t<decltype(team)>::Group;
        const bool alike = n == placed.n && m == placed.m;
        const Shape most{n, m, round_up(m, G::width), round_up(n, G::width), false};
        const Sizing sizing{G::width, lanes.atom_slots(most), all.n, all.m};
        if (!alike) {
          Arena size(nullptr);
          Item::take(size, most, args, sizing);
          bytes = size.used();
          placed = {n, m};
        }
        void* memory = lanes.memory(bytes);
        if (memory == nullptr) return false;
        if (!alike || memory != place) {
          Arena arena(memory);
          work = Item::take(arena, most, args, sizing);
          place = memory;
        }
        team.run([&](const G& group) { Item::solve(group, args, terms, item, work); });
        return true;
      });
      if (!fits) return false;
    }
    return true;
  });
}

template <class Lanes, class T>
constexpr KernelsOf<T> kernels_on() {
#define HOTNAS_LAUNCH(name, Name, schema) .name = launch<Lanes, Name##Item<T>>,
  return {HOTNAS_OPERATORS(HOTNAS_LAUNCH)};
#undef HOTNAS_LAUNCH
}

}  // namespace hotnas::HOTNAS_ISA
