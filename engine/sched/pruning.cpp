#include "engine/sched/pruning.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "engine/model/pruning.h"
#include "engine/prune/budgets.h"
#include "engine/prune/choose.h"
#include "engine/prune/rules.h"

namespace kvfs::sched {
namespace {

namespace json = boost::json;

tl::unexpected<Error> refuse(const prune::Policy& policy, ErrorCode code, std::string why,
                             std::string way_out) {
  return fail(code, "prune by " + std::string(prune::name_of(policy.method)), std::move(why),
              std::move(way_out));
}

json::object parse_detail(const std::string& detail) {
  boost::system::error_code error;
  json::value value = json::parse(detail.empty() ? "{}" : detail, error);
  return error || !value.is_object() ? json::object() : std::move(value.get_object());
}

std::uint64_t number_in(const json::object& detail, std::string_view key) {
  const json::value* said = detail.if_contains(key);
  boost::system::error_code error;
  const auto count = said == nullptr ? 0 : said->to_number<std::uint64_t>(error);
  return error ? 0 : count;
}

constexpr std::string_view kChunk = "prefill_chunk";
constexpr std::string_view kMoved = "moved";

json::string plain(std::string_view text) { return json::string(text.data(), text.size()); }

struct TopBudget {
  int layers;
  std::int64_t entries;

  std::int64_t operator()(const prune::Pyramid& rule) const {
    return prune::budget_of(rule, {.index = layers - 1, .count = layers});
  }
  std::int64_t operator()(const prune::PyramidKv& rule) const {
    const prune::LayerPlace top{.index = layers - 1, .count = layers};
    return rule.window + prune::budget_of(rule, static_cast<int>(entries), top);
  }
  std::int64_t operator()(const prune::ByWindow& rule) const { return rule.capacity; }
  std::int64_t operator()(const prune::KeepLast& rule) const {
    return std::int64_t{rule.n} + rule.sinks;
  }
  std::int64_t operator()(const prune::ByAmount& rule) const { return rule.keep.of(entries); }
  std::int64_t operator()(const prune::Drop&) const { return entries; }
};

class Measure {
 public:
  explicit Measure(const model::ModelInfo& info) : info_(info) {}

  void layer(std::size_t index, std::span<const std::size_t> heads) {
    std::uint64_t entries = 0;
    for (const std::size_t count : heads) entries += count;
    const LayerShape& shape = info_.layers[index];
    lengths_.bytes +=
        entries * (std::uint64_t{shape.key_width} + shape.value_width) * size_of(info_.kv_dtype);
    lengths_.of_layers.push_back(
        static_cast<std::uint32_t>((entries + heads.size() / 2) / heads.size()));
  }
  Lengths take() { return std::move(lengths_); }

