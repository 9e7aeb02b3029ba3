#include "daemon/http/listeners.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include <boost/asio/io_context.hpp>

namespace kvfs::daemon::http {
namespace {

namespace stdfs = std::filesystem;

class ListenersTest : public testing::Test {
 protected:
  ListenersTest()
      : directory_(stdfs::temp_directory_path() / ("kvfs-listen-" + std::to_string(::getpid()))),
        socket_(directory_ / "run" / "kvfs.sock") {
    stdfs::create_directories(directory_);
  }
  ~ListenersTest() override { stdfs::remove_all(directory_); }

  static mode_t mode_of(const stdfs::path& path) {
    struct stat facts {};
    EXPECT_EQ(::stat(path.c_str(), &facts), 0) << path;
    return facts.st_mode & 07777;
  }

  boost::asio::io_context io_;
  stdfs::path directory_;
  stdfs::path socket_;
};

TEST_F(ListenersTest, TheSocketAndItsDirectoryArePrivate) {
  const auto acceptor = listen_unix(io_.get_executor(), socket_);
  ASSERT_TRUE(acceptor) << acceptor.error().message();
  EXPECT_EQ(mode_of(socket_), 0600U);
  EXPECT_EQ(mode_of(socket_.parent_path()), 0700U);
}

TEST_F(ListenersTest, ALiveSocketIsBusyAndStays) {
  const auto first = listen_unix(io_.get_executor(), socket_);
  ASSERT_TRUE(first);
  const auto second = listen_unix(io_.get_executor(), socket_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_TRUE(stdfs::exists(socket_));
}

TEST_F(ListenersTest, AStaleSocketIsReplaced) {
  {
    auto dead = listen_unix(io_.get_executor(), socket_);
    ASSERT_TRUE(dead);
  }  // closed, its file left behind, as by kill -9
  ASSERT_TRUE(stdfs::exists(socket_));
  EXPECT_TRUE(listen_unix(io_.get_executor(), socket_));
}

TEST_F(ListenersTest, AFileThatIsNoSocketIsLeftAlone) {
  stdfs::create_directories(socket_.parent_path());
  std::ofstream(socket_) << "notes";
  const auto refused = listen_unix(io_.get_executor(), socket_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kExists);
  EXPECT_EQ(stdfs::file_size(socket_), 5U);
}

TEST_F(ListenersTest, APathThatIsTooLongIsRefused) {
  const auto refused = listen_unix(io_.get_executor(), directory_ / std::string(120, 'x'));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
}

TEST_F(ListenersTest, ATokenMustBeLongAndPrivate) {
  const stdfs::path file = directory_ / "token";
  std::ofstream(file) << "0123456789abcdef0123\nsecond line\n";
  ::chmod(file.c_str(), 0644);
  EXPECT_FALSE(read_token(file));
  ::chmod(file.c_str(), 0600);
  EXPECT_EQ(*read_token(file), "0123456789abcdef0123");
  std::ofstream(file) << "short\n";
  EXPECT_FALSE(read_token(file));
  EXPECT_FALSE(read_token(directory_ / "nowhere"));
}

}  // namespace
}  // namespace kvfs::daemon::http
