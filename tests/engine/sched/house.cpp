#include "tests/engine/sched/house.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <future>
#include <stdexcept>
#include <thread>

#include "engine/store/digests.h"
#include "engine/store/views.h"

namespace kvfs::sched::test {
namespace {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return *std::move(result);
}

std::filesystem::path fresh_directory() {
  std::string pattern = (std::filesystem::temp_directory_path() / "kvfs-sched-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
  return pattern;
}

std::string read_all(store::FileView& view) {
  std::string out(view.size(), '\0');
  const auto got = must(view.read(0, {reinterpret_cast<std::uint8_t*>(out.data()), out.size()}));
  out.resize(got);
  return out;
}

std::string hash_of(store::FileView& view) {
  return to_hex(store::hash128(as_bytes(read_all(view))));
}

}  // namespace

House::House(FakeControls& controls, std::vector<std::string> models)
    : directory_(fresh_directory()) {
  for (const auto& name : models) {
    const auto path = directory_ / (name + ".gguf");
    std::ofstream(path) << "fake";
    catalog_options_.models.push_back(path.string());
  }
  catalog_options_.read = [&controls](const std::filesystem::path& path, model::Compute,
                                      const model::DeviceChoice&, const std::filesystem::path&) {
    return fake_card(path, controls);
  };
  options.load = [&controls](const model::ModelCard& card,
                             const model::LoadOptions&) -> Result<std::unique_ptr<model::Model>> {
    return fake_model(card, controls);
  };
  open();
}

House::House(const std::filesystem::path& real_model) : directory_(fresh_directory()) {
  catalog_options_.models = {real_model.string()};
  options.threads = 2;
  open();
}

House::~House() {
  scheduler_.reset();
  catalog_.reset();
  store_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void House::open() {
  store_ = must(store::Store::open({.directory = directory_ / "store"}));
  catalog_ = must(Catalog::open(catalog_options_));
  scheduler_ = must(Scheduler::start(*store_, *catalog_, options));
}

void House::reopen(std::function<void()> between) {
  scheduler_.reset();
  catalog_.reset();
  store_.reset();
  between();
  open();
}

StateId House::make(const std::string& name, const ParamMap& params, StateId parent,
                    std::uint32_t uid) {
  std::promise<Result<StateId>> promise;
  create_state(*store_, parent, name, {uid, uid}, 0700, params,
               [&](Result<StateId> id) { promise.set_value(std::move(id)); });
  return must(promise.get_future().get());
}

Submission House::submission(StateId state, store::JobKind kind, const std::string& text,
                             const ParamMap& overrides) {
  return {.state = state,
          .kind = kind,
          .name = "job" + std::to_string(next_job_++),
          .prompt = text,
          .overrides = overrides};
}

std::string House::submit(Submission submission) {
  must(scheduler_->submit(submission));
  return submission.name;
}

Outcome House::wait(StateId state, const std::string& job) {
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (std::chrono::steady_clock::now() < patience) {
    for (const auto& view : scheduler_->jobs(state)) {
      if (view.record.name != job || view.record.status < store::JobStatus::kDone) continue;
      Outcome out{view.record, ""};
      const auto reply = must(scheduler_->reply(state, job));
      out.text.resize(reply->size());
      if (!out.text.empty()) {
        must(reply->read(0, {reinterpret_cast<std::uint8_t*>(out.text.data()), out.text.size()}));
      }
      return out;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  throw std::runtime_error("job " + job + " does not end: " + scheduler_->status_text(state));
}

Outcome House::run(StateId state, store::JobKind kind, const std::string& text,
                   const ParamMap& overrides) {
  return wait(state, submit(submission(state, kind, text, overrides)));
}

Outcome House::step(StateId state, std::int32_t steps) {
  auto what = submission(state, store::JobKind::kStep, "");
  what.steps = steps;
  return wait(state, submit(what));
}

store::VersionRecord House::version(StateId state) {
  return must(store_->version(must(store_->state(state)).version));
}

std::map<std::string, std::string> House::files(StateId state) {
  const auto record = version(state);
  std::map<std::string, std::string> out;
  out["text"] = read_all(*must(store::text_view(*store_, record)));
  out["tokens.npy"] = hash_of(*must(store::tokens_view(*store_, record)));
  out["root"] = record.root.hex();
  for (std::uint16_t layer = 0; layer < record.layers.size(); ++layer) {
    out["kv/" + std::to_string(layer)] = hash_of(*must(store::layer_view(*store_, record, layer)));
  }
  return out;
}

std::string House::text(StateId state) { return files(state)["text"]; }

std::string long_text(std::size_t bytes, const std::string& seed) {
  std::string out = seed;
  for (std::size_t i = 0; out.size() < bytes; ++i) out += "line " + std::to_string(i) + ". ";
  out.resize(bytes);
  return out;
}

}  // namespace kvfs::sched::test
