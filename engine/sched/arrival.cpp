#include "engine/sched/arrival.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "engine/sched/verbs.h"
#include "engine/store/assembly.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

constexpr std::uint64_t kMostJson = std::uint64_t{16} << 20;
constexpr std::uint64_t kMostText = std::uint64_t{1} << 30;
constexpr std::string_view kStateJson = "state.json", kTokens = "tokens.npy", kText = "text";

std::optional<store::DataPart> part_of(std::string_view path) {
  if (path == kStateJson) return store::DataPart::kStateJson;
  if (path == kText) return store::DataPart::kText;
  if (path == kTokens) return store::DataPart::kTokens;
  const auto layer = layer_of_path(path);
  return layer ? std::optional(store::layer_part(*layer)) : std::nullopt;
}

// What is staged over what the state is.
struct Copy {
  std::map<std::string, FileId, std::less<>> staged;  // data alone, by path
  store::StateRecord state;
  std::optional<store::VersionRecord> version;  // the state's

  bool has(std::string_view path) const { return staged.find(path) != staged.end(); }
};

Result<Copy> open_copy(store::Store& store, StateId id) {
  Copy copy;
  KVFS_ASSIGN(copy.state, store.state(id));
  KVFS_ASSIGN(const auto entries, store.staged(id));
  for (const store::NameEntry& entry : entries) {
    if (is_data_path(entry.name)) copy.staged.emplace(entry.name, entry.file);
  }
  if (copy.state.version) {
    KVFS_ASSIGN(copy.version, store.version(copy.state.version));
  }
  return copy;
}

// The staged file, else the state's own.
Result<std::unique_ptr<store::FileView>> view_of(store::Store& store, const Copy& copy,
                                                 std::string_view path) {
  const auto it = copy.staged.find(path);
  if (it != copy.staged.end()) return store::node_view(store, it->second);
  const auto part = part_of(path);
  if (copy.version && part) return store::part_view(store, *copy.version, *part);
  return fail(ErrorCode::kAgain, std::string(path), "it has not arrived yet");
}

Result<std::string> text_at(store::Store& store, const Copy& copy, std::string_view path,
                            std::uint64_t most) {
  KVFS_ASSIGN(const auto view, view_of(store, copy, path));
  return store::read_whole(*view, most, std::string(path));
}

Result<store::StateDocument> document_of(store::Store& store, const Copy& copy) {
  KVFS_ASSIGN(const std::string json, text_at(store, copy, kStateJson, kMostJson));
  return store::parse_state_json(json);
}

std::vector<std::string> implied(const store::StateDocument& document) {
  std::vector<std::string> paths{std::string(kStateJson), std::string(kTokens)};
  for (std::size_t i = 0; i < document.version.layers.size(); ++i) paths.push_back(layer_path(i));
  return paths;
}

// The version that every staged file is the whole of, when it is one: then nothing need be read.
Result<VersionId> common_source(store::Store& store, const Copy& copy,
                                const std::vector<std::string>& paths) {
  VersionId common;
  for (const std::string& path : paths) {
    const auto it = copy.staged.find(path);
    if (it == copy.staged.end()) return VersionId{};
    KVFS_ASSIGN(const store::FileNode node, store.node(it->second));
    const bool whole = node.source && node.pieces == 0 && node.source_bytes == node.size &&
                       node.source_part == part_of(path) && (!common || node.source == common);
    if (!whole) return VersionId{};
    common = node.source;
    KVFS_ASSIGN(const store::VersionRecord version, store.version(common));
    KVFS_ASSIGN(const auto view, store::part_view(store, version, node.source_part));
    if (view->size() != node.size || version.layers.size() + 2 != paths.size()) return VersionId{};
  }
  return common;
}

// The state becomes `version`; what is staged of its data goes.
Status replace(store::Store& store, StateId id, const Copy& copy,
               const std::function<Result<VersionId>(store::WriteTransaction&)>& version) {
  std::int64_t advanced_ns = 0;
  if (const auto json = copy.staged.find(kStateJson); json != copy.staged.end()) {
    KVFS_ASSIGN(const store::FileNode node, store.node(json->second));
    advanced_ns = node.modified_ns;
  } else {
    for (const auto& [path, file] : copy.staged) {
      KVFS_ASSIGN(const store::FileNode node, store.node(file));
      advanced_ns = std::max(advanced_ns, node.modified_ns);
    }
  }
  return store.write([&](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(store::StateRecord now, tx.state(id));
    if (now.version != copy.state.version) {
      return fail(ErrorCode::kAgain, "the copy onto " + now.name, "the state advanced meanwhile");
    }
    KVFS_ASSIGN(const VersionId next, version(tx));
    KVFS_TRY(tx.set_version(id, next));
    now.advanced_ns = advanced_ns;
    KVFS_TRY(tx.update_state(id, now));
    return tx.drop_staged(id);
  });
}

