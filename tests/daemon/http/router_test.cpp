#include "daemon/http/router.h"

#include <gtest/gtest.h>

#include "daemon/http/api.h"

namespace kvfs::daemon::http {
namespace {

Match match(std::string_view method, std::string_view target) {
  const auto found = find_route(api_routes(), method, target);
  EXPECT_TRUE(found) << target;
  return found ? *found : Match{};
}

TEST(Router, AStatesPathIsOneEncodedSegment) {
  const Match found = match("POST", "/v1/states/a%2Fb%20c/ask");
  ASSERT_NE(found.route, nullptr);
  EXPECT_EQ(found.route->pattern, "/v1/states/{path}/ask");
  EXPECT_EQ(found.captures, std::vector<std::string>{"a/b c"});
}

TEST(Router, AStateMayBeCalledLikeAVerb) {
  EXPECT_EQ(match("POST", "/v1/states/ask/ask").captures, std::vector<std::string>{"ask"});
  const Match nested = match("GET", "/v1/states/a%2Fjobs");
  ASSERT_NE(nested.route, nullptr);
  EXPECT_EQ(nested.route->pattern, "/v1/states/{path}");
}

TEST(Router, QueriesAreDecoded) {
  const Match found = match("GET", "/v1/states?under=a%2Fb&recursive");
  ASSERT_NE(found.route, nullptr);
  EXPECT_EQ(found.query.at("under"), "a/b");
  EXPECT_TRUE((Call{.query = found.query}.asks("recursive")));
  EXPECT_FALSE((Call{.query = found.query}.asks("under")));
}

TEST(Router, AKnownPathWithAnotherMethodSaysWhatIsAllowed) {
  const Match found = match("PUT", "/v1/states/x");
  EXPECT_EQ(found.route, nullptr);
  EXPECT_EQ(found.allow, "GET, DELETE, PATCH");
}

TEST(Router, UnknownPathsMatchNothing) {
  for (const char* target : {"/", "/v1", "/v1/nothing", "/v1/states/a/b", "/v1/states/a/b/ask",
                             "/v1/states/", "/v1/states//ask"}) {
    const Match found = match("GET", target);
    EXPECT_EQ(found.route, nullptr) << target;
    EXPECT_EQ(found.allow, "") << target;
  }
}

TEST(Router, BrokenEncodingIsRefused) {
  EXPECT_FALSE(find_route(api_routes(), "GET", "/v1/states/%zz"));
  EXPECT_FALSE(find_route(api_routes(), "GET", "no-slash"));
}

TEST(Router, NoTwoRoutesAreTheSame) {
  for (const Route& a : api_routes()) {
    for (const Route& b : api_routes()) {
      EXPECT_FALSE(&a != &b && a.method == b.method && a.pattern == b.pattern) << a.pattern;
    }
  }
}

}  // namespace
}  // namespace kvfs::daemon::http
