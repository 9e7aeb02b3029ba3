#include "tests/engine/sched/fake_model.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <deque>
#include <thread>

namespace kvfs::sched::test {
namespace {

constexpr std::int32_t kVocab = 260;
constexpr std::uint16_t kLayers = 2;
constexpr std::uint16_t kWidth = 4;

std::uint64_t mix(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31U);
}

class ByteTokenizer : public text::Tokenizer {
 public:
  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) bytes_[static_cast<std::size_t>(i)] = static_cast<char>(i);
  }
  std::vector<TokenId> encode(std::string_view text, text::SpecialText) const override {
    std::vector<TokenId> out;
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
    return out;
  }
  std::string_view bytes_of(TokenId id) const override {
    if (id == kEnd) return "<end>";
    if (id < 0 || id > 255) return {};
    return {&bytes_[static_cast<std::size_t>(id)], 1};
  }
  bool is_special(TokenId id) const override { return id == kEnd; }
  std::int32_t vocab_size() const override { return kVocab; }
  std::vector<TokenId> begin_tokens() const override { return {}; }
  const std::vector<TokenId>& end_tokens() const override { return ends_; }

 private:
  std::array<char, 256> bytes_{};
  std::vector<TokenId> ends_{kEnd};
};

struct Row {  // of one layer at one position
  std::array<std::uint64_t, 2> key{};
  std::array<std::uint64_t, 2> value{};
};
using Rows = std::array<Row, kLayers>;

class FakeSequence : public model::Sequence {
 public:
  explicit FakeSequence(FakeControls& controls) : controls_(controls) {}
  ~FakeSequence() override { resize(0); }
  FakeSequence(const FakeSequence&) = delete;
  FakeSequence& operator=(const FakeSequence&) = delete;
  Position next_pos() const override { return next_pos_; }
  void set_next_pos(Position next_pos) { next_pos_ = next_pos; }
  const std::vector<Rows>& rows() const { return rows_; }
  std::vector<TokenId>& drawn() { return drawn_; }
  Rows& at(Position position) { return rows_[static_cast<std::size_t>(position)]; }
  void resize(std::size_t size) {
    controls_.positions_used += size;
    controls_.positions_used -= rows_.size();
    rows_.resize(size);
  }

 private:
  FakeControls& controls_;
  std::vector<Rows> rows_;
  std::vector<TokenId> drawn_;  // by launched steps, heard or not
  Position next_pos_ = 0;
};

class FakeModel : public model::Model {
 public:
  FakeModel(const model::ModelCard& card, FakeControls& controls) : controls_(controls) {
    info_.name = card.info.name;
    info_.path = card.info.path;
    info_.context_length = card.info.context_length;
    info_.vocab_size = card.info.vocab_size;
    info_.layers = card.info.layers;
    info_.fingerprint = card.info.fingerprint;
    info_.kernel_class = controls.kernel_class;
    info_.kv_dtype = controls.kv_dtype;
    info_.one_path = controls.one_path;
    info_.device = "fake";
  }
  const model::ModelInfo& info() const override { return info_; }
  std::unique_ptr<model::Sequence> new_sequence() override {
    return std::make_unique<FakeSequence>(controls_);
  }
  std::unique_ptr<model::Sequence> fork(const model::Sequence& sequence) override {
    const auto& from = dynamic_cast<const FakeSequence&>(sequence);
    auto out = std::make_unique<FakeSequence>(controls_);
    out->resize(from.rows().size());
    for (std::size_t i = 0; i < from.rows().size(); ++i) {
      out->at(static_cast<Position>(i)) = from.rows()[i];
    }
    out->set_next_pos(from.next_pos());
    return out;
  }

  Status prefill(model::Sequence& sequence, std::span<const TokenId> tokens,
                 std::span<float> logits) override {
    std::this_thread::sleep_for(std::chrono::microseconds(controls_.slice_delay_us));
    auto& to = dynamic_cast<FakeSequence&>(sequence);
    controls_.largest_slice =
        std::max<int>(controls_.largest_slice, static_cast<int>(tokens.size()));
    KVFS_TRY(require_room(tokens.size()));
    for (const TokenId token : tokens) {
      if (token == controls_.prefill_fails_at) return broken();
    }
    for (const TokenId token : tokens) append(to, token, TokenPath::kRead);
    if (!logits.empty()) fill(to, logits);
    return {};
  }
  std::int32_t prefill_slice() const override { return kFakeSlice; }
  std::int32_t prefill_alone() const override { return controls_.prefill_alone; }

