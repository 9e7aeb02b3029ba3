#include "daemon/http/connection.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>

#include <openssl/crypto.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include "codec/base/log.h"
#include "daemon/http/api.h"
#include "daemon/http/compare_stream.h"
#include "daemon/http/errors.h"
#include "daemon/http/event_stream.h"
#include "daemon/http/job_stream.h"

namespace kvfs::daemon::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using asio::use_awaitable;
using Request = bhttp::request<bhttp::string_body>;
using Response = bhttp::response<bhttp::string_body>;

constexpr auto kIdleTime = std::chrono::seconds(60);  // for the next request's head
constexpr auto kBodyTime = std::chrono::seconds(120);
constexpr auto kWriteTime = std::chrono::seconds(30);
constexpr std::uint32_t kMostHeaderBytes = 16 << 10;
constexpr std::size_t kFilePart = 1 << 20;

constexpr auto as_result = asio::as_tuple(use_awaitable);

asio::awaitable<bool> send(Stream& stream, const Answer& answer, unsigned version,
                           bool keep_alive) {
  Response response(static_cast<bhttp::status>(answer.status), version);
  response.set(bhttp::field::server, "kvfsd");
  response.set(bhttp::field::content_type, answer.content_type);
  if (answer.status == kUnauthorized) response.set(bhttp::field::www_authenticate, "Bearer");
  if (!answer.allow.empty()) response.set(bhttp::field::allow, answer.allow);
  response.keep_alive(keep_alive);
  response.body() = answer.body;
  response.prepare_payload();
  stream.expires_after(kWriteTime);
  const auto [error, bytes] = co_await bhttp::async_write(stream, response, as_result);
  static_cast<void>(bytes);
  co_return !error;
}

// buffers: the caller's own, not a temporary, which g++ 12 destroys twice in a co_await.
template <class Buffers>
asio::awaitable<bool> send_bytes(Stream& stream, const Buffers& buffers) {
  stream.expires_after(kWriteTime);
  const auto [error, bytes] = co_await asio::async_write(stream, buffers, as_result);
  static_cast<void>(bytes);
  stream.expires_never();
  co_return !error;
}

asio::awaitable<Result<std::size_t>> read_part(const Download& file, std::uint64_t at,
                                               MutableByteSpan out) {
  co_return file.read(at, out);
}

// The head and then the file, as it is read on a worker.
asio::awaitable<bool> send_file(Stream& stream, Front& front, const Download& file,
                                unsigned version, bool keep_alive) {
  bhttp::response<bhttp::empty_body> head(bhttp::status::ok, version);
  head.set(bhttp::field::server, "kvfsd");
  head.set(bhttp::field::content_type, "application/octet-stream");
  head.keep_alive(keep_alive);
  head.content_length(file.size);
  bhttp::response_serializer<bhttp::empty_body> serializer(head);
  stream.expires_after(kWriteTime);
  const auto [error, bytes] = co_await bhttp::async_write_header(stream, serializer, as_result);
  static_cast<void>(bytes);
  if (error) co_return false;
  Bytes part(kFilePart);
  for (std::uint64_t at = 0; at < file.size;) {
    const MutableByteSpan out(part);
    const Result<std::size_t> got =
        co_await asio::co_spawn(front.workers, read_part(file, at, out), use_awaitable);
    if (!got || *got == 0) co_return false;  // too late for an answer: the client misses bytes
    const auto buffer = asio::buffer(part.data(), *got);
    if (!(co_await send_bytes(stream, buffer))) co_return false;
    at += *got;
  }
  co_return true;
}

