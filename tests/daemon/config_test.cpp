#include "daemon/config.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "daemon/settings.h"

namespace kvfs::daemon {
namespace {

namespace stdfs = std::filesystem;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    directory_ = stdfs::temp_directory_path() / ("kvfs-config-" + std::to_string(::getpid()));
    stdfs::create_directories(directory_);
    around_.variable = [this](const std::string& name) -> std::optional<std::string> {
      const auto found = variables_.find(name);
      if (found == variables_.end()) return std::nullopt;
      return found->second;
    };
    around_.uid = 1000;
    around_.home = "/home/ada";
    around_.program_directory = directory_ / "bin";
    around_.working_directory = directory_;
  }
  ~ConfigTest() override { stdfs::remove_all(directory_); }

  std::string write_file(const std::string& text) {
    const stdfs::path path = directory_ / "kvfsd.toml";
    std::ofstream(path) << text;
    return path.string();
  }
  Result<ConfigOrText> read(std::vector<std::string> words) {
    std::vector<const char*> argv{"kvfsd"};
    for (const std::string& word : words) argv.push_back(word.c_str());
    return read_config(static_cast<int>(argv.size()), argv.data(), around_);
  }
  Config config(std::vector<std::string> words) {
    auto read_back = read(std::move(words));
    EXPECT_TRUE(read_back) << (read_back ? "" : read_back.error().message());
    if (!read_back || !std::holds_alternative<Config>(*read_back)) return {};
    return std::get<Config>(*std::move(read_back));
  }
  std::string refusal(std::vector<std::string> words) {
    const auto read_back = read(std::move(words));
    EXPECT_FALSE(read_back);
    if (read_back) return {};
    EXPECT_EQ(read_back.error().code, ErrorCode::kInvalid);
    return read_back.error().message();
  }

  stdfs::path directory_;
  std::map<std::string, std::string> variables_;
  Surroundings around_;
};

TEST_F(ConfigTest, MountSaysWhereAndFstabsOptionsAreSettingsToo) {
  const Config made = config({"/srv/store", "/mnt/there", "-o",
                              "rw,nofail,x-systemd.automount,allow_other,model=/m/a.gguf,"
                              "memory=2G,share-prefixes,model=/m/b.gguf"});
  EXPECT_EQ(made.store, "/srv/store");
  EXPECT_EQ(made.mount, "/mnt/there");
  EXPECT_EQ(made.models, (std::vector<std::string>{"/m/a.gguf", "/m/b.gguf"}));
  EXPECT_EQ(made.memory, std::uint64_t{2} << 30);
  EXPECT_TRUE(made.share_prefixes);
  EXPECT_EQ(made.fuse_options, (std::vector<std::string>{"rw", "allow_other"}));

  EXPECT_EQ(config({"/mnt/there"}).mount, "/mnt/there");
  EXPECT_EQ(config({"--mount", "/mnt/here", "/mnt/there"}).mount, "/mnt/here");  // the flag wins
  EXPECT_EQ(config({"--memory", "1G", "-o", "memory=2G"}).memory, std::uint64_t{1} << 30);
  EXPECT_THAT(refusal({"-o", "memory=much"}), testing::HasSubstr("'much'"));
  EXPECT_THAT(refusal({"/a", "/b", "/c"}), testing::HasSubstr("kvfsd --help"));
}

TEST_F(ConfigTest, TheFlagWinsThenTheVariableThenTheFile) {
  const std::string file = write_file("threads = 1\nstore = \"/of/file\"\nmount = \"/of/file\"\n");
  variables_ = {{"KVFS_STORE", "/of/variable"}, {"KVFS_MOUNT", "/of/variable"}};
  const Config got = config({"--config", file, "--mount", "/of/flag"});
  EXPECT_EQ(got.threads, 1);
  EXPECT_EQ(got.store, "/of/variable");
  EXPECT_EQ(got.mount, "/of/flag");
}

TEST_F(ConfigTest, AVariableMayNameTheFile) {
  variables_["KVFS_CONFIG"] = write_file("no-mount = true\n");
  EXPECT_TRUE(config({}).no_mount);
  EXPECT_FALSE(config({"--no-mount=false"}).no_mount);
}

TEST_F(ConfigTest, UsersGetXdgPlacesAndRootTheSystems) {
  Config got = config({});
  EXPECT_EQ(got.store, "/home/ada/.local/share/kvfs");
  EXPECT_EQ(got.mount, "/home/ada/kvfs");
  EXPECT_EQ(got.socket, "/tmp/kvfs-1000/kvfs.sock");
  variables_ = {{"XDG_DATA_HOME", "/data"}, {"XDG_RUNTIME_DIR", "/run/user/1000"}};
  got = config({});
  EXPECT_EQ(got.store, "/data/kvfs");
  EXPECT_EQ(got.socket, "/run/user/1000/kvfs/kvfs.sock");
  around_.root = true;
  got = config({"--config", write_file("")});
  EXPECT_EQ(got.store, "/var/lib/kvfs");
  EXPECT_EQ(got.mount, "/mnt/kvfs");
  EXPECT_EQ(got.socket, "/run/kvfs/kvfs.sock");
}

