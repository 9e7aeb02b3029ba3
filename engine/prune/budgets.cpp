#include "engine/prune/budgets.h"

#include <algorithm>
#include <type_traits>

#include "engine/prune/rules.h"

namespace kvfs::prune {
namespace {

struct Budgets {
  int layers;
  std::int64_t entries;

  std::vector<std::int64_t> all(std::int64_t budget) const {
    return std::vector<std::int64_t>(static_cast<std::size_t>(layers), budget);
  }
  template <class Budget>
  std::vector<std::int64_t> each(const Budget& budget) const {
    std::vector<std::int64_t> out;
    for (int i = 0; i < layers; ++i) out.push_back(budget({.index = i, .count = layers}));
    return out;
  }
  std::vector<std::int64_t> operator()(const Pyramid& rule) const {
    return each([&](LayerPlace place) { return budget_of(rule, place); });
  }
  std::vector<std::int64_t> operator()(const PyramidKv& rule) const {
    return each([&](LayerPlace place) {
      return rule.window + budget_of(rule, static_cast<int>(entries), place);
    });
  }
  std::vector<std::int64_t> operator()(const ByWindow& rule) const { return all(rule.capacity); }
  std::vector<std::int64_t> operator()(const KeepLast& rule) const {
    return all(std::int64_t{rule.n} + rule.sinks);
  }
  std::vector<std::int64_t> operator()(const ByAmount& rule) const {
    return all(rule.keep.of(entries));
  }
  std::vector<std::int64_t> operator()(const Drop& rule) const {
    return all(entries - std::clamp<std::int64_t>(rule.to - rule.from, 0, entries));
  }
};

}  // namespace

std::vector<std::int64_t> budgets_of(const Method& method, int layers, std::int64_t entries) {
  return std::visit(Budgets{layers, entries}, method);
}

std::optional<int> kept_window_of(const Method& method) {
  return std::visit(
      [](const auto& rule) -> std::optional<int> {
        if constexpr (requires { rule.window; }) return rule.window;
        return std::nullopt;
      },
      method);
}

const Amount* amount_of(const Method& method) {
  return std::visit(
      [](const auto& rule) -> const Amount* {
        if constexpr (std::is_base_of_v<ByAmount, std::decay_t<decltype(rule)>>) {
          return &rule.keep;
        } else {
          return nullptr;
        }
      },
      method);
}
Amount* amount_of(Method& method) {
  return const_cast<Amount*>(amount_of(static_cast<const Method&>(method)));
}

}  // namespace kvfs::prune