 private:
  const model::ModelInfo& info_;
  Lengths lengths_;
};

template <class Heads>
std::vector<std::size_t> sizes_of(const Heads& heads) {
  std::vector<std::size_t> sizes;
  for (const auto& head : heads) sizes.push_back(head.size());
  return sizes;
}

std::string range_of(const Lengths& lengths) {
  const auto bottom = lengths.of_layers.front(), top = lengths.of_layers.back();
  return bottom == top ? std::to_string(bottom) : fmt::format("{} … {}", bottom, top);
}

}  // namespace

Result<prune::Policy> read_policy(std::string_view words) {
  const bool none = words.find_first_not_of(" \t\n") == words.npos;
  return prune::parse_policy(none ? prune::kDefaultPolicy : words);
}

Result<std::optional<prune::Policy>> read_running_policy(std::string_view words) {
  if (words == "off") return std::nullopt;
  KVFS_ASSIGN(prune::Policy policy, read_policy(words));
  if (prune::reads_the_text(policy.method)) {
    return refuse(policy, ErrorCode::kInvalid, "it reads the whole text again each time",
                  "take pyramid, or prune the saved state");
  }
  if (std::holds_alternative<prune::Drop>(policy.method)) {
    return refuse(policy, ErrorCode::kInvalid, "a span is dropped once", "prune the saved state");
  }
  if (const auto* amount = prune::amount_of(policy.method); amount != nullptr && amount->is_share) {
    return refuse(policy, ErrorCode::kInvalid, "a share would be taken of what is left each time",
                  "give a count, such as keep=512");
  }
  return policy;
}

std::string reading_words(std::uint64_t tokens) {
  if (tokens == 0) return {};
  if (tokens == 1) return "reads the last token again first";
  return fmt::format("reads {} tokens again first", tokens);
}

Status check_prunes(const prune::Policy& policy, const model::ModelInfo& model) {
  if (model.prunes) return {};
  return refuse(policy, ErrorCode::kUnsupported,
                "model " + model.name + " cannot drop single entries on this device yet",
                "prune states of models with attention only, on the CPU");
}

Result<prune::Plan> plan_pruning(const prune::Policy& policy, const model::ModelCard& card,
                                 TemplateMode mode, const History& history) {
  KVFS_TRY(check_prunes(policy, card.info));
  // Where entries were moved, the last tokens alone have a position.
  const std::size_t count =
      std::min(history.ids.size(), static_cast<std::size_t>(history.version.next_pos));
  const auto* drop = std::get_if<prune::Drop>(&policy.method);
  if (drop != nullptr && count != 0 && std::cmp_greater_equal(drop->from, count)) {
    return refuse(policy, ErrorCode::kInvalid,
                  "the state has " + std::to_string(count) + " positions, there is nothing from " +
                      std::to_string(drop->from) + " on",
                  "name positions that it has");
  }
  if (prune::reads_the_text(policy.method) && count < history.ids.size()) {
    return refuse(policy, ErrorCode::kUnsupported,
                  "it reads the text again, and the state's entries were moved away from it by "
                  "positions=compact",
                  "take a method that looks at the last tokens: snapkv, pyramid, or keep_last");
  }
  if (policy.compact && std::ranges::any_of(history.ids, [](TokenId id) { return id < 0; })) {
    return refuse(policy, ErrorCode::kUnsupported,
                  "not all of the state's tokens are known, and of those that lose their positions "
                  "nothing else tells the text",
                  "leave positions=compact out");
  }
  const auto last = std::span(history.ids).last(count);
  const std::vector<TokenId> tokens(last.begin(), last.end());
  return model::plan_pruning(card, policy.method, tokens, mode != TemplateMode::kRaw);
}

std::int64_t entries_left(const prune::Method& method, std::int64_t entries) {
  if (const auto* rule = std::get_if<prune::Pyramid>(&method))
    return std::min<std::int64_t>(entries, rule->bottom);
  return std::min(entries, std::visit(TopBudget{1, entries}, method));
}

Refreshing refreshing_of(const prune::Method& method) {
  const prune::Pyramid defaults;
  const auto* own = std::get_if<prune::Pyramid>(&method);
  const prune::Pyramid& rule = own != nullptr ? *own : defaults;
  return {.every = static_cast<std::uint64_t>(rule.refresh),
          .start = static_cast<std::size_t>(rule.start)};
}

namespace {

Result<Pruned> keep_entries(LoadedModel& on, model::Sequence& sequence, const prune::Policy& policy,
                            const prune::Kept& kept) {
  Measure before(on.model->info()), after(on.model->info());
  Pruned out;
  for (std::size_t layer = 0; layer < kept.size(); ++layer) {
    KVFS_ASSIGN(const auto positions,
                on.model->positions(sequence, static_cast<std::uint16_t>(layer)));
    const auto had = sizes_of(positions), stays = sizes_of(kept[layer]);
    out.changed |= had != stays;
    before.layer(layer, had);
    after.layer(layer, stays);
  }
  out.before = before.take();
  out.after = after.take();
  const std::int64_t there = out.before.of_layers.back();
  const std::int64_t budget =
      std::visit(TopBudget{static_cast<int>(kept.size()), there}, policy.method);
  out.top_budget = static_cast<std::uint32_t>(std::min(budget, there));
  if (out.changed) {
    KVFS_TRY(on.residency.with_room([&] { return on.model->prune(sequence, kept); }));
  }
  if (policy.compact) {
    const Position before_it = sequence.next_pos();
    KVFS_TRY(on.residency.with_room([&] { return on.model->compact(sequence); }));
    out.moved = before_it - sequence.next_pos();
    out.changed = out.changed || out.moved > 0;
  }
  out.next_pos = sequence.next_pos();
  return out;
}

}  // namespace

Result<Pruned> prune_sequence(LoadedModel& on, model::Sequence& sequence,
                              const prune::Policy& policy, prune::Plan plan,
                              const std::function<bool(std::int64_t)>& go_on) {
  KVFS_ASSIGN(const prune::Kept kept, on.residency.with_room([&] {
    return model::choose_entries(*on.model, sequence, policy.method, plan, go_on);
  }));
  return keep_entries(on, sequence, policy, kept);
}

Result<Pruned> prune_sequence(LoadedModel& on, model::Sequence& sequence,
                              const prune::Policy& policy, const prune::Observation& seen) {
  KVFS_ASSIGN(const prune::Kept kept, prune::choose(policy.method, seen));
  return keep_entries(on, sequence, policy, kept);
}

std::string summary(const Pruned& pruned) {
  if (!pruned.changed) return "nothing to drop of " + range_of(pruned.before) + " entries a layer";
  const std::string moved =
      pruned.moved > 0 ? fmt::format(", moved to positions below {}", pruned.next_pos) : "";
  return fmt::format("{} to {} entries a layer, {:.1f} to {:.1f} MB{}", range_of(pruned.before),
                     range_of(pruned.after), static_cast<double>(pruned.before.bytes) / 1e6,
                     static_cast<double>(pruned.after.bytes) / 1e6, moved);
}

// --- what a version says
// ----------------------------------------------------------------------------

std::string pruned_detail(const store::VersionRecord& base, const prune::Policy& policy,
                          std::int32_t prefill_chunk, bool whole) {
  const json::string method = plain(prune::name_of(policy.method));
  const std::string words = prune::to_words(policy);
  const json::string parameters =
      plain(std::string_view(words).substr(std::min(method.size() + 1, words.size())));
  json::object earlier = parse_detail(base.origin_detail);
  const std::uint64_t chunk = whole ? 0 : static_cast<std::uint64_t>(prefill_chunk);
  const bool same = !whole && base.origin == store::Origin::kPruned &&
                    earlier["method"] == method && earlier["parameters"] == parameters &&
                    number_in(earlier, kChunk) == chunk;
  if (same) return base.origin_detail;
  json::object out{{"method", method}, {"parameters", parameters}};
  if (chunk > 0) out[kChunk] = chunk;
  if (const std::uint64_t moved = number_in(earlier, kMoved); moved > 0) out[kMoved] = moved;
  if (!base.blocks.empty()) out["parent"] = plain(base.root.hex());
  if (base.origin != store::Origin::kComputed) {
    json::object before{{"kind", plain(store::name_of(base.origin))}};
    earlier.stable_erase("generated");
    earlier.stable_erase(kMoved);
    for (const auto& [key, value] : earlier) before[key] = value;
    out["before"] = std::move(before);
  }
  return json::serialize(out);
}

std::string with_generated(const std::string& detail, std::uint64_t tokens) {
  json::object out = parse_detail(detail);
  out["generated"] = tokens;
  return json::serialize(out);
}

std::string with_moved(const std::string& detail, std::uint64_t tokens) {
  json::object out = parse_detail(detail);
  out[kMoved] = tokens;
  return json::serialize(out);
}

std::uint64_t moved_tokens(const store::VersionRecord& version) {
  if (version.origin != store::Origin::kPruned) return 0;
  return number_in(parse_detail(version.origin_detail), kMoved);
}

void renumber(std::vector<store::BlockToken>& tokens, std::size_t count, Position next_pos) {
  const auto behind = static_cast<Position>(count) - next_pos;  // tokens without a position
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i].position = std::max(static_cast<Position>(i) - behind, 0);
}

std::uint64_t generated_in(const History& history) {
  if (history.version.origin == store::Origin::kPruned) {
    const json::object detail = parse_detail(history.version.origin_detail);
    if (detail.contains("generated")) return number_in(detail, "generated");
  }
  return static_cast<std::uint64_t>(
      std::ranges::count(history.tokens, TokenPath::kGenerated, &store::BlockToken::path));
}

}  // namespace kvfs::sched
