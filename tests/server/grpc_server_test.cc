#include "server/grpc_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "tests/support/loopback_client.h"

namespace nibble {
namespace {

// A client, and the server's end of its connection as the listener hands it over.
class GrpcServerTest : public ::testing::Test {
 protected:
  GrpcServerTest()
      : listening_(*OpenListeningSocket(address_)), server_(*GrpcServer::Start({}, {})) {}

  LoopbackClient Connect() {
    LoopbackClient client(address_.port);
    EXPECT_TRUE(client.connected());
    accepted_ =
        Descriptor(accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    EXPECT_GE(accepted_.get(), 0);
    return client;
  }

  ListenAddress address_ = *ParseListenAddress("--listen", "127.0.0.1:0");
  const Descriptor listening_;
  const std::unique_ptr<GrpcServer> server_;
  Descriptor accepted_;
};

TEST_F(GrpcServerTest, SpeaksHttp2WithWhomItIsGiven) {
  LoopbackClient client = Connect();
  server_->Serve(std::move(accepted_));
  ASSERT_TRUE(
      client.Send(absl::string_view("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33)));
  EXPECT_NE(client.Read(), "") << "its settings";
}

TEST_F(GrpcServerTest, ClosesWhatItIsGivenAfterItsShutdown) {
  server_->Shutdown(absl::ZeroDuration());
  LoopbackClient client = Connect();
  const int number = accepted_.get();
  server_->Serve(std::move(accepted_));
  EXPECT_EQ(fcntl(number, F_GETFD), -1) << "the descriptor is left open";
  EXPECT_EQ(client.ReadAll(), "");
}

TEST_F(GrpcServerTest, ClosesAConnectionWhosePeerIsGone) {
  struct stat status = {};
  {
    LoopbackClient client = Connect();
    ASSERT_EQ(fstat(accepted_.get(), &status), 0);
    const linger reset = {1, 0};  // The end of the client is a reset: no peer name is left.
    ASSERT_TRUE(client.SetLinger(reset));
  }
  const int number = accepted_.get();
  const ino_t inode = status.st_ino;
  server_->Serve(std::move(accepted_));
  for (int attempt = 0; attempt < 2000; ++attempt) {
    if (fstat(number, &status) != 0 || status.st_ino != inode) {
      return;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  FAIL() << "the descriptor is left open";
}

}  // namespace
}  // namespace nibble
