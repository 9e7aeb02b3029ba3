// What a device does that neither draws by itself nor copies KV while it goes on.
#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/model/model.h"

namespace kvfs::model {
namespace {

class Taken final : public KvOut {
 public:
  explicit Taken(std::vector<KvPiece> pieces) : pieces_(std::move(pieces)) {}
  Result<std::vector<KvPiece>> take() override { return std::move(pieces_); }

 private:
  std::vector<KvPiece> pieces_;
};

tl::unexpected<Error> only_decodes() {
  return fail(ErrorCode::kUnsupported, "draw tokens on the device", "it only decodes");
}

}  // namespace

Status Model::launch(std::span<const AheadItem>) { return only_decodes(); }
Result<std::vector<TokenId>> Model::hear() { return only_decodes(); }

Result<std::unique_ptr<KvOut>> Model::kv_on_its_way(const Sequence& sequence, std::int32_t block) {
  std::vector<KvPiece> out;
  for (std::size_t layer = 0; layer < info().layers.size(); ++layer) {
    KVFS_ASSIGN(auto pieces, kv_out(sequence, static_cast<std::uint16_t>(layer), block));
    std::ranges::move(pieces, std::back_inserter(out));
  }
  return std::make_unique<Taken>(std::move(out));
}

}  // namespace kvfs::model
