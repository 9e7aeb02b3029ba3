// The tree of states, what refers to versions, jobs and files beside them.
#include "tests/engine/store/fixture.h"

namespace kvfs::store {
namespace {

std::vector<std::string> names(Store& store, StateId parent, std::string_view after = "",
                               std::size_t limit = 1000) {
  std::vector<std::string> out;
  const auto entries = store.list(parent, after, limit);
  for (const NameEntry& entry : *entries) out.push_back(entry.name);
  return out;
}

class StatesTest : public StoreTest {
 protected:
  StateId make(const std::string& name, StateId parent = {}) {
    StateId id;
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(id, t.create_state({.parent = parent, .name = name}));
      return {};
    });
    return id;
  }
};

TEST_F(StatesTest, NamesAreListedInByteOrderAndInPages) {
  const StateId parent = make("p");
  for (const char* name : {"b", "a", "ä", "Z", "aa", "10", "9"}) make(name, parent);
  make("q");
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(*store, parent), (Names{"10", "9", "Z", "a", "aa", "b", "ä"}));
  EXPECT_EQ(names(*store, parent, "9", 3), (Names{"Z", "a", "aa"}));
  EXPECT_EQ(names(*store, parent, "ab"), (Names{"b", "ä"}));
  EXPECT_EQ(names(*store, {}), (Names{"p", "q"}));
}

TEST_F(StatesTest, WatchersHearWhatWasCommittedAndNothingElse) {
  std::vector<std::string> heard;
  const std::uint64_t watch = store->watch([&](const Change& change) {
    if (change.kind == Change::Kind::kStaged) return;
    std::string line = std::string(name_of(change.kind)) + " " + change.path;
    if (!change.file.empty()) line += " file " + change.file;
    if (!change.before.empty()) line += " was " + change.before;
    if (change.kind == Change::Kind::kJob) line += " " + change.job.name + change.job.prompt;
    heard.push_back(line);
  });
  const StateId a = make("a"), b = make("b", a);
  must([&](WriteTransaction& t) { return t.rename_state(b, {}, "c"); });
  const auto update = [&](const std::function<void(StateRecord&)>& change) {
    must([&](WriteTransaction& t) -> Status {
      KVFS_ASSIGN(StateRecord record, t.state(a));
      change(record);
      return t.update_state(a, record);
    });
  };
  update([](StateRecord& record) { record.advanced_ns = 7; });  // no news
  update([](StateRecord& record) { record.params["seed"] = "1"; });
  StateId snapshot;
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(snapshot, t.create_snapshot(a, "v1", 1));
    return {};
  });
  must([&](WriteTransaction& t) -> Status {
    KVFS_TRY(t.create_node({a, "notes"}, {}));
    KVFS_TRY(t.create_node({.directory = a, .name = "text", .staged = true}, {}));
    KVFS_TRY(t.move_node({a, "notes"}, {{}, "kept"}, false));
    KVFS_TRY(t.unlink_node({{}, "kept"}));
    return t.drop_staged(a);
  });
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(const JobId job, t.add_job({.state = a, .name = "q", .prompt = "secret"}));
    KVFS_ASSIGN(JobRecord record, t.job(job));
    KVFS_TRY(t.update_job(job, record));  // no news
    record.status = JobStatus::kCanceled;
    return t.update_job(job, record);
  });
  EXPECT_FALSE(store->write([&](WriteTransaction& t) -> Status {
    KVFS_TRY(t.create_state({.name = "never"}));
    return fail(ErrorCode::kInvalid, "a test", "changes its mind");
  }));
  must([&](WriteTransaction& t) { return t.remove_state(snapshot); });
  store->unwatch(watch);
  make("unheard");
  EXPECT_EQ(heard, (std::vector<std::string>{
                       "created a", "created a/b", "renamed c was a/b", "changed a", "created a@v1",
                       "file-created a file notes", "file-renamed  file kept was a/notes",
                       "file-removed  file kept", "job a q", "job a q", "removed a@v1"}));
}

TEST_F(StatesTest, BadNamesAreRefused) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("a\0b", 3), std::string(256, 'x')}) {
    EXPECT_EQ(code_of([&](WriteTransaction& t) -> Status {
                KVFS_TRY(t.create_state({.name = name}));
                return {};
              }),
              ErrorCode::kInvalid)
        << name;
    EXPECT_EQ(store->lookup({}, name).error().code, ErrorCode::kInvalid);
  }
  EXPECT_TRUE(make(std::string(255, 'x')));
  EXPECT_TRUE(make("..."));
}

