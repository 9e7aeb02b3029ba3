// States as files: out, and back in.
#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "codec/container/mapped_file.h"
#include "daemon/http/api.h"
#include "daemon/http/arguments.h"
#include "daemon/http/present.h"
#include "daemon/http/tell_mount.h"
#include "engine/sched/bundle_import.h"
#include "engine/sched/verbs.h"
#include "engine/store/archive.h"
#include "engine/store/views.h"

namespace kvfs::daemon::http {
namespace {

using store::DataPart;

constexpr std::array<std::pair<std::string_view, DataPart>, 5> kForms{
    {{"pt", DataPart::kBundlePt},
     {"safetensors", DataPart::kBundleSafetensors},
     {"pkl", DataPart::kBundlePkl},
     {"npz", DataPart::kBundleNpz},
     {"kvfs", DataPart::kBundleKvfs}}};

std::string query_word(const Call& call, const std::string& name) {
  const auto found = call.query.find(name);
  return found == call.query.end() ? std::string() : found->second;
}

Result<Answer> export_bundle(Services& services, const Call& call) {
  KVFS_ASSIGN(const StateId state, sched::resolve(services.store, call.captures.at(0)));
  const std::string as = query_word(call, "as");
  const auto part = std::ranges::find(kForms, as, &std::pair<std::string_view, DataPart>::first);
  const store::ArchiveWishes wishes{.files = call.asks("files"),
                                    .snapshots = call.asks("snapshots")};
  if (part == kForms.end()) {
    return fail(ErrorCode::kInvalid, "export as '" + as + "'", "that is no form of a state",
                "ask for pt, safetensors, pkl, npz or kvfs");
  }
  if (part->second != DataPart::kBundleKvfs && (wishes.files || wishes.snapshots)) {
    return fail(ErrorCode::kInvalid, "export as '" + as + "'",
                "it holds neither files nor snapshots", "ask for kvfs");
  }
  KVFS_ASSIGN(const store::StateRecord record, services.store.state(state));
  if (!record.version) {
    return fail(ErrorCode::kInvalid, "export of " + call.captures.at(0), "the state is empty",
                "let it read something first");
  }
  struct Source {  // shared by the answer's copies
    std::vector<store::BlockPin> pins;
    std::unique_ptr<store::FileView> view;
  };
  auto source = std::make_shared<Source>();
  if (part->second == DataPart::kBundleKvfs) {
    KVFS_ASSIGN(source->view, store::archive_view(services.store, state, wishes));
  } else {
    KVFS_ASSIGN(const store::VersionRecord version, services.store.version(record.version));
    KVFS_ASSIGN(source->pins, store::pin_blocks(services.store, version));
    KVFS_ASSIGN(source->view, store::part_view(services.store, version, part->second));
  }
  Answer answer{.content_type = "application/octet-stream", .kind = Answer::Body::kFile};
  answer.download = Download{source->view->size(), [source](std::uint64_t at, MutableByteSpan out) {
                               return source->view->read(at, out);
                             }};
  return answer;
}

Result<StateId> import_bundle(Services& services, const Call& call) {
  if (!call.upload) {
    return fail(ErrorCode::kInvalid, "import", "no file was sent", "send one as the body");
  }
  KVFS_ASSIGN(const Place place, place_of(services.store, call.captures.at(0)));
  KVFS_ASSIGN(const auto file, container::MappedFile::open(call.upload->path(), "the file"));
  return sched::import_bundle(services.store, services.scheduler, services.catalog,
                              {.file = file.bytes(),
                               .parent = place.parent,
                               .name = place.name,
                               .owner = {.uid = call.peer.uid, .gid = call.peer.gid},
                               .model = query_word(call, "model")});
}

}  // namespace

Answering get_export(Services& services, Call call) { co_return export_bundle(services, call); }

// Keeps its worker until all is stored.
Answering post_import(Services& services, Call call) {
  const Result<StateId> state = import_bundle(services, call);
  if (!state) co_return fail(state.error());
  co_await tell_mount(services, *state);
  auto facts = state_facts(services, *state);
  if (!facts) co_return fail(facts.error());
  co_return json_answer(*facts, 201);
}

}  // namespace kvfs::daemon::http
