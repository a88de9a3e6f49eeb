#include "server/http_server.h"

#include <string>

#include "gmock/gmock.h"
#include "tests/server/http_fixture.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HttpServerTest : public HttpFixture {};

TEST_F(HttpServerTest, AnswersAGet) {
  Start();
  const std::string answer = HttpGet(port_, "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 16\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nnibble_models 0\n"));
}

TEST_F(HttpServerTest, FollowsWhatItIsToldOfReadiness) {
  Start();
  EXPECT_THAT(HttpGet(port_, "/readyz"), StartsWith("HTTP/1.1 503"));
  server_->SetReady(true);
  EXPECT_THAT(HttpGet(port_, "/readyz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, SendsNoBodyToHead) {
  Start();
  const std::string answer =
      Answer("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr("Content-Length: 16\r\n"));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Start();
  const std::string answer = Answer(
      "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
      "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const size_t first = answer.find("HTTP/1.1 200");
  const size_t second = answer.find("HTTP/1.1 404");
  const size_t third = answer.find("nibble_models 0");
  EXPECT_EQ(first, 0u);
  ASSERT_NE(second, std::string::npos);
  ASSERT_NE(third, std::string::npos);
  EXPECT_LT(second, third);
}

TEST_F(HttpServerTest, KeepsAConnectionForTheNextRequest) {
  Start();
  LoopbackClient client(port_);
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(client.Send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    EXPECT_THAT(client.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200")) << round;
  }
}

TEST_F(HttpServerTest, RefusesWhatIsNoHttp) {
  Start();
  EXPECT_THAT(Answer("\x16\x03\x01 nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Answer("GET / HTTP/1.1\r\nHost\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(HttpGet(port_, "/healthz"), StartsWith("HTTP/1.1 200")) << "still serves";
}

TEST_F(HttpServerTest, RefusesAHeaderThatIsTooLarge) {
  Start();
  EXPECT_THAT(Answer("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + std::string(20'000, 'x')),
              StartsWith("HTTP/1.1 431"));
}

TEST_F(HttpServerTest, RefusesABodyThatIsTooLarge) {
  Start();
  EXPECT_THAT(
      Answer("POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"),
      StartsWith("HTTP/1.1 413"));
}

TEST_F(HttpServerTest, EndsAClientThatIsTooSlow) {
  HttpOptions options;
  options.read_timeout = absl::Milliseconds(50);
  Start(options);
  LoopbackClient silent(port_);
  LoopbackClient slow(port_);
  ASSERT_TRUE(slow.Send("GET /healthz HT"));
  EXPECT_EQ(silent.ReadAll(), "");
  EXPECT_EQ(slow.ReadAll(), "");
}

TEST_F(HttpServerTest, EndsAClientThatDoesNotReadItsAnswer) {
  HttpOptions options;
  options.write_timeout = absl::Milliseconds(50);
  metrics_.assign(64 << 20, 'x');  // More than the sockets' buffers hold.
  Start(options);
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_THAT(HttpGet(port_, "/healthz"), StartsWith("HTTP/1.1 200")) << "others are served";
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_LT(client.ReadAll().size(), metrics_.size()) << "the answer was given up";
}

TEST_F(HttpServerTest, EndsWithConnectionsOpen) {
  Start();
  LoopbackClient idle(port_);
  LoopbackClient half(port_);
  ASSERT_TRUE(half.Send("GET "));
  ASSERT_THAT(HttpGet(port_, "/healthz"), StartsWith("HTTP/1.1 200"));
  listener_.reset();
  server_.reset();
  EXPECT_EQ(idle.ReadAll(), "");
}

}  // namespace
}  // namespace nibble
