#include "cli/arguments.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

namespace kvfs::cli {
namespace {

constexpr std::size_t kMostTextBytes = 64 << 20;  // as the daemon's limit on a request

constexpr std::array<std::string_view, 21> kParamNames{"model",
                                                       "template",
                                                       "format",
                                                       "max_tokens",
                                                       "temperature",
                                                       "top_p",
                                                       "top_k",
                                                       "min_p",
                                                       "typical",
                                                       "repeat_penalty",
                                                       "presence_penalty",
                                                       "frequency_penalty",
                                                       "logit_bias",
                                                       "logprobs",
                                                       "seed",
                                                       "stop",
                                                       "max_prefix_tokens",
                                                       "truncate",
                                                       "codec",
                                                       "prune",
                                                       "prefill_chunk"};

}  // namespace

std::span<const std::string_view> param_names() { return kParamNames; }

Result<std::string> state_path_on(const std::filesystem::path& mount,
                                  const std::filesystem::path& working_directory,
                                  const std::string& argument) {
  const std::string path = (working_directory / argument).lexically_normal().string();
  std::string root = (mount / "states").lexically_normal().string();
  if (mount.empty()) {
    return fail(ErrorCode::kNotFound, "state " + argument, "the daemon has no mount",
                "name it by its path below states/");
  }
  root += '/';
  if (!path.starts_with(root) || path.size() == root.size()) {
    return fail(ErrorCode::kInvalid, "state " + argument, "not below " + root,
                "name it by its path there, or by the part below");
  }
  std::string below = path.substr(root.size());
  while (below.ends_with('/')) below.pop_back();
  return below;
}

Result<std::string> state_path(const Client& client, const std::string& argument) {
  const bool on_mount = argument.starts_with('/') || argument == "." || argument == ".." ||
                        argument.starts_with("./") || argument.starts_with("../");
  if (!on_mount) {
    std::string path = argument;
    while (path.ends_with('/')) path.pop_back();
    if (path.empty()) {
      return fail(ErrorCode::kInvalid, "state ''", "a state's path is not empty", "name one");
    }
    return path;
  }
  KVFS_ASSIGN(const boost::json::object status, client.get("/v1/status"));
  const boost::json::value* mount = status.if_contains("mount");
  std::error_code error;
  const std::filesystem::path here = std::filesystem::current_path(error);
  return state_path_on(
      mount != nullptr && mount->is_string() ? std::string(mount->get_string()) : std::string(),
      here, argument);
}

void ParamFlags::add(Options& options) {
  for (const std::string_view name : kParamNames) {
    std::string dashed(name);
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    std::string flags = "--" + dashed;
    if (dashed != name) flags += ",--" + std::string(name);
    options.value(
        flags, [this, key = std::string(name)](const std::string& value) { given_[key] = value; },
        "for this job only", "Parameters");
  }
}

boost::json::object ParamFlags::json() const {
  boost::json::object out;
  for (const auto& [name, value] : given_) out[name] = value;
  return out;
}

Result<boost::json::object> parse_pairs(const std::vector<std::string>& pairs) {
  boost::json::object out;
  for (const std::string& pair : pairs) {
    const std::size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return fail(ErrorCode::kInvalid, "parameter '" + pair + "'", "not of the form name=value",
                  "such as temperature=0.2; an empty value restores the default");
    }
    out[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return out;
}

Result<std::string> read_text(const std::string& file) {
  const bool standard = file == "-";
  const auto close = [standard](std::FILE* f) {
    if (f != nullptr && !standard) std::fclose(f);
  };
  const std::unique_ptr<std::FILE, decltype(close)> in(
      standard ? stdin : std::fopen(file.c_str(), "rb"), close);
  if (!in) {
    return fail(ErrorCode::kNotFound, "file " + file, std::strerror(errno), "correct the path");
  }
  std::string text;
  char buffer[64 << 10];
  std::size_t bytes = 0;
  while ((bytes = std::fread(buffer, 1, sizeof buffer, in.get())) > 0) {
    text.append(buffer, bytes);
    if (text.size() > kMostTextBytes) {
      return fail(ErrorCode::kTooLarge, standard ? "standard input" : "file " + file,
                  "more than " + std::to_string(kMostTextBytes >> 20) + " MiB", "give it in parts");
    }
  }
  if (std::ferror(in.get()) != 0) {
    return fail(ErrorCode::kIo, standard ? "standard input" : "file " + file, std::strerror(errno),
                "see that it is a file that can be read");
  }
  return text;
}

}  // namespace kvfs::cli
