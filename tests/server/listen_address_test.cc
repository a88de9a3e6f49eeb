#include "server/listen_address.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;

TEST(ListenAddressTest, ReadsBothFamilies) {
  const absl::StatusOr<ListenAddress> ipv4 = ParseListenAddress("--listen", "127.0.0.1:50051");
  ASSERT_TRUE(ipv4.ok()) << ipv4.status();
  EXPECT_EQ(ipv4->host, "127.0.0.1");
  EXPECT_EQ(ipv4->port, 50051);
  EXPECT_EQ(ipv4->ToString(), "127.0.0.1:50051");
  const absl::StatusOr<ListenAddress> ipv6 = ParseListenAddress("--listen", "[::1]:0");
  ASSERT_TRUE(ipv6.ok()) << ipv6.status();
  EXPECT_EQ(ipv6->host, "::1");
  EXPECT_EQ(ipv6->ToString(), "[::1]:0");
}

TEST(ListenAddressTest, KnowsWhichAddressesOthersCanReach) {
  for (const char* text : {"127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"}) {
    EXPECT_TRUE(ParseListenAddress("--listen", text)->loopback()) << text;
  }
  for (const char* text : {"0.0.0.0:1", ":1", "[::]:1", "192.168.0.1:1", "[fe80::1]:1"}) {
    EXPECT_FALSE(ParseListenAddress("--listen", text)->loopback()) << text;
  }
}

TEST(ListenAddressTest, RefusesWhatIsNoAddress) {
  for (const char* text :
       {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "example.org:1",
        "::1:50051", "[::1:1", "[]:1", "1.2.3:1", "[127.0.0.1]x:1"}) {
    const absl::StatusOr<ListenAddress> address = ParseListenAddress("--listen", text);
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(address.status().message(), HasSubstr("--listen")) << text;
  }
}

TEST(ListenAddressTest, TakesAFreePort) {
  ListenAddress address = *ParseListenAddress("--listen", "127.0.0.1:0");
  const absl::StatusOr<Descriptor> socket = OpenListeningSocket(address);
  ASSERT_TRUE(socket.ok()) << socket.status();
  EXPECT_NE(address.port, 0);
}

TEST(ListenAddressTest, NamesAnAddressThatIsInUse) {
  ListenAddress address = *ParseListenAddress("--listen", "127.0.0.1:0");
  const absl::StatusOr<Descriptor> first = OpenListeningSocket(address);
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::StatusOr<Descriptor> second = OpenListeningSocket(address);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), HasSubstr(address.ToString()));
  EXPECT_THAT(second.status().message(), HasSubstr("in use"));
}

TEST(ListenAddressTest, NamesAnAddressThatThisMachineDoesNotHave) {
  ListenAddress address = *ParseListenAddress("--listen", "192.0.2.1:0");  // TEST-NET-1.
  const absl::StatusOr<Descriptor> socket = OpenListeningSocket(address);
  EXPECT_EQ(socket.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(socket.status().message(), HasSubstr("192.0.2.1:0"));
}

}  // namespace
}  // namespace nibble
