#include "cli/client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include <boost/json/parse.hpp>

namespace kvfs::cli {
namespace {

// Answers one connection with what it was given, in pieces, and keeps the request.
class OneAnswer {
 public:
  explicit OneAnswer(std::vector<std::string> pieces)
      : path_(std::filesystem::temp_directory_path() /
              ("kvfs-client-" + std::to_string(::getpid()) + ".sock")) {
    std::filesystem::remove(path_);
    socket_ = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path_.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(socket_, 1), 0);
    thread_ = std::thread([this, pieces = std::move(pieces)] {
      const int client = ::accept(socket_, nullptr, nullptr);
      char buffer[4096];
      const ssize_t bytes = ::recv(client, buffer, sizeof buffer, 0);
      if (bytes > 0) request.assign(buffer, static_cast<std::size_t>(bytes));
      for (const std::string& piece : pieces) {
        ::send(client, piece.data(), piece.size(), MSG_NOSIGNAL);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      ::close(client);
    });
  }
  ~OneAnswer() {
    thread_.join();
    ::close(socket_);
    std::filesystem::remove(path_);
  }
  const std::filesystem::path& path() const { return path_; }

  std::string request;  // to be read once the call has returned

 private:
  std::filesystem::path path_;
  int socket_ = -1;
  std::thread thread_;
};

std::string chunk(const std::string& text) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", text.size());
  return size + text + "\r\n";
}

constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";

TEST(Client, StatePathsTravelAsOneSegment) {
  EXPECT_EQ(state_target("a/b c?", "ask"), "/v1/states/a%2Fb%20c%3F/ask");
  EXPECT_EQ(state_target("plain"), "/v1/states/plain");
}

TEST(Client, NobodyThereIsNotFoundWithTheWayOut) {
  const auto answer = Client("/nowhere/kvfs.sock").get("/v1/status");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kNotFound);
  EXPECT_NE(answer.error().way_out.find("kvfs mount"), std::string::npos);
  EXPECT_FALSE(Client("/nowhere/kvfs.sock").answers());
}

TEST(Client, TheDaemonsErrorArrivesInItsWords) {
  const std::string body =
      R"({"error":{"code":"not found","what":"state x","why":"not there","way_out":"make it"}})";
  OneAnswer daemon({"HTTP/1.1 404 Not Found\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body});
  const auto answer = Client(daemon.path()).get("/v1/states/x");
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(answer.error().message(), "state x: not there; make it");
}

TEST(Client, LinesArriveWholeHoweverTheyAreCut) {
  OneAnswer daemon({kStreamHead, chunk("{\"job\":\"q\"}\n{\"te"), chunk("xt\":\"a\"}\n"),
                    chunk("{\"done\":{}}\n"), "0\r\n\r\n"});
  std::vector<std::string> keys;
  const Status status =
      Client(daemon.path())
          .stream(
              "POST", "/v1/states/x/ask", {{"prompt", "p"}},
              [&](const boost::json::object& line) { keys.emplace_back(line.begin()->key()); },
              [] { return true; });
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_EQ(keys, (std::vector<std::string>{"job", "text", "done"}));
  EXPECT_NE(daemon.request.find("POST /v1/states/x/ask"), std::string::npos);
}

TEST(Client, ARefusedStreamGivesTheDaemonsError) {
  const std::string body =
      R"({"error":{"code":"invalid","what":"prompt","why":"empty","way_out":"write one"}})";
  OneAnswer daemon({"HTTP/1.1 400 Bad Request\r\nContent-Length: " + std::to_string(body.size()) +
                    "\r\n\r\n" + body});
  int lines = 0;
  const Status status = Client(daemon.path())
                            .stream(
                                "POST", "/v1/states/x/ask", {},
                                [&](const boost::json::object&) { ++lines; }, [] { return true; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "prompt: empty; write one");
  EXPECT_EQ(lines, 0);
}

TEST(Client, AStreamThatBreaksOffIsAnError) {
  OneAnswer daemon({kStreamHead, chunk("{\"text\":\"a\"}\n")});
  int lines = 0;
  const Status status = Client(daemon.path())
                            .stream(
                                "POST", "/v1/states/x/ask", {},
                                [&](const boost::json::object&) { ++lines; }, [] { return true; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kIo);
  EXPECT_EQ(lines, 1);
}

}  // namespace
}  // namespace kvfs::cli