TEST_F(StatesTest, TakenNamesAndMissingParentsAreRefused) {
  make("a");
  const auto create = [&](StateId parent, const char* name) {
    return code_of([&](WriteTransaction& t) -> Status {
      KVFS_TRY(t.create_state({.parent = parent, .name = name}));
      return {};
    });
  };
  EXPECT_EQ(create({}, "a"), ErrorCode::kExists);
  EXPECT_EQ(create({999'999}, "b"), ErrorCode::kNotFound);
}

TEST_F(StatesTest, ARenameNeverMakesACycleNorReplaces) {
  const StateId a = make("a"), b = make("b", a), c = make("c", b), other = make("other");
  const auto move = [&](StateId id, StateId parent, const char* name) {
    return [=](WriteTransaction& t) { return t.rename_state(id, parent, name); };
  };
  EXPECT_EQ(code_of(move(a, c, "x")), ErrorCode::kInvalid);
  EXPECT_EQ(code_of(move(a, a, "x")), ErrorCode::kInvalid);
  EXPECT_EQ(code_of(move(other, {}, "a")), ErrorCode::kExists);
  must(move(a, {}, "a"));
  must(move(b, other, "b2"));
  EXPECT_EQ(store->lookup(other, "b2")->state, b);
  EXPECT_EQ(store->lookup(a, "b").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->state(b)->parent, other);
  EXPECT_EQ(store->lookup(b, "c")->state, c);
  must(move(a, c, "now it may"));
  expect_sound();
}

TEST_F(StatesTest, AStateWithChildrenIsNotRemoved) {
  const StateId a = make("a"), b = make("b", a);
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_state(a); }), ErrorCode::kNotEmpty);
  remove(b);
  remove(a);
  EXPECT_EQ(store->state(a).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_state(a); }), ErrorCode::kNotFound);
}

TEST_F(StatesTest, AnUpdateKeepsPlaceAndVersion) {
  const StateId id = add_state("a", 1, 1);
  const StateRecord before = *store->state(id);
  must([&](WriteTransaction& t) {
    return t.update_state(id, {.name = "ignored", .mode = 0750, .params = {{"seed", "7"}}});
  });
  const StateRecord after = *store->state(id);
  EXPECT_EQ(after.name, "a");
  EXPECT_EQ(after.version, before.version);
  EXPECT_EQ(after.mode, 0750u);
  EXPECT_EQ(after.params.at("seed"), "7");
}

TEST_F(StatesTest, AVersionGoesWithTheLastThatHoldsIt) {
  const StateId id = add_state("a", 1, 2);
  const VersionId first = store->state(id)->version;
  must([&](WriteTransaction& t) { return t.hold_version(first); });
  const BlockId next = add(model.block(2, 2));
  VersionRecord longer = *store->version(first);
  longer.blocks.push_back(next);
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(const VersionId version, t.add_version(longer));
    return t.set_version(id, version);
  });
  EXPECT_EQ(store->version(first)->references, 1u);
  EXPECT_EQ(store->block(longer.blocks[0])->references, 2u);
  EXPECT_EQ(store->block(next)->references, 1u);
  expect_sound();
  must([&](WriteTransaction& t) { return t.release_version(first); });
  EXPECT_EQ(store->version(first).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->block(longer.blocks[0])->references, 1u);
  EXPECT_EQ(store->statistics().versions, 1u);
  expect_sound();
}

TEST_F(StatesTest, AVersionThatNothingRefersToIsGoneWithItsTransaction) {
  const BlockId block = add(model.block(1, 0));
  VersionId version;
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(version, t.add_version(model.version({block})));
    EXPECT_TRUE(t.version(version));
    return {};
  });
  EXPECT_EQ(store->version(version).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->statistics().versions, 0u);
}

TEST_F(StatesTest, AVersionsFactsFollowFromItsBlocks) {
  const StateId id = add_state("a", 1, 2);
  const VersionRecord version = version_of(id);
  EXPECT_EQ(version.n_tokens, 512u);
  EXPECT_EQ(version.kv_bytes, 512u * 3 * 2 * (16 + 16) * 2);
  EXPECT_EQ(version.text_bytes, model.block(1, 0).text.size() + model.block(1, 1).text.size());
  ASSERT_EQ(version.extents.size(), 3u);
  EXPECT_EQ(version.extents[0], (LayerExtent{.lengths = {512, 512}}));
  EXPECT_EQ(version.root, version_of(add_state("b", 1, 2)).root);
  EXPECT_NE(version.root, version_of(add_state("c", 2, 2)).root);
}

TEST_F(StatesTest, TheRootDependsOnContentNotOnHowHeadsWereGrouped) {
  NewBlock whole = model.block(1, 0), split = whole;
  split.pieces.clear();
  for (const KvPiece& piece : whole.pieces) {
    const std::size_t half = piece.key.size() / 2;
    for (std::uint16_t head = 0; head < 2; ++head) {
      const auto part = [&](const Bytes& bytes) {
        const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(head * half);
        return Bytes(from, from + static_cast<std::ptrdiff_t>(half));
      };
      split.pieces.push_back(
          {piece.layer, head, 1, piece.positions, part(piece.key), part(piece.value)});
    }
  }
  const VersionRecord a = version_of(add_state("a", {add(whole)}));
  const VersionRecord b = version_of(add_state("b", {add(split)}));
  EXPECT_EQ(a.root, b.root);
  EXPECT_EQ(a.extents, b.extents);
  split.pieces[0].key[0] ^= 1;
  EXPECT_NE(version_of(add_state("c", {add(split)})).root, a.root);
}

