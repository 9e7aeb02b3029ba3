#include "daemon/settings.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

namespace kvfs::daemon {
namespace {

using Values = std::vector<std::string>;
using Kind = Setting::Kind;

tl::unexpected<Error> refuse(std::string value, std::string wanted) {
  return fail(ErrorCode::kInvalid, "'" + std::move(value) + "'", "not understood",
              "wanted: " + std::move(wanted));
}

template <class Number>
bool parse_number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

Status set_path(std::filesystem::path& target, const Values& values) {
  if (values.back().empty()) return refuse("", "a path");
  target = values.back();
  return {};
}

Status set_switch(bool& target, const Values& values) {
  const std::string& value = values.back();
  for (const char* yes : {"true", "1", "yes", "on"}) {
    if (value == yes) return target = true, Status{};
  }
  for (const char* no : {"false", "0", "no", "off", ""}) {
    if (value == no) return target = false, Status{};
  }
  return refuse(value, "true or false");
}

Status set_device(Config& config, const Values& values) {
  using Choice = model::DeviceChoice;
  const std::string& value = values.back();
  if (value == "auto") return config.device = Choice{}, Status{};
  if (value == "cpu") return config.device = Choice{Choice::Kind::kCpu, 0}, Status{};
  if (value == "cuda") return config.device = Choice{Choice::Kind::kCuda, 0}, Status{};
  int index = 0;
  if (value.starts_with("cuda:") && parse_number(std::string_view(value).substr(5), index) &&
      index >= 0) {
    return config.device = Choice{Choice::Kind::kCuda, index}, Status{};
  }
  return refuse(value, "auto, cpu, cuda or cuda:N");
}

Status set_compute(Config& config, const Values& values) {
  const std::string& value = values.back();
  if (value != "fast" && value != "reference") return refuse(value, "fast or reference");
  config.compute = value == "fast" ? model::Compute::kFast : model::Compute::kReference;
  return {};
}

// HOST:PORT or [IPV6]:PORT.
Status set_listen(Config& config, const Values& values) {
  const std::string& value = values.back();
  const std::size_t colon = value.rfind(':');
  ListenAddress address;
  if (colon == std::string::npos || colon == 0 ||
      !parse_number(std::string_view(value).substr(colon + 1), address.port)) {
    return refuse(value, "HOST:PORT, such as 127.0.0.1:8470 or [::1]:8470");
  }
  address.host = value.substr(0, colon);
  if (address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  config.listen = std::move(address);
  return {};
}

Status set_log_level(Config& config, const Values& values) {
  constexpr std::array kLevels{"trace", "debug", "info", "warning", "error", "off"};
  if (std::find(kLevels.begin(), kLevels.end(), values.back()) == kLevels.end()) {
    return refuse(values.back(), "trace, debug, info, warning, error or off");
  }
  config.log_level = values.back();
  return {};
}

Status set_fuse_options(Config& config, const Values& values) {
  config.fuse_options.clear();
  for (std::string_view rest : values) {
    while (!rest.empty()) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      if (comma > 0) config.fuse_options.emplace_back(rest.substr(0, comma));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return {};
}

Status set_threads(Config& config, const Values& values) {
  int threads = 0;
  if (!parse_number(std::string_view(values.back()), threads) || threads < 0 || threads > 1024) {
    return refuse(values.back(), "0 (one a physical core) to 1024");
  }
  config.threads = threads;
  return {};
}

// A number of bytes, or of K, M, G, T (powers of 1024).
Status set_bytes(std::uint64_t& target, const Values& values) {
  constexpr std::string_view kUnits = "KMGT";
  std::string_view text = values.back();
  unsigned shift = 0;
  if (!text.empty()) {
    const std::size_t unit = kUnits.find(static_cast<char>(std::toupper(text.back())));
    if (unit != std::string_view::npos) {
      shift = 10 * (static_cast<unsigned>(unit) + 1);
      text.remove_suffix(1);
    }
  }
  std::uint64_t number = 0;
  if (!parse_number(text, number) || number > (std::uint64_t{1} << 50 >> shift)) {
    return refuse(values.back(), "a number of bytes, such as 4294967296, 512M or 4G");
  }
  target = number << shift;
  return {};
}

constexpr std::array kSettings{
    Setting{"store", "--store", Kind::kValue, "DIR", "where states are kept", true,
            [](Config& c, const Values& v) { return set_path(c.store, v); }},
    Setting{"mount", "--mount", Kind::kValue, "DIR", "where the filesystem appears", true,
            [](Config& c, const Values& v) { return set_path(c.mount, v); }},
    Setting{"model", "--model", Kind::kList, "NAME_OR_PATH",
            "a model: a .gguf file or a name in --models; repeatable, the first is the default",
            true, [](Config& c, const Values& v) { return c.models = v, Status{}; }},
    Setting{"models", "--models", Kind::kValue, "DIR", "where models are found by name", true,
            [](Config& c, const Values& v) { return set_path(c.models_directory, v); }},
    Setting{"device", "--device", Kind::kValue, "auto|cpu|cuda|cuda:N", "where models run", true,
            set_device},
    Setting{"compute", "--compute", Kind::kValue, "fast|reference",
            "reference: plain fp32, the yardstick of the fast kernels", true, set_compute},
    Setting{"threads", "--threads", Kind::kValue, "N",
            "CPU threads of the model; 0: one a physical core", true, set_threads},
    Setting{"kv-budget", "--kv-budget", Kind::kValue, "BYTES",
            "most KV of a model, such as 4G; 0: what the memory leaves", true,
            [](Config& c, const Values& v) { return set_bytes(c.kv_budget, v); }},
    Setting{
        "memory", "--memory", Kind::kValue, "BYTES",
        "most memory of all loaded models, weights and KV, such as 12G: the least recently used "
        "idle one goes first; 0: four fifths of the machine's (or control group's)",
        true, [](Config& c, const Values& v) { return set_bytes(c.memory, v); }},
    Setting{"config", "--config", Kind::kValue, "FILE.toml", "settings not given here", false,
            [](Config& c, const Values& v) { return set_path(c.config_file, v); }},
    Setting{"socket", "--socket", Kind::kValue, "PATH", "where kvfs finds the daemon", true,
            [](Config& c, const Values& v) { return set_path(c.socket, v); }},
    Setting{"listen", "--listen", Kind::kValue, "HOST:PORT", "HTTP over TCP too", true, set_listen},
    Setting{"token-file", "--token-file", Kind::kValue, "FILE",
            "the bearer token that HTTP over TCP asks for", true,
            [](Config& c, const Values& v) { return set_path(c.token_file, v); }},
    Setting{"no-mount", "--no-mount", Kind::kSwitch, "",
            "serve the socket alone, where there is no /dev/fuse", true,
            [](Config& c, const Values& v) { return set_switch(c.no_mount, v); }},
    Setting{"share-prefixes", "--share-prefixes", Kind::kSwitch, "",
            "known text is shared between owners too: timing then tells them what others read",
            true, [](Config& c, const Values& v) { return set_switch(c.share_prefixes, v); }},
    Setting{"foreground", "--foreground", Kind::kSwitch, "",
            "stay in the foreground; else return when the daemon answers", true,
            [](Config& c, const Values& v) { return set_switch(c.foreground, v); }},
    Setting{"check", "--check", Kind::kSwitch, "", "verify the store and leave; no daemon may run",
            false, [](Config& c, const Values& v) { return set_switch(c.check, v); }},
    Setting{"log-level", "--log-level", Kind::kValue, "LEVEL",
            "trace, debug, info, warning, error or off", true, set_log_level},
    Setting{"fuse-options", "-o,--fuse-options", Kind::kList, "OPTION,...",
            "options of the mount, such as allow_other or noblock", true, set_fuse_options},
};

}  // namespace

std::string Setting::variable() const {
  std::string text = "KVFS_";
  for (const char c : name) {
    text += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return text;
}

std::span<const Setting> settings() { return kSettings; }

}  // namespace kvfs::daemon