Status check_root(const store::StateDocument& document, const store::VersionRecord& made) {
  if (!document.root || *document.root == made.root) return {};
  return fail(ErrorCode::kInvalid, "the copy",
              "what arrived does not match the root in state.json: a file is damaged, or of "
              "another state",
              "copy it again; without \"root\" in state.json it is taken as it is, as edited");
}

Status import(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId id,
              const Copy& copy, const store::StateDocument& document) {
  store::StateFiles files;
  files.given_up = [&scheduler] { return scheduler.imports_given_up(); };
  KVFS_ASSIGN(files.tokens, view_of(store, copy, kTokens));
  for (std::size_t i = 0; i < document.version.layers.size(); ++i) {
    KVFS_ASSIGN(auto layer, view_of(store, copy, layer_path(i)));
    files.layers.push_back(std::move(layer));
  }
  const auto card = catalog.card(document.version.model);
  if (card && (*card)->info.fingerprint == document.version.fingerprint) {
    files.bytes_of = [&card](TokenId token) {
      return token < 0 ? std::string_view() : (*card)->tokenizer->bytes_of(token);
    };
  } else if (copy.has(kText)) {
    KVFS_ASSIGN(files.text, text_at(store, copy, kText, kMostText));
  }
  KVFS_ASSIGN(const store::Assembled made, store::assemble(store, document, files));
  return replace(store, id, copy, [&](store::WriteTransaction& tx) -> Result<VersionId> {
    KVFS_ASSIGN(const VersionId version, tx.add_version(made.version));
    KVFS_ASSIGN(const store::VersionRecord record, tx.version(version));
    KVFS_TRY(check_root(document, record));
    return version;
  });
}

// `text` follows from the tokens: what is copied onto it says what is there already, or nothing.
Status settle_text(store::Store& store, StateId id, const Copy& copy) {
  KVFS_ASSIGN(const auto own, store::text_view(store, *copy.version));
  KVFS_ASSIGN(const std::string now, store::read_whole(*own, kMostText, "text"));
  const auto said = text_at(store, copy, kText, kMostText);
  const Status dropped = store.write([&](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(const FileId file, tx.unlink_node({id, std::string(kText), true}));
    return tx.reap_node(file);
  });
  KVFS_TRY(dropped);
  if (said && *said == now) return {};
  return fail(ErrorCode::kInvalid, "text", "it follows from the tokens and is not written",
              "feed the state, or roll it back");
}

}  // namespace

std::string Arrival::line() const {
  if (!begun) return {};
  if (missing.empty()) return "incomplete: waiting for a file to be closed";
  return "incomplete: waiting for " + missing.front();
}

Result<Arrival> look(store::Store& store, StateId id) {
  Arrival out;
  KVFS_ASSIGN(const Copy copy, open_copy(store, id));
  out.begun = !copy.staged.empty();
  if (!out.begun) return out;
  const auto document = document_of(store, copy);
  if (!document) {
    out.missing = {std::string(kStateJson)};
    out.complete = copy.has(kStateJson);  // settle() says what is wrong with it
    return out;
  }
  out.fits = copy.version.has_value() && copy.version->layers == document->version.layers;
  for (std::string& path : implied(*document)) {
    if (!copy.has(path)) out.missing.push_back(std::move(path));
  }
  out.complete = out.missing.empty();
  return out;
}

Result<bool> settle(store::Store& store, Scheduler& scheduler, Catalog& catalog, StateId id) {
  KVFS_ASSIGN(const Copy copy, open_copy(store, id));
  if (copy.staged.empty()) return false;
  if (copy.staged.size() == 1 && copy.has(kText) && copy.version) {
    KVFS_TRY(settle_text(store, id, copy));
    return false;
  }
  KVFS_ASSIGN(const store::StateDocument document, document_of(store, copy));
  const auto paths = implied(document);
  for (const std::string& path : paths) {
    const bool own = copy.version && copy.version->layers == document.version.layers;
    if (!copy.has(path) && !own) {
      return fail(ErrorCode::kAgain, "the copy", "it is incomplete: " + path + " is missing");
    }
  }
  KVFS_ASSIGN(const VersionId source, common_source(store, copy, paths));
  if (source) {
    KVFS_TRY(replace(store, id, copy,
                     [&](store::WriteTransaction&) -> Result<VersionId> { return source; }));
  } else {
    KVFS_TRY(import(store, scheduler, catalog, id, copy, document));
  }
  scheduler.advanced(id);
  return true;
}

}  // namespace kvfs::sched
