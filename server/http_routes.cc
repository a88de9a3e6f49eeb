#include "server/http_routes.h"

#include <arpa/inet.h>

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace nibble {
namespace {

constexpr absl::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";
constexpr absl::string_view kTextType = "text/plain; charset=utf-8";
constexpr size_t kTargetShown = 200;  // Of an unknown path, in the error.

bool IsAddress(absl::string_view host) {
  in6_addr ignored;
  return inet_pton(AF_INET, std::string(host).c_str(), &ignored) == 1;
}

bool IsAddress6(absl::string_view host) {
  in6_addr ignored;
  return inet_pton(AF_INET6, std::string(host).c_str(), &ignored) == 1;
}

// Without the port; an IPv6 address keeps its brackets.
absl::string_view HostName(absl::string_view host) {
  const size_t colon = host.rfind(':');
  const size_t bracket = host.rfind(']');
  const bool has_port =
      colon != absl::string_view::npos && (bracket == absl::string_view::npos || colon > bracket);
  return has_port ? host.substr(0, colon) : host;
}

HttpAnswer Text(int status, absl::string_view body) {
  return {.status = status, .content_type = std::string(kTextType), .body = std::string(body)};
}

}  // namespace

bool IsTrustedHost(absl::string_view host) {
  absl::string_view name = HostName(host);
  if (absl::ConsumePrefix(&name, "[")) {
    return absl::ConsumeSuffix(&name, "]") && IsAddress6(name);
  }
  return IsAddress(name) || absl::EqualsIgnoreCase(name, "localhost");
}

bool IsApiPath(absl::string_view target) { return absl::StartsWith(target, "/v1/"); }

HttpAnswer HttpError(int status, absl::string_view type, absl::string_view message) {
  const nlohmann::json body = {{"error",
                                {{"message", std::string(message)},
                                 {"type", std::string(type)},
                                 {"param", nullptr},
                                 {"code", nullptr}}}};
  return {.status = status,
          .content_type = "application/json",
          .body = body.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)};
}

HttpAnswer Route(const HttpRequestLine& request, bool check_host, bool ready,
                 const std::function<std::string()>& render_metrics) {
  if (check_host && !IsTrustedHost(request.host)) {
    return HttpError(403, "invalid_request_error",
                     "expected an IP address or localhost in the Host header");
  }
  const absl::string_view path = request.target.substr(0, request.target.find('?'));
  if (path != "/metrics" && path != "/healthz" && path != "/readyz") {
    return HttpError(404, "invalid_request_error",
                     absl::StrCat("no such path: ", path.substr(0, kTargetShown)));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    HttpAnswer answer =
        HttpError(405, "invalid_request_error", absl::StrCat(path, " takes GET and HEAD alone"));
    answer.allow = "GET, HEAD";
    return answer;
  }
  if (path == "/metrics") {
    return {.content_type = std::string(kMetricsType), .body = render_metrics()};
  }
  if (path == "/readyz" && !ready) {
    return Text(503, "not ready\n");
  }
  return Text(200, path == "/readyz" ? "ready\n" : "ok\n");
}

}  // namespace nibble