TEST_F(ConfigTest, ListsKeepTheirOrder) {
  EXPECT_EQ(config({"--model", "a", "--model", "b"}).models, (std::vector<std::string>{"a", "b"}));
  variables_["KVFS_MODEL"] = "c:d";
  EXPECT_EQ(config({}).models, (std::vector<std::string>{"c", "d"}));
  variables_.clear();
  const std::string file = write_file("model = [\"e\", \"f\"]\n");
  EXPECT_EQ(config({"--config", file}).models, (std::vector<std::string>{"e", "f"}));
  EXPECT_EQ(config({"-o", "noblock,allow_other", "-o", "ro"}).fuse_options,
            (std::vector<std::string>{"noblock", "allow_other", "ro"}));
}

TEST_F(ConfigTest, RelativePathsBecomeAbsolute) {
  EXPECT_EQ(config({"--store", "data/../here"}).store, directory_ / "here");
}

TEST_F(ConfigTest, ValuesMeanWhatTheHelpSays) {
  const Config got = config({"--device", "cuda:3", "--compute", "reference", "--kv-budget", "2G",
                             "--memory", "12g", "--listen", "[::1]:8470", "--threads", "8"});
  EXPECT_EQ(got.device.kind, model::DeviceChoice::Kind::kCuda);
  EXPECT_EQ(got.device.index, 3);
  EXPECT_EQ(got.compute, model::Compute::kReference);
  EXPECT_EQ(got.kv_budget, std::uint64_t{2} << 30);
  EXPECT_EQ(got.memory, std::uint64_t{12} << 30);
  ASSERT_TRUE(got.listen);
  EXPECT_EQ(got.listen->host, "::1");
  EXPECT_EQ(got.listen->port, 8470);
  EXPECT_EQ(got.threads, 8);
}

TEST_F(ConfigTest, UnknownFlagsAndKeysAreRefusedByName) {
  EXPECT_NE(refusal({"--frobnicate"}).find("frobnicate"), std::string::npos);
  const std::string file = write_file("threads = 2\nthread = 3\n");
  EXPECT_NE(refusal({"--config", file}).find("'thread'"), std::string::npos);
  EXPECT_NE(refusal({"--config", write_file("check = true\n")}).find("'check'"), std::string::npos);
}

TEST_F(ConfigTest, ABadValueNamesWhereItStands) {
  EXPECT_TRUE(refusal({"--device", "abacus"}).starts_with("--device 'abacus'"));
  variables_["KVFS_COMPUTE"] = "slow";
  EXPECT_TRUE(refusal({}).starts_with("KVFS_COMPUTE 'slow'"));
  variables_.clear();
  const std::string file = write_file("threads = -1\n");
  EXPECT_TRUE(refusal({"--config", file}).starts_with(file + ": threads '-1'"));
  EXPECT_NE(refusal({"--config", write_file("store = [\n")}).find("line"), std::string::npos);
  EXPECT_NE(refusal({"--config", write_file("[store]\na = 1\n")}).find("'store'"),
            std::string::npos);
  for (const char* budget : {"", "-1", "12X", "G", "99999999T"}) {
    EXPECT_TRUE(refusal({"--kv-budget", budget}).starts_with("--kv-budget")) << budget;
  }
  for (const char* address : {"8470", ":8470", "host:", "host:99999", "host:port"}) {
    EXPECT_TRUE(refusal({"--listen", address}).starts_with("--listen")) << address;
  }
}

TEST_F(ConfigTest, AMissingFileIsAnErrorOnlyWhenNamed) {
  EXPECT_TRUE(config({}).config_file.empty());
  EXPECT_NE(refusal({"--config", "/nowhere.toml"}).find("/nowhere.toml"), std::string::npos);
}

TEST_F(ConfigTest, ListeningBeyondThisMachineNeedsAToken) {
  EXPECT_NE(refusal({"--listen", "0.0.0.0:8470"}).find("--token-file"), std::string::npos);
  EXPECT_TRUE(config({"--listen", "0.0.0.0:8470", "--token-file", "/t"}).listen);
  EXPECT_TRUE(config({"--listen", "127.0.0.1:8470"}).listen);
}

TEST_F(ConfigTest, HelpNamesEverySetting) {
  const auto help = read({"--help"});
  ASSERT_TRUE(help);
  ASSERT_TRUE(std::holds_alternative<std::string>(*help));
  for (const Setting& setting : settings()) {
    EXPECT_NE(std::get<std::string>(*help).find("--" + std::string(setting.name)),
              std::string::npos)
        << setting.name;
  }
}

}  // namespace
}  // namespace kvfs::daemon
