#include "cli/client.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/url/encode.hpp>
#include <boost/url/rfc/unreserved_chars.hpp>

namespace kvfs::cli {
namespace {

namespace asio = boost::asio;
namespace json = boost::json;
namespace bhttp = boost::beast::http;
using Socket = asio::local::stream_protocol::socket;
using Request = bhttp::request<bhttp::string_body>;
using ErrorWord = boost::system::error_code;

constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kFilePart = 1 << 20;

Status connect(Socket& socket, const std::filesystem::path& path) {
  ErrorWord error;
  if (path.string().size() <= 107) {  // what a socket's address holds
    socket.connect(asio::local::stream_protocol::endpoint(path.string()), error);
  } else {
    error = make_error_code(boost::system::errc::filename_too_long);
  }
  if (!error) return {};
  if (error == boost::system::errc::permission_denied) {
    return fail(ErrorCode::kPermission, "daemon at " + path.string(), "not yours",
                "run kvfs as the user who runs it");
  }
  const bool absent = error == boost::system::errc::no_such_file_or_directory ||
                      error == boost::system::errc::connection_refused;
  return fail(ErrorCode::kNotFound, "daemon at " + path.string(),
              absent ? "none is running" : error.message(),
              "start one with kvfs mount, or name its socket with --socket or KVFS_SOCKET");
}

Request make_request(std::string_view method, const std::string& target, std::string body) {
  Request request;
  request.method_string(method);
  request.target(target);
  request.version(11);
  request.set(bhttp::field::host, "kvfsd");
  request.set(bhttp::field::user_agent, "kvfs");
  request.keep_alive(false);
  if (!body.empty()) request.set(bhttp::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  return request;
}

tl::unexpected<Error> broken(const ErrorWord& error) {
  return fail(ErrorCode::kIo, "daemon's answer", error.message(),
              "see whether it still runs: kvfs status");
}

Result<json::object> object_of(const std::string& text) {
  ErrorWord error;
  json::value value = json::parse(text, error);
  if (error || !value.is_object()) {
    return fail(ErrorCode::kInternal, "daemon's answer", "not a JSON object",
                "see whether kvfs and kvfsd have the same version");
  }
  return std::move(value.as_object());
}

std::string body_of(std::string_view method, const json::object& body) {
  return method == "GET" ? std::string() : json::serialize(body);
}

struct Answer {
  unsigned status = 0;
  std::string body;
};

Result<Answer> exchange(const std::filesystem::path& path, Request request) {
  asio::io_context io;
  Socket socket(io);
  KVFS_TRY(connect(socket, path));
  ErrorWord sent;
  bhttp::write(socket, request, sent);
  // A refusal may come before all was sent: it is worth more than the broken pipe.
  boost::beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::string_body> parser;
  parser.body_limit(std::uint64_t{1} << 30);
  ErrorWord error;
  bhttp::read(socket, buffer, parser, error);
  if (error) return broken(sent ? sent : error);
  return Answer{parser.get().result_int(), std::move(parser.get().body())};
}

// The answer's lines as they come.
class LineReader {
 public:
  LineReader(Socket& socket, const std::function<void(const json::object&)>& on_line)
      : socket_(socket), on_line_(on_line) {
    parser_.body_limit(boost::none);
  }

  asio::awaitable<Status> run(Request request) {
    constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
    const auto [sent, written] = co_await bhttp::async_write(socket_, request, as_result);
    static_cast<void>(written);
    const auto [headed, read] =
        co_await bhttp::async_read_header(socket_, buffer_, parser_, as_result);
    static_cast<void>(read);
    if (headed) co_return broken(sent ? sent : headed);
    std::string part(kReadBytes, '\0');
    while (!parser_.is_done()) {
      parser_.get().body().data = part.data();
      parser_.get().body().size = part.size();
      const auto [error, bytes] =
          co_await bhttp::async_read_some(socket_, buffer_, parser_, as_result);
      static_cast<void>(bytes);
      if (error && error != bhttp::error::need_buffer) co_return broken(error);
      text_.append(part, 0, part.size() - parser_.get().body().size);
      const Status taken = take_lines();
      if (!taken) co_return taken;
    }
    if (parser_.get().result_int() >= 400) co_return refusal();
    co_return Status{};
  }

 private:
  Status take_lines() {
    if (parser_.get().result_int() >= 400) return {};  // one object, read to its end first
    std::size_t begin = 0;
    for (std::size_t end; (end = text_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      KVFS_ASSIGN(const json::object line, object_of(text_.substr(begin, end - begin)));
      on_line_(line);
    }
    text_.erase(0, begin);
    return {};
  }

  Status refusal() {
    KVFS_ASSIGN(const json::object answer, object_of(text_));
    return fail(error_of(answer));
  }

  Socket& socket_;
  const std::function<void(const json::object&)>& on_line_;
  boost::beast::flat_buffer buffer_;
  bhttp::response_parser<bhttp::buffer_body> parser_;
  std::string text_;  // not yet a whole line
};

}  // namespace

bool Client::answers() const {
  const auto answer = exchange(socket_, make_request("GET", "/healthz", {}));
  return answer && answer->status == 200;
}

Result<json::object> Client::send(std::string_view method, const std::string& target,
                                  const json::object& body) const {
  KVFS_ASSIGN(const Answer answer,
              exchange(socket_, make_request(method, target, body_of(method, body))));
  KVFS_ASSIGN(json::object object, object_of(answer.body));
  if (answer.status >= 400) return fail(error_of(object));
  return object;
}

Result<json::object> Client::get(const std::string& target) const {
  return send("GET", target, {});
}

Result<std::string> Client::text(const std::string& target) const {
  Request request = make_request("GET", target, {});
  request.set(bhttp::field::accept, "text/plain");
  KVFS_ASSIGN(Answer answer, exchange(socket_, std::move(request)));
  if (answer.status < 400) return std::move(answer.body);
  KVFS_ASSIGN(const json::object object, object_of(answer.body));
  return fail(error_of(object));
}

Result<json::object> Client::upload(const std::string& target, int fd, std::uint64_t size,
                                    const OnBytes& on_bytes) const {
  asio::io_context io;
  Socket socket(io);
  KVFS_TRY(connect(socket, socket_));
  bhttp::request<bhttp::empty_body> head;
  static_cast<bhttp::request_header<>&>(head) = make_request("POST", target, {}).base();
  head.set(bhttp::field::content_type, "application/octet-stream");
  head.content_length(size);
  bhttp::request_serializer<bhttp::empty_body> serializer(head);
  ErrorWord sent;
  bhttp::write_header(socket, serializer, sent);
  std::vector<char> part(kFilePart);
  for (std::uint64_t done = 0; !sent && done < size;) {
    const ssize_t n = ::read(fd, part.data(), std::min<std::uint64_t>(part.size(), size - done));
    if (n <= 0) {
      return fail(ErrorCode::kIo, "reading the file",
                  n < 0 ? std::strerror(errno) : "it became shorter", "try again");
    }
    asio::write(socket, asio::buffer(part.data(), static_cast<std::size_t>(n)), sent);
    done += static_cast<std::uint64_t>(n);
    on_bytes(done, size);
  }
  // A refusal may come before all was sent: it is worth more than the broken pipe.
  boost::beast::flat_buffer buffer;
  bhttp::response<bhttp::string_body> answer;
  ErrorWord error;
  bhttp::read(socket, buffer, answer, error);
  if (error) return broken(sent ? sent : error);
  KVFS_ASSIGN(json::object object, object_of(answer.body()));
  if (answer.result_int() >= 400) return fail(error_of(object));
  return object;
}

Status Client::download(const std::string& target, const Sink& sink,
                        const OnBytes& on_bytes) const {
  asio::io_context io;
  Socket socket(io);
  KVFS_TRY(connect(socket, socket_));
  ErrorWord error;
  bhttp::write(socket, make_request("GET", target, {}), error);
  boost::beast::flat_buffer buffer;
  bhttp::response_parser<bhttp::buffer_body> parser;
  parser.body_limit(boost::none);
  if (!error) bhttp::read_header(socket, buffer, parser, error);
  if (error) return broken(error);
  const bool refused = parser.get().result_int() >= 400;
  const std::uint64_t size = parser.content_length().value_or(0);
  std::vector<char> part(kFilePart);
  std::string words;
  for (std::uint64_t done = 0; !parser.is_done();) {
    parser.get().body().data = part.data();
    parser.get().body().size = part.size();
    bhttp::read(socket, buffer, parser, error);
    if (error && error != bhttp::error::need_buffer) return broken(error);
    const std::size_t got = part.size() - parser.get().body().size;
    done += got;
    if (refused) {
      words.append(part.data(), got);
    } else {
      KVFS_TRY(sink(as_bytes({part.data(), got})));
      on_bytes(done, size);
    }
  }
  if (!refused) return {};
  KVFS_ASSIGN(const json::object object, object_of(words));
  return fail(error_of(object));
}

Status Client::stream(std::string_view method, const std::string& target, const json::object& body,
                      const std::function<void(const json::object&)>& on_line,
                      const std::function<bool()>& on_interrupt) const {
  asio::io_context io(1);
  Socket socket(io);
  KVFS_TRY(connect(socket, socket_));
  asio::signal_set signals(io);
  Status outcome =
      fail(ErrorCode::kCanceled, "kvfs", "interrupted twice", "kvfs cancel ends what still runs");
  std::function<void(ErrorWord, int)> interrupted = [&](ErrorWord error, int) {
    if (error) return;
    if (!on_interrupt()) return io.stop();
    signals.async_wait([&](ErrorWord again, int) {
      if (!again) io.stop();
    });
  };
  if (on_interrupt) {
    signals.add(SIGINT);
    signals.async_wait(interrupted);
  }
  LineReader reader(socket, on_line);
  asio::co_spawn(io, reader.run(make_request(method, target, body_of(method, body))),
                 [&](std::exception_ptr exception, Status status) {
                   if (exception) std::rethrow_exception(exception);
                   outcome = std::move(status);
                   signals.cancel();
                 });
  io.run();
  return outcome;
}

std::filesystem::path socket_path(const std::string& flag) {
  if (!flag.empty()) return std::filesystem::absolute(flag);
  if (const char* given = std::getenv("KVFS_SOCKET"); given != nullptr && *given != '\0') {
    return std::filesystem::absolute(given);
  }
  if (::geteuid() == 0) return "/run/kvfs/kvfs.sock";
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/') {
    return std::filesystem::path(runtime) / "kvfs/kvfs.sock";
  }
  return "/tmp/kvfs-" + std::to_string(::geteuid()) + "/kvfs.sock";
}

std::string state_target(std::string_view state, std::string_view verb) {
  std::string target = "/v1/states/" + boost::urls::encode(state, boost::urls::unreserved_chars);
  if (!verb.empty()) target += "/" + std::string(verb);
  return target;
}

Error error_of(const json::object& answer) {
  Error error{ErrorCode::kInternal, "daemon's answer", "an error without words", "see its log"};
  const json::value* given = answer.if_contains("error");
  if (given == nullptr || !given->is_object()) return error;
  const json::object& facts = given->get_object();
  const auto word = [&](const char* name) {
    const json::value* value = facts.if_contains(name);
    return value != nullptr && value->is_string() ? std::string(value->get_string())
                                                  : std::string();
  };
  error.what = word("what");
  error.why = word("why");
  error.way_out = word("way_out");
  const std::string code = word("code");
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    if (code == to_string(static_cast<ErrorCode>(i))) error.code = static_cast<ErrorCode>(i);
  }
  return error;
}

}  // namespace kvfs::cli
