#include "daemon/http/errors.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>

#include "daemon/http/call.h"

namespace kvfs::daemon::http {
namespace {

TEST(HttpErrors, EveryCodeHasAStatusThatSaysWhoseFaultItIs) {
  const std::pair<ErrorCode, unsigned> expected[]{
      {ErrorCode::kInvalid, 400},     {ErrorCode::kNotFound, 404},    {ErrorCode::kExists, 409},
      {ErrorCode::kNotEmpty, 409},    {ErrorCode::kBusy, 409},        {ErrorCode::kAgain, 503},
      {ErrorCode::kPermission, 403},  {ErrorCode::kTooLarge, 413},    {ErrorCode::kNoSpace, 507},
      {ErrorCode::kCorrupt, 500},     {ErrorCode::kUnsupported, 501}, {ErrorCode::kCanceled, 409},
      {ErrorCode::kInterrupted, 503}, {ErrorCode::kIo, 500},          {ErrorCode::kInternal, 500}};
  EXPECT_EQ(std::size(expected), static_cast<std::size_t>(ErrorCode::kInternal) + 1);
  for (const auto& [code, status] : expected) EXPECT_EQ(status_of(code), status) << to_string(code);
}

TEST(HttpErrors, TheBodySaysWhatWhyAndTheWayOut) {
  const Answer answer = error_answer({ErrorCode::kNotFound, "state x", "not there", "make it"});
  EXPECT_EQ(answer.status, 404U);
  EXPECT_EQ(boost::json::parse(answer.body),
            boost::json::parse(R"({"error":{"code":"not found","what":"state x",
                                   "why":"not there","way_out":"make it"}})"));
}

TEST(HttpErrors, ABodyThatIsNoObjectIsRefused) {
  EXPECT_FALSE(Call{.body = "[1]"}.json());
  EXPECT_FALSE(Call{.body = "{"}.json());
  EXPECT_TRUE(Call{}.json()->empty());
  // Bytes that are not UTF-8 go on to whoever can say it in the prompt's words.
  EXPECT_EQ(Call{.body = "{\"prompt\":\"\xFF\"}"}.json()->at("prompt").as_string(), "\xFF");
}

}  // namespace
}  // namespace kvfs::daemon::http
