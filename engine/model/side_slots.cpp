#include "engine/model/side_slots.h"

#include <string>

namespace kvfs::model {
namespace {

// Of one side: the entries at these indices stay.
Status keep_entries(const prune::KeptEntries& entries, std::size_t side, const std::string& what,
                    std::span<SideSlots> pages, std::vector<bool>& loses) {
  auto next = entries.begin();
  const auto end = entries.end();
  if (next == end) return fail(ErrorCode::kInvalid, what, "nothing of a head would stay");
  std::int32_t index = 0;
  for (std::size_t page = 0; page < pages.size(); ++page) {
    const auto goes = [&](std::uint8_t) {
      const bool stays = next != end && *next == index;
      ++index;
      if (stays) ++next;
      return !stays;
    };
    if (std::erase_if(pages[page][side], goes) > 0) loses[page] = true;
  }
  if (next == end) return {};
  return fail(ErrorCode::kInvalid, what,
              "entry " + std::to_string(*next) + " is not among its " + std::to_string(index) +
                  ", or not in ascending order");
}

}  // namespace

Result<std::vector<bool>> keep_only(const prune::Kept& kept, std::size_t layers,
                                    std::size_t kv_heads, std::span<SideSlots> pages) {
  if (kept.size() != layers)
    return fail(ErrorCode::kInvalid, "prune a sequence",
                "the choice is of another number of layers");
  std::vector<bool> loses(pages.size());
  for (std::size_t layer = 0; layer < layers; ++layer) {
    const std::string what = "prune layer " + std::to_string(layer);
    if (kept[layer].size() != kv_heads)
      return fail(ErrorCode::kInvalid, what, "the choice is of another number of heads");
    for (std::size_t head = 0; head < kv_heads; ++head) {
      KVFS_TRY(keep_entries(kept[layer][head], layer * kv_heads + head, what, pages, loses));
    }
  }
  return loses;
}

}  // namespace kvfs::model