  Status decode(std::span<model::DecodeItem> items) override {
    std::this_thread::sleep_for(std::chrono::microseconds(controls_.step_delay_us));
    for (const auto& item : items) {
      KVFS_TRY(require_room(items.size()));
      if (item.sequence->next_pos() == controls_.decode_fails_after) return broken();
    }
    const int batch = static_cast<int>(items.size());
    controls_.largest_batch = std::max<int>(controls_.largest_batch, batch);
    for (auto& item : items) {
      auto& to = dynamic_cast<FakeSequence&>(*item.sequence);
      append(to, item.token, TokenPath::kGenerated);
      fill(to, item.logits);
    }
    ++controls_.steps_decoded;
    return {};
  }

  int most_ahead() const override { return controls_.most_ahead; }
  bool draws(const model::SamplingParams& sampling) const override {
    return sampling.typical == 1.0F;
  }
  // Done at once, and waited for when it is heard.
  Status launch(std::span<const model::AheadItem> items) override {
    if (std::cmp_greater_equal(steps_.size(), most_ahead())) {
      return fail(ErrorCode::kInternal, "fake device", "too many steps are under way");
    }
    KVFS_TRY(require_room(items.size()));
    for (const auto& item : items) {
      if (item.sequence->next_pos() == controls_.decode_fails_after) return broken();
      if (item.sequence->next_pos() >= kContext) return broken();
    }
    const int batch = static_cast<int>(items.size());
    controls_.largest_batch = std::max<int>(controls_.largest_batch, batch);
    Step step;
    for (const auto& item : items) {
      auto& to = dynamic_cast<FakeSequence&>(*item.sequence);
      step.fails |= to.next_pos() == controls_.hear_fails_after;
      append(to, item.token == model::kNewest ? to.drawn().back() : item.token,
             TokenPath::kGenerated);
      std::vector<TokenId> history(item.said.history.begin(), item.said.history.end());
      history.insert(history.end(), to.drawn().end() - item.unheard, to.drawn().end());
      std::vector<float> logits(kVocab);
      fill(to, logits);
      const std::size_t generated = item.said.generated + static_cast<std::size_t>(item.unheard);
      to.drawn().push_back(
          model::sample(logits, {history, generated}, *item.sampling, to.next_pos()));
      step.tokens.push_back(to.drawn().back());
    }
    steps_.push_back(std::move(step));
    ++controls_.steps_launched;
    return {};
  }
  Result<std::vector<TokenId>> hear() override {
    std::this_thread::sleep_for(std::chrono::microseconds(controls_.step_delay_us));
    Step step = std::move(steps_.front());
    steps_.pop_front();
    if (!step.fails) return std::move(step.tokens);
    steps_.clear();
    return broken();
  }
  std::int32_t max_batch() const override { return controls_.max_batch; }

  Status truncate(model::Sequence& sequence, Position end) override {
    auto& from = dynamic_cast<FakeSequence&>(sequence);
    from.resize(static_cast<std::size_t>(end));
    from.set_next_pos(end);
    return {};
  }

  Result<std::vector<KvPiece>> kv_out(const model::Sequence& sequence, std::uint16_t layer,
                                      std::int32_t block) override {
    const auto& from = dynamic_cast<const FakeSequence&>(sequence);
    KvPiece piece{.layer = layer, .head_begin = 0, .head_count = 1};
    const Position begin = block * kBlockTokens;
    const Position end = std::min<Position>(begin + kBlockTokens, from.next_pos());
    for (Position p = begin; p < end; ++p) {
      const Row& row = from.rows()[static_cast<std::size_t>(p)][layer];
      piece.positions.push_back(p);
      put(piece.key, row.key);
      put(piece.value, row.value);
    }
    return std::vector<KvPiece>{std::move(piece)};
  }
  Status kv_in(model::Sequence& sequence, const KvPiece& piece) override {
    auto& to = dynamic_cast<FakeSequence&>(sequence);
    const auto need = static_cast<std::size_t>(piece.positions.back()) + 1;
    if (to.rows().size() < need) to.resize(need);
    for (std::size_t i = 0; i < piece.positions.size(); ++i) {
      Row& row = to.at(piece.positions[i])[piece.layer];
      std::memcpy(row.key.data(), &piece.key[i * sizeof row.key], sizeof row.key);
      std::memcpy(row.value.data(), &piece.value[i * sizeof row.value], sizeof row.value);
    }
    return {};
  }
  Result<bool> kv_room(model::Sequence& sequence, Position end, bool gaps) override {
    if (!controls_.takes_stored || gaps) return false;
    dynamic_cast<FakeSequence&>(sequence).resize(static_cast<std::size_t>(end));
    return true;
  }
  bool takes_stored() const override { return controls_.takes_stored; }
  Status stored_in(model::Sequence& sequence, const chunk::StoredPiece& stored) override {
    KvPiece piece{.layer = stored.layer,
                  .head_begin = stored.head_begin,
                  .head_count = stored.head_count,
                  .positions = stored.positions};
    const auto decode = [&](const chunk::StoredChunk& chunk, Bytes& out) {
      out.resize(chunk.shape.byte_size());
      return chunk::decode(chunk.codec, chunk.shape, stored.encoded(chunk), out);
    };
    KVFS_TRY(decode(stored.keys.at(0), piece.key));  // a row is far from filling a chunk
    KVFS_TRY(decode(stored.values.at(0), piece.value));
    ++controls_.stored_pieces;
    return kv_in(sequence, piece);
  }
  Status set_next_pos(model::Sequence& sequence, Position next_pos) override {
    if (controls_.finds_damage) return fail(ErrorCode::kCorrupt, "fake device", "no such code");
    auto& to = dynamic_cast<FakeSequence&>(sequence);
    to.resize(static_cast<std::size_t>(next_pos));
    to.set_next_pos(next_pos);
    return {};
  }
  std::uint64_t kv_bytes_used() const override {
    return controls_.positions_used * kLayers * sizeof(Row);
  }
  std::uint64_t kv_bytes_budget() const override {
    return controls_.budget_positions * kLayers * sizeof(Row);
  }

