#include "cli/job.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <vector>

#include <boost/json/serialize.hpp>

#include "cli/footer.h"
#include "cli/kv_chart.h"

namespace kvfs::cli {
namespace {

namespace json = boost::json;

class Show {
 public:
  Show(const Client& client, const JobRequest& request)
      : client_(client), request_(request), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void line(const json::object& object);
  void interrupt();
  Result<int> outcome(const Status& stream);

 private:
  struct Reply {
    std::string job;
    std::string text;  // kept while an earlier reply is being shown
    bool over = false;
  };

  void text(std::size_t index, std::string_view added);
  void progress(const json::object& facts);
  void refresh(std::size_t index, const json::object& facts);
  void last_refresh();
  void done(const json::object& job);
  void show_in_order();
  void clear_progress();

  const Client& client_;
  const JobRequest& request_;
  const bool terminal_;
  bool progress_shown_ = false;
  bool interrupted_ = false;
  char last_ = '\n';  // of what was printed
  Footer footer_{STDERR_FILENO};
  std::vector<std::string> chart_;  // as it was drawn last
  bool refreshed_ = false;
  std::map<std::size_t, Reply> replies_;
  std::size_t next_ = 0;  // the reply to show next, of several
  std::optional<Error> error_;
};

std::string word(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

double number(const json::object& object, const char* key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_number() ? value->to_number<double>() : 0;
}

void Show::clear_progress() {
  if (progress_shown_) std::fputs("\r\033[K", stderr);
  progress_shown_ = false;
}

void Show::progress(const json::object& facts) {
  if (!terminal_) return;
  clear_progress();
  const json::value* queued = facts.if_contains("queued");
  if (queued != nullptr && queued->is_bool() && queued->get_bool()) {
    std::fputs("queued", stderr);
  } else {
    std::fprintf(stderr, "reading %.0f/%.0f (%.0f known)", number(facts, "read"),
                 number(facts, "of"), number(facts, "known"));
  }
  progress_shown_ = true;
}

bool same_file(int a, int b) {
  struct stat of_a {
  }, of_b{};
  return ::fstat(a, &of_a) == 0 && ::fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev &&
         of_a.st_ino == of_b.st_ino;
}

void Show::refresh(std::size_t index, const json::object& facts) {
  refreshed_ = true;
  const std::string job = request_.several ? replies_[index].job : std::string();
  clear_progress();
  const Footer::Size size = footer_.size();
  if (size.rows > 0) {
    constexpr int kBarRows = 6;
    const int rows = std::clamp(size.rows / 2 - kLinesBesideBars, 1, kBarRows);
    chart_ = kv_chart(facts, {.columns = size.columns, .bar_rows = rows}, job);
    return footer_.draw(chart_);
  }
  if (last_ != '\n' && same_file(STDOUT_FILENO, STDERR_FILENO)) std::fputs("\n", stderr);
  last_ = '\n';
  std::fprintf(stderr, "%s%s%s\n", job.c_str(), job.empty() ? "" : " ",
               word(facts, "line").c_str());
}

// The chart stays below the text, where it scrolls away with it.
void Show::last_refresh() {
  footer_.close();
  for (const std::string& line : chart_) std::fprintf(stderr, "%s\n", line.c_str());
  if (request_.watch && !request_.json && !refreshed_ && !error_ && !interrupted_) {
    std::fputs("nothing was pruned: the parameter prune is off, or it was too short for that\n",
               stderr);
  }
}

void Show::text(std::size_t index, std::string_view added) {
  if (request_.several) {
    replies_[index].text += added;
    return;
  }
  clear_progress();
  std::fwrite(added.data(), 1, added.size(), stdout);
  std::fflush(stdout);
  if (!added.empty()) last_ = added.back();
}

// Replies come interleaved and are shown one after the other.
void Show::show_in_order() {
  for (auto found = replies_.find(next_); found != replies_.end() && found->second.over;
       found = replies_.find(++next_)) {
    clear_progress();
    const std::string& text = found->second.text;
    std::printf("--- %s\n%s%s", found->second.job.c_str(), text.c_str(),
                text.ends_with('\n') ? "" : "\n");
    std::fflush(stdout);
  }
}

void Show::done(const json::object& job) {
  clear_progress();
  if (!terminal_ || request_.verb != "feed") return;
  std::fprintf(stderr, "read %.0f tokens (%.0f known) in %.2f s\n", number(job, "prompt_tokens"),
               number(job, "known_tokens"), number(job, "seconds"));
}

void Show::line(const json::object& object) {
  const auto index = static_cast<std::size_t>(number(object, "index"));
  const json::value* finished = object.if_contains("done");
  const bool failed = object.contains("error");
  if (request_.json && !object.contains("progress")) {
    std::printf("%s\n", json::serialize(object).c_str());
    std::fflush(stdout);
  }
  if (const std::string job = word(object, "job"); !job.empty()) replies_[index].job = job;
  if (failed && !error_) error_ = error_of(object);
  if (request_.json) return;
  if (const json::value* added = object.if_contains("text"); added != nullptr) {
    text(index, added->as_string());
  }
  if (const json::value* facts = object.if_contains("progress"); facts != nullptr) {
    progress(facts->as_object());
  }
  if (const json::value* facts = object.if_contains("refresh"); facts != nullptr) {
    refresh(index, facts->as_object());
  }
  if (finished != nullptr) done(finished->as_object());
  if (finished != nullptr || failed) {
    clear_progress();
    replies_[index].over = true;
    if (request_.several) show_in_order();
  }
}

void Show::interrupt() {
  interrupted_ = true;
  clear_progress();
  for (const auto& [index, reply] : replies_) {
    if (reply.over || reply.job.empty()) continue;
    // It may have ended meanwhile: then there is nothing to cancel and nothing to say.
    static_cast<void>(
        client_.send("POST", state_target(request_.state, "cancel"), {{"job", reply.job}}));
  }
}

Result<int> Show::outcome(const Status& stream) {
  clear_progress();
  const bool to_terminal = ::isatty(STDOUT_FILENO) == 1;
  if (!request_.json && last_ != '\n' && to_terminal) std::fputs("\n", stdout);
  std::fflush(stdout);
  last_refresh();
  if (interrupted_) return kExitInterrupted;
  if (!stream) return fail(stream.error());
  if (error_) return fail(*error_);
  return 0;
}

}  // namespace

Result<int> run_job(const Client& client, JobRequest request) {
  request.body["progress"] = !request.json && ::isatty(STDERR_FILENO) == 1;
  if (request.watch) request.body["watch"] = true;
  Show show(client, request);
  const Status stream = client.stream(
      "POST", state_target(request.state, request.verb), request.body,
      [&](const json::object& object) { show.line(object); },
      [&] {
        show.interrupt();
        return true;
      });
  return show.outcome(stream);
}

}  // namespace kvfs::cli
