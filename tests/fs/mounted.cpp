#include "tests/fs/mounted.h"

#include <cstdlib>
#include <sstream>
#include <stdexcept>

namespace kvfs::fs::test {

namespace stdfs = std::filesystem;

stdfs::path fresh_directory(const std::string& stem) {
  std::string pattern = (stdfs::temp_directory_path() / (stem + "-XXXXXX")).string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
  return pattern;
}

MountedHouse::MountedHouse(std::unique_ptr<sched::test::House> house,
                           std::vector<std::string> options)
    : root_(fresh_directory("kvfs-mount")), house_(std::move(house)) {
  house_->scheduler().set_listener([this](const sched::Event& event) {
    Mount* mount = listening_;
    if (mount == nullptr) return;
    if (event.kind == sched::Event::Kind::kAdvanced) {
      mount->advanced(event.state);
    } else {
      mount->job_changed(event.state, event.job);
    }
  });
  mount(options);
}

MountedHouse::~MountedHouse() {
  unmount();
  house_->scheduler().stop();  // an event on its way may still reach the mount
  mount_.reset();
  house_.reset();
  std::error_code ignored;
  stdfs::remove(root_, ignored);
}

void MountedHouse::mount(const std::vector<std::string>& options) {
  auto mounted = Mount::start(house_->store(), house_->scheduler(), house_->catalog(),
                              {.mount_point = root_,
                               .fuse_options = options,
                               .store_directory = stdfs::temp_directory_path()});
  if (!mounted) throw std::runtime_error(mounted.error().message());
  mount_ = *std::move(mounted);
  listening_ = mount_.get();
}

void MountedHouse::unmount() {
  listening_ = nullptr;
  if (mount_) mount_->stop();
}

void Mounted::SetUp() {
  house_ = std::make_unique<MountedHouse>(std::make_unique<sched::test::House>(controls_));
}

void Mounted::TearDown() { house_.reset(); }

void Mounted::remount(const std::vector<std::string>& options) {
  house_->unmount();
  house_->mount(options);
}

stdfs::path Mounted::make_state(const std::string& name, int tokens) {
  const stdfs::path state = states() / name;
  stdfs::create_directory(state);
  EXPECT_EQ(write_file(state / "params/template", "raw"), 0);
  EXPECT_EQ(write_file(state / "params/temperature", "0"), 0);
  EXPECT_EQ(write_file(state / "params/max_tokens", std::to_string(tokens)), 0);
  return state;
}

std::string Mounted::status_of(const stdfs::path& state, const std::string& job) {
  std::istringstream status(read_file(state / "status"));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(job + " ")) return line;
  }
  return {};
}

bool Mounted::is_done(const stdfs::path& state, const std::string& job) {
  return status_of(state, job).starts_with(job + " done");
}

void Mounted::do_job(const stdfs::path& file, const std::string& prompt) {
  ASSERT_EQ(write_file(file, prompt), 0) << file;
  const stdfs::path state = file.parent_path().parent_path();
  const std::string job = file.filename();
  ASSERT_TRUE(eventually([&] { return is_done(state, job); })) << read_file(state / "status");
}

}  // namespace kvfs::fs::test