bool same_secret(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::optional<Answer> refuse_stranger(const bhttp::fields& request, const Front& front,
                                      const Peer& peer) {
  if (peer.local) return std::nullopt;
  if (!front.token.empty()) {
    constexpr std::string_view kScheme = "Bearer ";
    const std::string_view given = request[bhttp::field::authorization];
    if (given.starts_with(kScheme) && same_secret(given.substr(kScheme.size()), front.token)) {
      return std::nullopt;
    }
    return json_answer(error_json({ErrorCode::kPermission, "request", "no valid bearer token",
                                   "send Authorization: Bearer with what --token-file holds"}),
                       kUnauthorized);
  }
  // Without a token a web page elsewhere must not reach a daemon on this machine's loopback.
  const std::string_view origin = request[bhttp::field::origin];
  const std::string_view host = request[bhttp::field::host];
  if (!origin.empty() && !origin.ends_with("//" + std::string(host))) {
    return error_answer({ErrorCode::kPermission, "request from " + std::string(origin),
                         "another origin than " + std::string(host),
                         "set --token-file and send the token"});
  }
  return std::nullopt;
}

asio::awaitable<Answer> dispatch(Front& front, Request request, std::shared_ptr<Upload> upload,
                                 Peer peer) {
  if (auto refusal = refuse_stranger(request, front, peer)) co_return *refusal;
  auto match = find_route(api_routes(), request.method_string(), request.target());
  if (!match) co_return error_answer(match.error());
  const std::string asked =
      std::string(request.method_string()) + " " + std::string(request.target().substr(0, 200));
  if (match->route == nullptr && match->allow.empty()) {
    co_return error_answer({ErrorCode::kNotFound, asked, "no such address",
                            "a state's path is one segment: a/b is a%2Fb"});
  }
  if (match->route == nullptr) {
    Answer answer = json_answer(error_json({ErrorCode::kInvalid, asked,
                                            "not a method of this address", "use " + match->allow}),
                                kMethodNotAllowed);
    answer.allow = match->allow;
    co_return answer;
  }
  Call call{.captures = std::move(match->captures),
            .query = std::move(match->query),
            .accept = std::string(request[bhttp::field::accept]),
            .body = std::move(request.body()),
            .upload = std::move(upload),
            .peer = peer};
  const Handler handler = match->route->handler;
  std::optional<Error> failure;
  try {
    Result<Answer> answer = co_await asio::co_spawn(
        front.workers, handler(front.services, std::move(call)), use_awaitable);
    if (answer) co_return *std::move(answer);
    failure = answer.error();
  } catch (const std::exception& exception) {
    KVFS_ERROR("http {}: {}", asked, exception.what());
    failure = Error{ErrorCode::kInternal, asked, exception.what(), "see the daemon's log"};
  }
  co_return error_answer(*failure);
}

asio::awaitable<Status> append_part(Upload& file, ByteSpan bytes) { co_return file.append(bytes); }

using Parser = bhttp::request_parser<bhttp::string_body>;

struct Received {
  Request request;
  std::shared_ptr<Upload> upload;
};

Answer too_large() {
  return error_answer({ErrorCode::kTooLarge, "request body",
                       "larger than " + std::to_string(kMostBodyBytes >> 20) + " MiB",
                       "feed the text in parts"});
}

bool takes_file(const Request& request) {
  const auto match = find_route(api_routes(), request.method_string(), request.target());
  return match && match->route != nullptr && match->route->takes_file;
}

// Reads what is left of a body of known length past the parser, which would take it in small pieces
// through its own buffer. Returns what it put into part; 0: the client went.
asio::awaitable<std::size_t> read_body(Stream& stream, beast::flat_buffer& buffer,
                                       std::uint64_t left, Bytes& part) {
  const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(part.size(), left));
  const std::size_t there = std::min(wanted, buffer.size());  // came with the head
  std::memcpy(part.data(), buffer.data().data(), there);
  buffer.consume(there);
  const auto rest = asio::buffer(part.data() + there, wanted - there);
  stream.expires_after(kBodyTime);
  const auto [error, bytes] = co_await asio::async_read(stream, rest, as_result);
  static_cast<void>(bytes);
  co_return error ? 0 : wanted;
}

// The body of a request whose head was read, to a file: parts are written by the workers.
asio::awaitable<std::optional<Received>> receive_file(Stream& stream, Front& front,
                                                      beast::flat_buffer& buffer, Parser& head,
                                                      std::optional<Answer>& answer) {
  auto upload = Upload::begin(front.services.store_directory);
  if (!upload) {
    answer = error_answer(upload.error());
    co_return std::nullopt;
  }
  bhttp::request_parser<bhttp::buffer_body> parser(std::move(head));
  parser.body_limit(boost::none);
  Bytes part(kFilePart);
  const auto length = parser.content_length();
  for (std::uint64_t left = length.value_or(0); length ? left != 0 : !parser.is_done();) {
    std::size_t size = 0;
    if (length) {
      size = co_await read_body(stream, buffer, left, part);
      if (size == 0) co_return std::nullopt;
      left -= size;
    } else {
      parser.get().body().data = part.data();
      parser.get().body().size = part.size();
      stream.expires_after(kBodyTime);
      const auto [error, bytes] = co_await bhttp::async_read(stream, buffer, parser, as_result);
      static_cast<void>(bytes);
      if (error && error != bhttp::error::need_buffer) co_return std::nullopt;
      size = part.size() - parser.get().body().size;
    }
    const ByteSpan got = ByteSpan(part).first(size);
    const Status kept =
        co_await asio::co_spawn(front.workers, append_part(**upload, got), use_awaitable);
    if (!kept) {
      answer = error_answer(kept.error());
      co_return std::nullopt;
    }
  }
  stream.expires_never();  // a large one takes its time
  Request request;
  static_cast<bhttp::request_header<>&>(request) = parser.get().base();
  co_return Received{std::move(request), *std::move(upload)};
}

