// Answers that come in their own time, over one connection.

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "tests/server/http_fixture.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr absl::string_view kAsk =
    "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";

class HttpSessionTest : public HttpFixture {};

TEST_F(HttpSessionTest, SendsPartsAsTheyCome) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  api_.Put("one", false);
  EXPECT_THAT(client.ReadUntil("one\r\n"), HasSubstr("Transfer-Encoding: chunked\r\n"));
  api_.Put("sixteen letters!", false);
  EXPECT_EQ(client.ReadUntil("!\r\n"), "10\r\nsixteen letters!\r\n");
  api_.Put("", true);
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "0\r\n\r\n");
  ASSERT_TRUE(client.Send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_THAT(client.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200")) << "and goes on";
}

TEST_F(HttpSessionTest, SendsAnAnswerThatIsWholeWithItsLength) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  api_.Put("whole", true);
  EXPECT_THAT(client.ReadUntil("whole"), HasSubstr("Content-Length: 5\r\n"));
}

TEST_F(HttpSessionTest, SaysWhenToComeAgain) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  api_.Put("full", true, absl::Seconds(3));
  EXPECT_THAT(client.ReadUntil("full"), HasSubstr("Retry-After: 3\r\n"));
}

TEST_F(HttpSessionTest, HandsTheRequestOver) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(
      client.Send("POST /v1/y?z HTTP/1.1\r\nHost: localhost\r\nContent-Type: a/b\r\n"
                  "Content-Length: 4\r\n\r\nbody"));
  api_.Await(1, 1);
  EXPECT_EQ(api_.request(0).method, "POST");
  EXPECT_EQ(api_.request(0).target, "/v1/y?z");
  EXPECT_EQ(api_.request(0).content_type, "a/b");
  EXPECT_EQ(api_.request(0).body, "body");
}

TEST_F(HttpSessionTest, DropsTheExchangeOfAClientThatIsGone) {
  Start();
  {
    LoopbackClient client(port_);
    ASSERT_TRUE(client.Send(kAsk));
    api_.Await(1, 1);
  }
  api_.Await(1, 0);
  api_.wake()();  // Nobody is there any more.
  EXPECT_THAT(HttpGet(port_, "/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpSessionTest, KeepsWhatAClientSendsWhileItWaits) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  ASSERT_TRUE(client.Send("GET /healthz HTTP/1.1\r\nHost: local"));
  EXPECT_THAT(HttpGet(port_, "/healthz"), StartsWith("HTTP/1.1 200")) << "others are served";
  api_.Put("first", true);
  EXPECT_THAT(client.ReadUntil("first"), StartsWith("HTTP/1.1 200"));
  ASSERT_TRUE(client.Send("host\r\n\r\n"));
  EXPECT_THAT(client.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpSessionTest, WaitsForAnAnswerLongerThanForARequest) {
  HttpOptions options;
  options.read_timeout = absl::Milliseconds(50);
  options.write_timeout = absl::Milliseconds(50);
  Start(options);
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  absl::SleepFor(absl::Milliseconds(120));
  api_.Put("one", false);
  EXPECT_THAT(client.ReadUntil("one\r\n"), StartsWith("HTTP/1.1 200"));
  absl::SleepFor(absl::Milliseconds(120));
  api_.Put("two", true);
  EXPECT_EQ(client.ReadUntil("0\r\n\r\n"), "3\r\ntwo\r\n0\r\n\r\n");
}

TEST_F(HttpSessionTest, DropsTheExchangeOfAClientThatDoesNotRead) {
  HttpOptions options;
  options.write_timeout = absl::Milliseconds(50);
  Start(options);
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  api_.Put(std::string(64 << 20, 'x'), false);  // More than the sockets' buffers hold.
  api_.Await(1, 0);
}

TEST_F(HttpSessionTest, ChecksTheHostOfTheApiToo) {
  Start();
  EXPECT_THAT(HttpGet(port_, "/v1/x", "evil.example"), StartsWith("HTTP/1.1 403"));
  api_.Await(0, 0);
}

TEST_F(HttpSessionTest, EndsWithAnExchangeOpen) {
  Start();
  LoopbackClient client(port_);
  ASSERT_TRUE(client.Send(kAsk));
  api_.Await(1, 1);
  const std::function<void()> wake = api_.wake();
  listener_.reset();
  server_.reset();
  api_.Await(1, 0);
  wake();  // Says nothing to nobody.
  EXPECT_EQ(client.ReadAll(), "");
}

}  // namespace
}  // namespace nibble