TEST_F(StatesTest, BlocksOfAnotherShapeOrOutOfOrderMakeNoVersion) {
  const BlockId first = add(model.block(1, 0)), second = add(model.block(1, 1));
  const auto add_version = [&](const VersionRecord& version) {
    return code_of([&](WriteTransaction& t) -> Status {
      KVFS_TRY(t.add_version(version));
      return {};
    });
  };
  EXPECT_EQ(add_version(model.version({second, first})), ErrorCode::kInvalid);
  EXPECT_EQ(add_version(model.version({first, first})), ErrorCode::kInvalid);
  EXPECT_EQ(add_version(model.version({{777}})), ErrorCode::kNotFound);
  VersionRecord wider = model.version({first});
  wider.layers[0].key_width = 32;
  EXPECT_EQ(add_version(wider), ErrorCode::kInvalid);
  VersionRecord fewer = model.version({first});
  fewer.layers.pop_back();
  EXPECT_EQ(add_version(fewer), ErrorCode::kInvalid);
}

TEST_F(StatesTest, AnUnfinishedJobHoldsItsBase) {
  const StateId id = add_state("a", 1, 1);
  const VersionId base = store->state(id)->version;
  JobId job;
  JobRecord record{.state = id, .name = "q", .kind = JobKind::kAsk, .prompt = "why?"};
  must([&](WriteTransaction& t) -> Status {
    KVFS_ASSIGN(job, t.add_job(record));
    return {};
  });
  record.status = JobStatus::kRunning;
  record.base = base;
  must([&](WriteTransaction& t) { return t.update_job(job, record); });
  must([&](WriteTransaction& t) { return t.update_job(job, record); });
  EXPECT_EQ(store->version(base)->references, 2u);
  must([&](WriteTransaction& t) { return t.set_version(id, {}); });
  EXPECT_EQ(store->version(base)->references, 1u);
  expect_sound();
  record.status = JobStatus::kDone;
  must([&](WriteTransaction& t) { return t.update_job(job, record); });
  EXPECT_FALSE(store->version(base));
  EXPECT_EQ(store->job(job)->status, JobStatus::kDone);
  EXPECT_EQ(store->job(job)->prompt, "why?");
  must([&](WriteTransaction& t) { return t.update_job(job, record); });
  expect_sound();
}

TEST_F(StatesTest, JobsAreListedByIdAndGoWithTheirState) {
  const StateId a = make("a"), b = make("b");
  std::vector<JobId> ids;
  must([&](WriteTransaction& t) -> Status {
    for (StateId state : {a, b, a, b}) {
      KVFS_ASSIGN(const JobId id, t.add_job({.state = state, .status = JobStatus::kDone}));
      ids.push_back(id);
    }
    KVFS_ASSIGN(const JobId queued, t.add_job({.state = a}));
    ids.push_back(queued);
    return {};
  });
  EXPECT_EQ(store->jobs()->size(), 5u);
  EXPECT_EQ(store->jobs_of(a)->size(), 3u);
  EXPECT_EQ(store->jobs_of(b)->at(1).first, ids[3]);
  remove(a);
  ASSERT_EQ(store->jobs()->size(), 3u);
  EXPECT_EQ(store->jobs()->at(2).first, ids[4]) << "it may still run";
  must([&](WriteTransaction& t) {
    return t.update_job(ids[4], {.state = a, .status = JobStatus::kCanceled});
  });
  EXPECT_EQ(store->jobs()->size(), 2u);
  must([&](WriteTransaction& t) { return t.remove_job(ids[1]); });
  EXPECT_EQ(store->jobs_of(b)->size(), 1u);
}

TEST_F(StatesTest, FilesLieBesideTheirStateAndGoWithIt) {
  const StateId a = make("a"), b = make("b");
  must([&](WriteTransaction& t) -> Status {
    KVFS_TRY(t.put_file(a, FileArea::kReply, "q", {.content = "a reply"}));
    KVFS_TRY(t.put_file(a, FileArea::kUser, "q", {.content = std::string(300'000, 'n')}));
    KVFS_TRY(t.put_file(b, FileArea::kUser, "n", {.content = "b's"}));
    return {};
  });
  EXPECT_EQ(store->file(a, FileArea::kReply, "q")->content, "a reply");
  EXPECT_EQ(store->file(a, FileArea::kUser, "q")->content.size(), 300'000u);
  EXPECT_EQ(store->files(a, FileArea::kUser)->size(), 1u);
  EXPECT_TRUE(store->files(a, FileArea::kKept)->empty());
  EXPECT_EQ(code_of([&](WriteTransaction& t) { return t.remove_file(a, FileArea::kKept, "q"); }),
            ErrorCode::kNotFound);
  must([&](WriteTransaction& t) { return t.remove_file(a, FileArea::kReply, "q"); });
  EXPECT_EQ(store->file(a, FileArea::kReply, "q").error().code, ErrorCode::kNotFound);
  remove(a);
  EXPECT_EQ(store->file(a, FileArea::kUser, "q").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(store->file(b, FileArea::kUser, "n")->content, "b's");
}

}  // namespace
}  // namespace kvfs::store
