// kvfs compare STATE --prompt P | --chat: the same prompt answered by the whole cache and by what
// methods of pruning keep of it, side by side. The state stays as it was.
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <iostream>
#include <optional>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>

#include "cli/arguments.h"
#include "cli/compare_view.h"
#include "cli/job.h"
#include "cli/verbs/verbs.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

// "full,snapkv capacity=300" → its methods.
void split(const std::string& list, std::vector<std::string>& into) {
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    into.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
}

class Compare : public Verb {
 public:
  void options(Options& options) override {
    options.required("STATE", state_, "the state");
    options.value("--prompt", prompt_, "the prompt; - : standard input");
    options.flag("--chat", chat_, "several turns: a line of standard input each, up to its end");
    options.repeatable("--methods", lists_, "full,snapkv,…: with commas between them", "LIST");
    options.repeatable("--method", methods_,
                       "one, with parameters: \"pyramid window=160 bottom=640 top=128\"; again for "
                       "more",
                       "WORDS");
    options.value("--when", when_,
                  "prune before or after the prompt is read; auto: before, but of an empty state");
    options.value("--plot", plot_, "draw lengths by layer and KL by token: FILE.svg or FILE.png");
    options.flag("--json", json_, "the daemon's lines as they come");
    params_.add(options);
  }

  Result<int> run(const Client& client) override {
    KVFS_ASSIGN(path_, state_path(client, state_));
    KVFS_ASSIGN(const json::object body, make_body());
    if (!plot_.empty()) KVFS_TRY(check_plot(plot_));
    view_.emplace(path_);
    std::function<bool()> on_interrupt;
    if (!chat_) {  // which may wait for a line: Ctrl-C ends kvfs there, and with it the comparison
      on_interrupt = [this] {
        interrupted_ = true;
        return false;
      };
    }
    const Status stream = client.stream(
        "POST", state_target(path_, "compare"), body,
        [&](const json::object& line) { take(client, line); }, on_interrupt);
    clear_progress();
    if (interrupted_) return kExitInterrupted;
    KVFS_TRY(stream);
    if (error_) return fail(*error_);
    return 0;
  }

 private:
  Result<json::object> make_body() {
    if (prompt_.empty() && !chat_) {
      return fail(ErrorCode::kInvalid, "compare", "there is no prompt",
                  "give --prompt TEXT, or --chat");
    }
    if (prompt_ == "-") {
      if (chat_) {
        return fail(ErrorCode::kInvalid, "compare",
                    "standard input cannot be the prompt and the turns of a chat",
                    "leave --prompt out: the first line is the first turn");
      }
      KVFS_ASSIGN(prompt_, read_text("-"));
    }
    std::vector<std::string> all;
    for (const std::string& list : lists_) split(list, all);
    all.insert(all.end(), methods_.begin(), methods_.end());
    json::array methods;
    for (const std::string& method : all) methods.emplace_back(method);
    return json::object{{"prompt", prompt_},
                        {"chat", chat_},
                        {"methods", std::move(methods)},
                        {"when", when_},
                        {"params", params_.json()},
                        {"progress", !json_ && terminal_}};
  }

  void take(const Client& client, const json::object& line) {
    if (json_) {
      say(json::serialize(line) + "\n");
    } else {
      clear_progress();
    }
    if (const json::value* name = line.if_contains("comparison")) {
      name_ = name->as_string().c_str();
      if (chat_ && prompt_.empty()) next_turn(client);
    } else if (const json::value* facts = line.if_contains("progress")) {
      show_progress(facts->as_object());
    } else if (const json::value* turn = line.if_contains("turn")) {
      show(view_->turn(turn->as_object()));
    } else if (const json::value* result = line.if_contains("result")) {
      show(view_->result(result->as_object()));
    } else if (line.contains("turn_over")) {
      show(view_->table());
      draw_plot();
      if (chat_) next_turn(client);
    } else if (const json::value* refused = line.if_contains("refused")) {
      const Error why = error_of(json::object{{"error", *refused}});
      if (!chat_) {
        error_ = why;
      } else {
        std::fprintf(stderr, "kvfs: %s\n", why.message().c_str());
        next_turn(client);
      }
    } else if (line.contains("error")) {
      error_ = error_of(line);
    }
  }

  // The daemon answers the others' requests while this one's stream rests.
  void next_turn(const Client& client) {
    std::string line;
    json::object body;
    while (true) {
      if (::isatty(STDIN_FILENO) == 1) std::fputs("\n> ", stderr);
      if (!std::getline(std::cin, line)) break;
      if (line.find_first_not_of(" \t\r") != std::string::npos) break;
    }
    if (std::cin) {
      body["prompt"] = line;
    } else {
      body["end"] = true;
    }
    const auto sent = client.send("POST", state_target(path_, "compare/" + name_), body);
    if (sent) return;
    error_ = sent.error();
    // So that the stream ends; where that cannot be said either, the daemon is gone, and it does.
    static_cast<void>(
        client.send("POST", state_target(path_, "compare/" + name_), {{"end", true}}));
  }

  void draw_plot() {
    if (plot_.empty()) return;
    if (const Status drawn = write_plot(plot_, view_->plot()); !drawn) error_ = drawn.error();
  }

  void show(const std::string& text) const {
    if (!json_) say(text);
  }
  static void say(const std::string& text) {
    std::fputs(text.c_str(), stdout);
    std::fflush(stdout);
  }
  void show_progress(const json::object& facts) {
    if (json_ || !terminal_) return;
    std::fprintf(stderr, "%s: %s %lld/%lld", facts.at("method").as_string().c_str(),
                 facts.at("doing").as_string().c_str(),
                 static_cast<long long>(facts.at("done").to_number<std::int64_t>()),
                 static_cast<long long>(facts.at("of").to_number<std::int64_t>()));
    progress_shown_ = true;
  }
  void clear_progress() {
    if (progress_shown_) std::fputs("\r\033[K", stderr);
    progress_shown_ = false;
  }

  std::string state_;
  std::string prompt_;
  bool chat_ = false;
  std::vector<std::string> lists_;
  std::vector<std::string> methods_;
  std::string when_ = "auto";
  std::string plot_;
  bool json_ = false;
  ParamFlags params_;

  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  std::string path_;
  std::string name_;  // of the comparison
  std::optional<CompareView> view_;
  std::optional<Error> error_;
  bool interrupted_ = false;
  bool progress_shown_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_compare() { return std::make_unique<Compare>(); }

}  // namespace kvfs::cli
