#include "engine/model/places.h"

#include <algorithm>
#include <string>
#include <utility>

namespace kvfs::model {
namespace {

constexpr const char* kWhat = "move entries to other positions";

Status check_window(std::size_t layer, Position window, const HeadPlaces& head, Position before,
                    Position after) {
  for (std::size_t i = 0; i < head.from.size(); ++i) {
    const Position place = head.first + static_cast<Position>(i);
    if (head.from[i] > before - window || place <= after - window) continue;
    return fail(ErrorCode::kUnsupported, kWhat,
                "layer " + std::to_string(layer) + " sees " + std::to_string(window) +
                    " positions, and would see position " + std::to_string(head.from[i]) +
                    " again, which it had left behind",
                "leave positions=compact out, or prune by keep_last n=" + std::to_string(window) +
                    " or less");
  }
  return {};
}

}  // namespace

bool HeadPlaces::moves() const {
  for (std::size_t i = 0; i < from.size(); ++i) {
    if (from[i] != first + static_cast<Position>(i)) return true;
  }
  return false;
}

bool Places::moves() const {
  return std::ranges::any_of(
      layers, [](const auto& heads) { return std::ranges::any_of(heads, &HeadPlaces::moves); });
}

Result<Places> find_places(std::vector<std::vector<std::vector<Position>>> positions,
                           Position next_pos, const Turnable& model) {
  if (model.learned_positions) {
    return fail(ErrorCode::kUnsupported, kWhat,
                "the model learned its positions: they are part of what its tokens read, and keys "
                "cannot be turned to others",
                "leave positions=compact out: they keep their own");
  }
  Places to;
  const auto behind = [&](const HeadPlaces& head) {
    return head.from.empty() || head.from.back() != next_pos - 1 ? 1 : 0;
  };
  for (auto& layer : positions) {
    std::vector<HeadPlaces>& heads = to.layers.emplace_back();
    for (auto& from : layer) {
      const HeadPlaces& head = heads.emplace_back(HeadPlaces{std::move(from), 0});
      to.next_pos = std::max(to.next_pos, static_cast<Position>(head.from.size()) + behind(head));
    }
  }
  for (std::size_t layer = 0; layer < to.layers.size(); ++layer) {
    for (HeadPlaces& head : to.layers[layer]) {
      head.first = to.next_pos - behind(head) - static_cast<Position>(head.from.size());
      to.dense = to.dense && head.first == 0 && behind(head) == 0;
      if (const int window = model.windows[layer]; window > 0)
        KVFS_TRY(check_window(layer, window, head, next_pos, to.next_pos));
    }
  }
  return to;
}

}  // namespace kvfs::model