// Reads one request; an empty result ends the connection. answer is set when it must be refused.
asio::awaitable<std::optional<Received>> receive(Stream& stream, Front& front, Peer peer,
                                                 beast::flat_buffer& buffer,
                                                 std::optional<Answer>& answer) {
  Parser parser;
  parser.body_limit(boost::none);  // until the head says what it is
  parser.header_limit(kMostHeaderBytes);
  stream.expires_after(kIdleTime);
  auto [error, bytes] = co_await bhttp::async_read_header(stream, buffer, parser, as_result);
  const bool file = !error && takes_file(parser.get());
  if (!error && !file) {
    const auto length = parser.content_length();
    if (length && *length > kMostBodyBytes) {
      answer = too_large();
      co_return std::nullopt;
    }
    parser.body_limit(kMostBodyBytes);
  }
  if (file) answer = refuse_stranger(parser.get(), front, peer);
  if (answer) co_return std::nullopt;
  if (!error) {
    stream.expires_after(kBodyTime);
    if (parser.get()[bhttp::field::expect] == "100-continue") {
      bhttp::response<bhttp::empty_body> go(bhttp::status::continue_, parser.get().version());
      std::tie(error, bytes) = co_await bhttp::async_write(stream, go, as_result);
    }
  }
  if (!error && file) co_return co_await receive_file(stream, front, buffer, parser, answer);
  if (!error)
    std::tie(error, bytes) = co_await bhttp::async_read(stream, buffer, parser, as_result);
  if (!error) co_return Received{parser.release(), nullptr};
  if (error == bhttp::error::body_limit) {
    answer = too_large();
  } else if (error.category() == make_error_code(bhttp::error::bad_method).category() &&
             error != bhttp::error::end_of_stream && error != bhttp::error::partial_message) {
    answer = error_answer({ErrorCode::kInvalid, "request", error.message(), "speak HTTP/1.1"});
  }
  co_return std::nullopt;
}

// What a client still sends after a refusal is read away for a moment: closing on unread bytes
// would take the answer from it.
asio::awaitable<void> drain(Stream& stream) {
  boost::system::error_code error;
  stream.socket().shutdown(asio::socket_base::shutdown_send, error);
  stream.expires_after(std::chrono::seconds(5));
  std::string sink(64 << 10, '\0');
  while (!error) {
    const auto [failed, bytes] = co_await stream.async_read_some(asio::buffer(sink), as_result);
    static_cast<void>(bytes);
    error = failed;
  }
}

}  // namespace

asio::awaitable<void> serve_connection(Stream& stream, Front& front, Peer peer) {
  beast::flat_buffer buffer;
  while (true) {
    std::optional<Answer> answer;
    std::optional<Received> received = co_await receive(stream, front, peer, buffer, answer);
    if (!received) {
      if (!answer) break;
      const bool told = co_await send(stream, *answer, 11, false);
      if (told) co_await drain(stream);
      co_return;
    }
    const unsigned version = received->request.version();
    const bool keep_alive = received->request.keep_alive() && !front.closing;
    answer =
        co_await dispatch(front, std::move(received->request), std::move(received->upload), peer);
    if (answer->kind == Answer::Body::kJobs) {
      co_await stream_jobs(stream, front, answer->follow, version);
      co_return;
    }
    if (answer->kind == Answer::Body::kEvents) {
      co_await stream_events(stream, front, answer->body, version);
      co_return;
    }
    if (answer->kind == Answer::Body::kComparison) {
      co_await stream_comparison(stream, answer->comparison, version);
      co_return;
    }
    bool sent = false;
    if (answer->kind == Answer::Body::kFile) {
      sent = co_await send_file(stream, front, answer->download, version, keep_alive);
    } else {
      sent = co_await send(stream, *answer, version, keep_alive);
    }
    if (!sent || !keep_alive) break;
  }
  boost::system::error_code ignored;
  stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
}

asio::awaitable<bool> begin_chunks(Stream& stream, unsigned version) {
  bhttp::response<bhttp::empty_body> head(bhttp::status::ok, version);
  head.set(bhttp::field::server, "kvfsd");
  head.set(bhttp::field::content_type, "application/x-ndjson");
  head.set(bhttp::field::cache_control, "no-store");
  head.keep_alive(false);
  head.chunked(true);
  bhttp::response_serializer<bhttp::empty_body> serializer(head);
  stream.expires_after(kWriteTime);
  const auto [error, bytes] = co_await bhttp::async_write_header(stream, serializer, as_result);
  static_cast<void>(bytes);
  stream.expires_never();
  co_return !error;
}

asio::awaitable<bool> send_chunk(Stream& stream, std::string_view bytes) {
  if (bytes.empty()) {
    const auto end = bhttp::make_chunk_last();
    co_return co_await send_bytes(stream, end);
  }
  const auto chunk = bhttp::make_chunk(asio::buffer(bytes.data(), bytes.size()));
  co_return co_await send_bytes(stream, chunk);
}

asio::awaitable<void> turn_away(Stream& stream) {
  const Answer answer =
      json_answer(error_json({ErrorCode::kAgain, "connection", "too many are open", "try again"}),
                  kTooManyConnections);
  if (co_await send(stream, answer, 11, false)) co_await drain(stream);
}

}  // namespace kvfs::daemon::http
