#include "engine/sched/bundle_import.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "engine/sched/archive_import.h"
#include "engine/sched/bundle_source.h"
#include "engine/store/archive.h"
#include "engine/store/bundle_files.h"
#include "engine/store/write_transaction.h"

namespace kvfs::sched {
namespace {

namespace json = boost::json;
using container::ImportedCache;

constexpr std::array<std::string_view, 6> kSuffixes = {".pt",     ".safetensors", ".pkl",
                                                       ".pkl.gz", ".npz",         ".kvfs"};

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Where it is to be.
Result<ImportPlace> find_place(store::Store& store, Scheduler& scheduler,
                               const BundleImport& wanted) {
  ImportPlace place;
  const auto entry = store.lookup(wanted.parent, wanted.name);
  if (!entry && entry.error().code != ErrorCode::kNotFound) return fail(entry.error());
  if (!entry) {
    KVFS_TRY(check_state_name(wanted.parent, wanted.name));
    if (wanted.parent) {
      KVFS_ASSIGN(const store::StateRecord parent, store.state(wanted.parent));
      place.record.params = parent.params;
    }
    place.record.parent = wanted.parent;
    place.record.name = wanted.name;
    place.record.uid = wanted.owner.uid;
    place.record.gid = wanted.owner.gid;
    place.record.created_ns = place.record.changed_ns = now_ns();
    return place;
  }
  if (entry->kind != store::NameEntry::Kind::kState) {
    return fail(ErrorCode::kExists, "state " + wanted.name, "a file has that name",
                "choose another name");
  }
  place.state = entry->state;
  KVFS_ASSIGN(place.record, store.state(entry->state));
  if (scheduler.busy(entry->state)) {
    return fail(ErrorCode::kBusy, "state " + wanted.name, "jobs are changing it",
                "wait for them or cancel them");
  }
  return place;
}

// --- which model ---------------------------------------------------------------------------------

// The model the state names, else the default, else the only other one of these shapes.
Result<const model::ModelCard*> choose_model(Catalog& catalog, const store::StateRecord& record,
                                             const Bundle& bundle) {
  const ImportedCache& cache = bundle.cache->cache();
  const auto set = record.params.find("model");
  const bool named = bundle.document || set != record.params.end();
  const std::string name = bundle.document              ? bundle.document->version.model
                           : set != record.params.end() ? set->second
                                                        : catalog.default_name();
  KVFS_ASSIGN(const model::ModelCard* card, catalog.card(name));
  if (!named && !fits(cache, card->info)) {
    std::vector<const model::ModelCard*> others;
    for (const std::string& other : catalog.names()) {
      const auto found = catalog.card(other);
      if (found && fits(cache, (*found)->info)) others.push_back(*found);
    }
    if (others.size() == 1) card = others.front();
  }
  KVFS_TRY(check_fits(cache, card->info));
  return card;
}

// --- what it becomes -----------------------------------------------------------------------------

struct Plan {
  store::StateDocument document;  // with a root: to be compared
  store::StateFiles files;
};

std::vector<std::unique_ptr<store::FileView>> layer_files(const ImportedCache& cache, DType dtype) {
  std::vector<std::unique_ptr<store::FileView>> out;
  for (std::size_t i = 0; i < cache.layers.size(); ++i) {
    out.push_back(store::imported_layer(cache.layers[i], cache.positions_of(i), dtype));
  }
  return out;
}

void take_text(Plan& plan, const model::ModelCard* card) {
  if (card == nullptr) {
    plan.files.text = "[text of model " + plan.document.version.model + ", which is not here]";
    return;
  }
  plan.files.bytes_of = [card](TokenId token) { return card->tokenizer->bytes_of(token); };
}

std::string edited_detail(const store::StateDocument& document) {
  return document.root ? json::serialize(json::object{{"parent", document.root->hex()}})
                       : std::string();
}

// A version of this model, made of what the file holds.
Result<Plan> plan_anew(const Bundle& bundle, const model::ModelCard& card,
                       const store::StateRecord& record) {
  const ImportedCache& cache = bundle.cache->cache();
  KVFS_ASSIGN(const JobParams params, resolve_params(record.params));
  Plan plan;
  store::VersionRecord& version = plan.document.version;
  version.model = card.info.name;
  version.fingerprint = card.info.fingerprint;
  version.kernel_class = "imported";
  version.kv_dtype = card.info.kv_dtype;
  version.codec = params.codec;
  version.origin = bundle.document ? store::Origin::kEdited : store::Origin::kImported;
  version.n_tokens = cache.tokens.size();
  version.next_pos = static_cast<Position>(cache.tokens.size());
  version.layers = card.info.layers;
  for (std::size_t i = 0; i < cache.layers.size(); ++i) {
    const container::ImportedLayer& layer = cache.layers[i];
    version.extents.push_back(
        {.own_positions = cache.positions_of(i).size() != layer.key.shape[1],
         .lengths = std::vector<std::uint32_t>(layer.key.shape[0],
                                               static_cast<std::uint32_t>(layer.key.shape[1]))});
  }
  json::object detail;
  if (const DType from = cache.layers[0].key.dtype; from != version.kv_dtype) {
    detail["converted_from"] = name_of(from);
  }
  if (!cache.unread.empty())
    detail["unread"] = json::array(cache.unread.begin(), cache.unread.end());
  if (bundle.document && bundle.document->root) detail["parent"] = bundle.document->root->hex();
  if (!detail.empty()) version.origin_detail = json::serialize(detail);
  plan.files.tokens = store::imported_tokens(cache.tokens);
  plan.files.layers = layer_files(cache, version.kv_dtype);
  return plan;
}

Result<Plan> plan_of(Catalog& catalog, const store::StateRecord& record, const Bundle& bundle,
                     ByteSpan file) {
  const model::ModelCard* its = nullptr;  // the model it says, if it is here
  if (bundle.document) {
    const auto card = catalog.card(bundle.document->version.model);
    if (card && (*card)->info.fingerprint == bundle.document->version.fingerprint) its = *card;
  }
  Plan plan;
  if (bundle.safetensors) {
    plan.document = *bundle.document;
    KVFS_ASSIGN(const auto tokens, bundled_tokens(*bundle.safetensors, file));
    plan.files.tokens = store::imported_tokens(tokens);
    plan.files.layers =
        store::bundled_layers(*bundle.safetensors, file, plan.document.version.layers.size());
    take_text(plan, its);
    return plan;
  }
  const ImportedCache& cache = bundle.cache->cache();
  const bool as_it_is = bundle.document && agrees(*bundle.document, cache) &&
                        (its == nullptr || its->info.kv_dtype == bundle.document->version.kv_dtype);
  if (as_it_is) {
    plan.document = *bundle.document;
    plan.files.tokens = store::imported_tokens(cache.tokens);
    plan.files.layers = layer_files(cache, plan.document.version.kv_dtype);
    take_text(plan, its);
    return plan;
  }
  KVFS_ASSIGN(const model::ModelCard* card, choose_model(catalog, record, bundle));
  KVFS_ASSIGN(plan, plan_anew(bundle, *card, record));
  take_text(plan, card);
  return plan;
}

// The version, in the transaction that makes it the state's.
Result<VersionId> add(store::WriteTransaction& tx, const Plan& plan, const Bundle& bundle,
                      store::VersionRecord made) {
  KVFS_ASSIGN(const VersionId version, tx.add_version(made));
  KVFS_ASSIGN(const store::VersionRecord record, tx.version(version));
  if (!plan.document.root || *plan.document.root == record.root) return version;
  if (bundle.untouched) {
    return fail(ErrorCode::kInvalid, "bundle",
                "its tensors are not those that were exported: the file is damaged",
                "copy it again; what torch or safetensors saves anew is taken as edited");
  }
  made.origin = store::Origin::kEdited;
  made.origin_detail = edited_detail(plan.document);
  return tx.add_version(made);
}

}  // namespace

std::string_view bundle_stem(std::string_view file_name) {
  for (const std::string_view suffix : kSuffixes) {
    if (file_name.size() > suffix.size() && file_name.ends_with(suffix)) {
      return file_name.substr(0, file_name.size() - suffix.size());
    }
  }
  return {};
}

Result<StateId> import_bundle(store::Store& store, Scheduler& scheduler, Catalog& catalog,
                              const BundleImport& wanted) {
  KVFS_ASSIGN(ImportPlace place, find_place(store, scheduler, wanted));
  if (store::Archive::is_archive(wanted.file)) {
    return import_archive(store, scheduler, catalog, wanted, place);
  }
  if (!wanted.model.empty()) place.record.params["model"] = wanted.model;
  auto read = read_bundle(catalog, wanted.file);
  if (!read && read.error().code == ErrorCode::kCorrupt) read.error().code = ErrorCode::kInvalid;
  KVFS_ASSIGN(const Bundle bundle, std::move(read));
  KVFS_ASSIGN(Plan plan, plan_of(catalog, place.record, bundle, wanted.file));
  plan.files.given_up = [&scheduler] { return scheduler.imports_given_up(); };
  KVFS_ASSIGN(const store::Assembled made, store::assemble(store, plan.document, plan.files));
  StateId id = place.state.value_or(StateId{});
  const std::int64_t at = wanted.modified_ns != 0 ? wanted.modified_ns : now_ns();
  const Status written = store.write([&](store::WriteTransaction& tx) -> Status {
    KVFS_ASSIGN(const VersionId version, add(tx, plan, bundle, made.version));
    store::StateRecord record = place.record;
    if (!place.state) {
      record.version = version;
      record.advanced_ns = at;
      KVFS_ASSIGN(id, tx.create_state(record));
      return {};
    }
    KVFS_ASSIGN(record, tx.state(id));
    if (record.version != place.record.version) {
      return fail(ErrorCode::kBusy, "state " + wanted.name, "it advanced meanwhile", "try again");
    }
    KVFS_TRY(tx.set_version(id, version));
    record.advanced_ns = at;
    if (!wanted.model.empty()) record.params["model"] = wanted.model;
    return tx.update_state(id, record);
  });
  KVFS_TRY(written);
  scheduler.advanced(id);
  return id;
}

}  // namespace kvfs::sched
