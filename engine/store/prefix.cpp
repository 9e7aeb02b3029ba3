// Block keys: each chains all that decides its block's bits.
#include "engine/store/digests.h"
#include "engine/store/store.h"

namespace kvfs::store {

BlockKey first_key(const PrefixScope& scope) {
  Hasher hasher;
  hasher.text("kvfs prefix");
  hasher.digest(scope.fingerprint);
  hasher.text(scope.kernel_class);
  hasher.number(static_cast<std::uint8_t>(scope.kv_dtype));
  hasher.number(static_cast<std::uint8_t>(scope.owner.has_value()));
  hasher.number(scope.owner.value_or(0));
  return hasher.finish<BlockKey>();
}

BlockKey next_key(const BlockKey& previous, const std::vector<BlockToken>& tokens, bool one_path) {
  Hasher hasher;
  hasher.digest(previous);
  hasher.number(static_cast<std::uint32_t>(tokens.size()));
  for (const BlockToken& token : tokens) {
    hasher.number(token.token);
    hasher.number(token.position);
    hasher.number(one_path ? std::uint8_t{0} : static_cast<std::uint8_t>(token.path));
  }
  return hasher.finish<BlockKey>();
}

}  // namespace kvfs::store
