#include "daemon/config.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <ranges>
#include <system_error>

#include <toml++/toml.h>
#include <CLI/CLI.hpp>

#include "daemon/settings.h"

namespace kvfs::daemon {
namespace {

namespace fs = std::filesystem;

// One layer's raw values by setting's name.
using Layer = std::map<std::string, std::vector<std::string>, std::less<>>;

constexpr const char* kVersion = "kvfsd " KVFS_VERSION;

struct CommandLine {
  Layer values;
  std::string text;  // not empty: print it and leave
};

const Setting* setting_of(std::string_view name) {
  const auto found = std::ranges::find(settings(), name, &Setting::name);
  return found == settings().end() ? nullptr : &*found;
}

// What mount(8) hands through and means itself.
bool is_mounts_own(std::string_view word) {
  constexpr std::array kWords{"auto",  "noauto", "defaults", "nofail", "_netdev",
                              "group", "owner",  "user",     "users",  "nouser"};
  return word.starts_with("x-") || std::ranges::find(kWords, word) != kWords.end();
}

// Settings among the words of -o become what they are; a flag of the same name wins.
void take_settings_of_options(Layer& layer) {
  const auto options = layer.find("fuse-options");
  if (options == layer.end()) return;
  Layer found;
  std::string rest;
  for (const std::string& list : options->second) {
    for (const auto part : std::views::split(list, ',')) {
      const std::string word(part.begin(), part.end());
      const std::size_t equals = std::min(word.find('='), word.size());
      const Setting* setting = setting_of(std::string_view(word).substr(0, equals));
      const bool whole = setting != nullptr && setting != setting_of("fuse-options") &&
                         (equals < word.size() || setting->kind == Setting::Kind::kSwitch);
      if (whole) {
        found[std::string(setting->name)].push_back(equals < word.size() ? word.substr(equals + 1)
                                                                         : "true");
      } else if (!is_mounts_own(word)) {
        rest += (rest.empty() ? "" : ",") + word;
      }
    }
  }
  options->second = {rest};
  layer.merge(found);
}

Result<CommandLine> parse_command_line(int argc, const char* const* argv) {
  CLI::App app("keeps what language models have read, and shows it as a filesystem", "kvfsd");
  app.set_version_flag("--version", kVersion);
  app.footer(
      "Every flag is also a key of the TOML file and a variable KVFS_…; the flag wins, then the\n"
      "variable, then the file. It may stand in -o too, as name=value, for /etc/fstab:\n"
      "  /var/lib/kvfs /mnt/kvfs fuse.kvfsd allow_other,model=/srv/models/a.gguf 0 0\n"
      "Exit codes: 1 failure, 2 usage, 3 store, 4 model, 5 mount.");
  std::map<std::string, CLI::Option*, std::less<>> options;
  for (const Setting& setting : settings()) {
    const std::string flags(setting.flags);
    const std::string help(setting.help);
    CLI::Option* option = setting.kind == Setting::Kind::kSwitch
                              ? app.add_flag(flags, help)
                              : app.add_option_function<std::vector<std::string>>(
                                    flags, [](const std::vector<std::string>&) {}, help);
    if (setting.kind != Setting::Kind::kSwitch) {
      option->expected(1)->allow_extra_args(false);
      option->type_name(std::string(setting.value_name));
      option->multi_option_policy(setting.kind == Setting::Kind::kList
                                      ? CLI::MultiOptionPolicy::TakeAll
                                      : CLI::MultiOptionPolicy::TakeLast);
    }
    options.emplace(setting.name, option);
  }
  std::vector<std::string> places;
  app.add_option("PLACE", places, "MOUNT, or STORE and MOUNT: what mount(8) says")
      ->expected(-1)
      ->option_text(" ");
  CommandLine out;
  try {
    app.parse(argc, const_cast<char**>(argv));
  } catch (const CLI::CallForHelp&) {
    out.text = app.help();
    return out;
  } catch (const CLI::CallForVersion&) {
    out.text = std::string(kVersion) + "\n";
    return out;
  } catch (const CLI::ParseError& error) {
    return fail(ErrorCode::kInvalid, "command line", error.what(), "see kvfsd --help");
  }
  for (const auto& [name, option] : options) {
    if (option->count() > 0) out.values[name] = option->results();
  }
  if (places.size() > 2) {
    return fail(ErrorCode::kInvalid, "command line", "'" + places[2] + "' is one place too many",
                "see kvfsd --help");
  }
  if (!places.empty()) out.values.insert({"mount", {places.back()}});
  if (places.size() == 2) out.values.insert({"store", {places.front()}});
  take_settings_of_options(out.values);
  return out;
}

Layer read_variables(const Surroundings& around) {
  Layer layer;
  for (const Setting& setting : settings()) {
    const std::optional<std::string> value = around.variable(setting.variable());
    if (!value || value->empty()) continue;
    auto& values = layer[std::string(setting.name)];
    if (setting.kind != Setting::Kind::kList) {
      values = {*value};
      continue;
    }
    std::string_view rest = *value;  // a list is separated as PATH is
    while (!rest.empty()) {
      const std::size_t colon = std::min(rest.find(':'), rest.size());
      if (colon > 0) values.emplace_back(rest.substr(0, colon));
      rest.remove_prefix(std::min(colon + 1, rest.size()));
    }
    if (values.empty()) layer.erase(std::string(setting.name));
  }
  return layer;
}

std::optional<std::string> scalar(const toml::node& node) {
  if (const auto text = node.value_exact<std::string>()) return *text;
  if (const auto truth = node.value_exact<bool>()) return *truth ? "true" : "false";
  if (const auto number = node.value_exact<std::int64_t>()) return std::to_string(*number);
  return std::nullopt;
}

Result<std::vector<std::string>> file_values(const Setting& setting, const toml::node& node,
                                             const std::string& where) {
  std::vector<std::string> values;
  const toml::array* array = node.as_array();
  if (array != nullptr && setting.kind == Setting::Kind::kList) {
    for (const toml::node& element : *array) {
      const auto text = scalar(element);
      if (!text) return fail(ErrorCode::kInvalid, where, "its elements are not strings");
      values.push_back(*text);
    }
  } else if (const auto text = scalar(node)) {
    values.push_back(*text);
  } else {
    return fail(ErrorCode::kInvalid, where, "not a string, number or truth value");
  }
  return values;
}

Result<Layer> read_file(const fs::path& path) {
  Layer layer;
  toml::table table;
  try {
    table = toml::parse_file(path.string());
  } catch (const toml::parse_error& error) {
    return fail(ErrorCode::kInvalid,
                path.string() + " line " + std::to_string(error.source().begin.line),
                std::string(error.description()), "correct it, or name another with --config");
  }
  for (const auto& [key, node] : table) {
    std::string name(key.str());
    std::replace(name.begin(), name.end(), '_', '-');
    const std::string where = path.string() + ": key '" + std::string(key.str()) + "'";
    const Setting* found = setting_of(name);
    if (found == nullptr || !found->in_file) {
      return fail(ErrorCode::kInvalid, where, "no such setting",
                  "remove it; kvfsd --help lists them, without the two dashes");
    }
    KVFS_ASSIGN(auto values, file_values(*found, node, where));
    if (!values.empty()) layer[name] = std::move(values);
  }
  return layer;
}

// origin: "--threads", "KVFS_THREADS", …: what the user has to correct.
Status apply_layer(Config& config, const Layer& layer,
                   const std::function<std::string(const Setting&)>& origin) {
  for (const Setting& setting : settings()) {
    const auto found = layer.find(setting.name);
    if (found == layer.end()) continue;
    if (Status status = setting.apply(config, found->second); !status) {
      Error error = std::move(status).error();
      error.what = origin(setting) + " " + error.what;
      return fail(std::move(error));
    }
  }
  return {};
}

fs::path xdg(const Surroundings& around, const char* variable, const char* below_home) {
  const auto value = around.variable(variable);
  if (value && value->starts_with('/')) return *value;
  return around.home / below_home;
}

// Installed: PREFIX/share/kvfs/models; in a build tree: build/deps/models.
fs::path default_models_directory(const Surroundings& around, const fs::path& data) {
  for (const char* place : {"../share/kvfs/models", "../../deps/models"}) {
    std::error_code ignored;
    const fs::path path = (around.program_directory / place).lexically_normal();
    if (fs::is_directory(path, ignored)) return path;
  }
  return data / "models";
}

Config defaults(const Surroundings& around) {
  Config config;
  if (around.root) {
    config.store = "/var/lib/kvfs";
    config.mount = "/mnt/kvfs";
    config.config_file = "/etc/kvfs/kvfsd.toml";
    config.socket = "/run/kvfs/kvfs.sock";
  } else {
    config.store = xdg(around, "XDG_DATA_HOME", ".local/share") / "kvfs";
    config.mount = around.home / "kvfs";
    config.config_file = xdg(around, "XDG_CONFIG_HOME", ".config") / "kvfs/kvfsd.toml";
    const auto runtime = around.variable("XDG_RUNTIME_DIR");
    config.socket = runtime && runtime->starts_with('/')
                        ? fs::path(*runtime) / "kvfs/kvfs.sock"
                        : fs::path("/tmp/kvfs-" + std::to_string(around.uid)) / "kvfs.sock";
  }
  config.models_directory = default_models_directory(around, config.store);
  return config;
}

void make_absolute(Config& config, const Surroundings& around) {
  for (fs::path* path : {&config.store, &config.mount, &config.models_directory, &config.socket,
                         &config.token_file, &config.config_file}) {
    if (!path->empty()) *path = (around.working_directory / *path).lexically_normal();
  }
  // A model is a path or a name: what is there from here is a path.
  for (std::string& model : config.models) {
    const fs::path path = (around.working_directory / model).lexically_normal();
    if (std::error_code ignored; fs::exists(path, ignored)) model = path.string();
  }
}

Status check_together(const Config& config) {
  if (config.listen && config.token_file.empty() && config.listen->host != "localhost" &&
      config.listen->host != "::1" && !config.listen->host.starts_with("127.")) {
    return fail(ErrorCode::kInvalid, "--listen " + config.listen->host,
                "not a loopback address, so others could read the prompts",
                "give --token-file FILE with a secret, or listen on 127.0.0.1");
  }
  return {};
}

}  // namespace

Result<ConfigOrText> read_config(int argc, const char* const* argv, const Surroundings& around) {
  KVFS_ASSIGN(CommandLine line, parse_command_line(argc, argv));
  if (!line.text.empty()) return ConfigOrText(std::move(line.text));
  const Layer variables = read_variables(around);
  const auto flag_name = [](const Setting& s) { return "--" + std::string(s.name); };
  const auto variable_name = [](const Setting& s) { return s.variable(); };

  // Twice: the flags and variables also say which file is read, and then win over it.
  Config config = defaults(around);
  const fs::path default_file = config.config_file;
  KVFS_TRY(apply_layer(config, variables, variable_name));
  KVFS_TRY(apply_layer(config, line.values, flag_name));
  const fs::path file = around.working_directory / config.config_file;
  std::error_code ignored;
  const bool named = line.values.contains("config") || variables.contains("config");
  if (!fs::exists(file, ignored)) {
    if (named) {
      return fail(ErrorCode::kInvalid, "--config " + file.string(), "no such file",
                  "correct the path, or leave the flag out");
    }
    config.config_file.clear();
  } else {
    KVFS_ASSIGN(const Layer layer, read_file(file));
    config = defaults(around);
    KVFS_TRY(apply_layer(config, layer, [&](const Setting& s) {
      return file.string() + ": " + std::string(s.name);
    }));
    KVFS_TRY(apply_layer(config, variables, variable_name));
    KVFS_TRY(apply_layer(config, line.values, flag_name));
    config.config_file = file;
  }
  make_absolute(config, around);
  KVFS_TRY(check_together(config));
  return ConfigOrText(std::move(config));
}

Surroundings surroundings_of_process() {
  Surroundings around;
  around.variable = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
  around.uid = geteuid();
  around.root = around.uid == 0;
  const passwd* user = getpwuid(around.uid);
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') {
    around.home = home;
  } else {
    around.home = user != nullptr ? user->pw_dir : "/";
  }
  std::error_code ignored;
  around.program_directory = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  around.working_directory = fs::current_path(ignored);
  return around;
}

}  // namespace kvfs::daemon
