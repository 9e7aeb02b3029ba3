#include "daemon/http/router.h"

#include <algorithm>

#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>

namespace kvfs::daemon::http {
namespace {

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::size_t end = std::min(path.find('/'), path.size());
    parts.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return parts;
}

bool is_capture(std::string_view part) { return part.starts_with('{'); }

bool fits(const std::vector<std::string_view>& pattern, const std::vector<std::string>& segments) {
  return pattern.size() == segments.size() &&
         std::equal(pattern.begin(), pattern.end(), segments.begin(),
                    [](std::string_view part, const std::string& segment) {
                      return is_capture(part) ? !segment.empty() : part == segment;
                    });
}

}  // namespace

Result<Match> find_route(std::span<const Route> routes, std::string_view method,
                         std::string_view target) {
  const auto url = boost::urls::parse_origin_form(target);
  if (!url) {
    return fail(ErrorCode::kInvalid, "request target '" + std::string(target) + "'",
                "not a path of a URL", "percent-encode what is not a letter or digit");
  }
  std::vector<std::string> segments;
  for (const std::string& segment : url->segments()) segments.push_back(segment);

  Match match;
  for (const Route& route : routes) {
    const auto pattern = split(route.pattern);
    if (!fits(pattern, segments)) continue;
    if (route.method != method) {
      match.allow += (match.allow.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    match.route = &route;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      if (is_capture(pattern[i])) match.captures.push_back(segments[i]);
    }
    for (const auto& parameter : url->params()) match.query[parameter.key] = parameter.value;
    return match;
  }
  return match;
}

}  // namespace kvfs::daemon::http
