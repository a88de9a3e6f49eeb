#include "server/http_routes.h"

#include <nlohmann/json.hpp>

#include "gtest/gtest.h"

namespace nibble {
namespace {

HttpAnswer Ask(absl::string_view method, absl::string_view target, bool ready = true,
               absl::string_view host = "localhost:8080") {
  return Route({method, target, host}, true, ready, [] { return std::string("metrics 1\n"); });
}

TEST(HttpRoutesTest, ServesMetricsAsPrometheusText) {
  const HttpAnswer answer = Ask("GET", "/metrics?name=x");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.content_type, "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_EQ(answer.body, "metrics 1\n");
}

TEST(HttpRoutesTest, IsAliveBeforeItIsReady) {
  EXPECT_EQ(Ask("GET", "/healthz", false).status, 200);
  EXPECT_EQ(Ask("GET", "/readyz", false).status, 503);
  EXPECT_EQ(Ask("GET", "/readyz", true).status, 200);
}

TEST(HttpRoutesTest, AnswersAnUnknownPathInTheFormOfOpenAi) {
  const HttpAnswer answer = Ask("GET", "/v2/\xff\"x");
  EXPECT_EQ(answer.status, 404);
  EXPECT_EQ(answer.content_type, "application/json");
  const nlohmann::json error = nlohmann::json::parse(answer.body).at("error");
  EXPECT_EQ(error.at("type"), "invalid_request_error");
  EXPECT_TRUE(error.at("message").is_string());
  EXPECT_TRUE(error.at("param").is_null());
  EXPECT_TRUE(error.at("code").is_null());
}

TEST(HttpRoutesTest, SaysWhichMethodsAPathTakes) {
  const HttpAnswer answer = Ask("POST", "/metrics");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.allow, "GET, HEAD");
  EXPECT_EQ(Ask("HEAD", "/healthz").status, 200);
}

TEST(HttpRoutesTest, RefusesNamesThatOthersCanPointAtUs) {
  for (const char* host : {"localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]",
                           "[::1]:8080", "10.1.2.3:9"}) {
    EXPECT_TRUE(IsTrustedHost(host)) << host;
  }
  for (const char* host : {"", "evil.example", "evil.example:8080", "127.0.0.1.evil.example",
                           "localhost.evil.example", "[::1", "::1", "[evil]", "127.0.0.1x"}) {
    EXPECT_FALSE(IsTrustedHost(host)) << host;
  }
  EXPECT_EQ(Ask("GET", "/metrics", true, "evil.example").status, 403);
}

TEST(HttpRoutesTest, TakesAnyNameWhereOthersMayReachUsAnyway) {
  const HttpAnswer answer =
      Route({"GET", "/healthz", "nibble.default.svc"}, false, true, [] { return std::string(); });
  EXPECT_EQ(answer.status, 200);
}

}  // namespace
}  // namespace nibble