 private:
  static void put(Bytes& out, const std::array<std::uint64_t, 2>& words) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(words.data());
    out.insert(out.end(), bytes, bytes + sizeof words);
  }
  static tl::unexpected<Error> broken() {
    return fail(ErrorCode::kIo, "fake device", "it was told to break", "tell it not to");
  }
  Status require_room(std::size_t tokens) const {
    if (controls_.positions_used + tokens <= controls_.budget_positions) return {};
    return fail(ErrorCode::kTooLarge, "fake device", "its pages are full", "ask for less");
  }
  void append(FakeSequence& to, TokenId token, TokenPath path) const {
    const auto position = static_cast<std::size_t>(to.next_pos());
    to.resize(position + 1);
    for (std::uint16_t layer = 0; layer < kLayers; ++layer) {
      std::uint64_t hash = mix(layer + 1U) ^ mix(static_cast<std::uint64_t>(token));
      if (position > 0) hash ^= to.rows()[position - 1][layer].value[1];
      hash = mix(hash + position);
      if (!controls_.one_path) hash = mix(hash + static_cast<std::uint64_t>(path));
      to.at(static_cast<Position>(position))[layer] = {{hash, mix(hash)},
                                                       {mix(hash + 1), mix(hash + 2)}};
    }
    to.set_next_pos(static_cast<Position>(position) + 1);
  }
  void fill(const FakeSequence& from, std::span<float> logits) const {
    const auto& row = from.rows()[static_cast<std::size_t>(from.next_pos()) - 1];
    const std::uint64_t hash = mix(row[0].key[0] ^ row[1].value[0]);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const bool letter = i >= 'a' && i <= 'z';
      logits[i] = letter ? static_cast<float>(mix(hash + i) % 1000) / 100.0F : -100.0F;
    }
    if (controls_.ends && hash % 16 == 0) logits[static_cast<std::size_t>(kEnd)] = 100.0F;
  }

  struct Step {
    std::vector<TokenId> tokens;
    bool fails = false;
  };

  FakeControls& controls_;
  model::ModelInfo info_;
  std::deque<Step> steps_;
};

}  // namespace

Result<std::unique_ptr<model::ModelCard>> fake_card(const std::filesystem::path& path,
                                                    const FakeControls& controls) {
  auto card = std::make_unique<model::ModelCard>();
  card->info.name = path.stem().string();
  card->info.path = path;
  card->info.architecture = "fake";
  if (const auto it = controls.weights.find(card->info.name); it != controls.weights.end())
    card->info.resident_bytes = it->second;
  card->info.context_length = kContext;
  card->info.vocab_size = kVocab;
  card->info.layers.assign(kLayers, LayerShape{1, kWidth, kWidth});
  // Models of different names are different models.
  for (std::size_t i = 0; i < card->info.name.size(); ++i) {
    card->info.fingerprint.bytes[i % 16] ^= static_cast<std::uint8_t>(card->info.name[i]);
  }
  card->info.kernel_class = controls.kernel_class;
  card->info.kv_dtype = controls.kv_dtype;
  card->tokenizer = std::make_unique<ByteTokenizer>();
  return card;
}

std::unique_ptr<model::Model> fake_model(const model::ModelCard& card, FakeControls& controls) {
  return std::make_unique<FakeModel>(card, controls);
}

}  // namespace kvfs::sched::test
