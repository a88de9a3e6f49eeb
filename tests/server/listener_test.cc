#include "server/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/mutex.h"
#include "tests/support/loopback_client.h"

namespace nibble {
namespace {

// Holds what it is given until told to close it.
class Keeper {
 public:
  Listener::HandOver hand_over() {
    return [this](Descriptor connection) {
      MutexLock lock(mutex_);
      kept_.push_back(std::move(connection));
      changed_.SignalAll();
    };
  }

  void AwaitCount(size_t count) {
    MutexLock lock(mutex_);
    while (kept_.size() < count) {
      changed_.Wait(mutex_);
    }
  }

  int fd(size_t index) {
    MutexLock lock(mutex_);
    return kept_[index].get();
  }

  void CloseFirst() {
    MutexLock lock(mutex_);
    kept_.erase(kept_.begin());
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<Descriptor> kept_;
};

class ListenerTest : public ::testing::Test {
 protected:
  uint16_t Add(Listener& listener, const char* protocol, Keeper& keeper) {
    ListenAddress address = *ParseListenAddress("--listen", "127.0.0.1:0");
    absl::StatusOr<Descriptor> socket = OpenListeningSocket(address);
    EXPECT_TRUE(socket.ok()) << socket.status();
    listener.Add(protocol, *std::move(socket), keeper.hand_over());
    return address.port;
  }

  Keeper first_;
  Keeper second_;
};

TEST_F(ListenerTest, HandsOverSocketsThatAreReadyForAnEventLoop) {
  Listener listener(8);
  const uint16_t port = Add(listener, "grpc", first_);
  ASSERT_TRUE(listener.Start().ok());
  const LoopbackClient client(port);
  first_.AwaitCount(1);
  const int fd = first_.fd(0);
  EXPECT_TRUE(fcntl(fd, F_GETFL) & O_NONBLOCK);
  EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  int no_delay = 0;
  socklen_t bytes = sizeof(no_delay);
  ASSERT_EQ(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &no_delay, &bytes), 0);
  EXPECT_NE(no_delay, 0);
}

TEST_F(ListenerTest, LimitsTheConnectionsOfAllProtocolsTogether) {
  Listener listener(2, absl::Hours(1));
  const uint16_t first_port = Add(listener, "grpc", first_);
  const uint16_t second_port = Add(listener, "http", second_);
  ASSERT_TRUE(listener.Start().ok());
  const LoopbackClient one(first_port);
  const LoopbackClient two(second_port);
  first_.AwaitCount(1);
  second_.AwaitCount(1);
  LoopbackClient refused(first_port);
  EXPECT_EQ(refused.Read(), "") << "closed at once";
  const std::vector<Listener::ProtocolCounts> counts = listener.Counts();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].protocol, "grpc");
  EXPECT_EQ(counts[0].accepted, 1u);
  EXPECT_EQ(counts[0].refused, 1u);
  EXPECT_EQ(counts[1].accepted, 1u);
  EXPECT_EQ(counts[1].refused, 0u);
}

TEST_F(ListenerTest, HasRoomAgainOnceItsOwnerClosesAConnection) {
  Listener listener(1, absl::Hours(1));  // Only a full listener looks.
  const uint16_t port = Add(listener, "grpc", first_);
  ASSERT_TRUE(listener.Start().ok());
  const LoopbackClient one(port);
  first_.AwaitCount(1);
  LoopbackClient refused(port);
  ASSERT_EQ(refused.Read(), "");
  first_.CloseFirst();
  const LoopbackClient two(port);
  first_.AwaitCount(1);
  EXPECT_EQ(listener.Counts()[0].accepted, 2u);
  EXPECT_EQ(listener.Counts()[0].open, 1);
}

TEST_F(ListenerTest, DoesNotTakeAFileOfTheSameNumberForTheConnection) {
  Listener listener(1, absl::Hours(1));
  const uint16_t port = Add(listener, "grpc", first_);
  ASSERT_TRUE(listener.Start().ok());
  const LoopbackClient one(port);
  first_.AwaitCount(1);
  const int number = first_.fd(0);
  const Descriptor file(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(dup2(file.get(), number), number);  // Closes the socket, takes its number.
  const LoopbackClient two(port);
  first_.AwaitCount(2);
  EXPECT_EQ(listener.Counts()[0].accepted, 2u);
}

TEST_F(ListenerTest, ForgetsClosedConnectionsWhileItIsNotFull) {
  Listener listener(8, absl::Milliseconds(5));
  const uint16_t port = Add(listener, "grpc", first_);
  ASSERT_TRUE(listener.Start().ok());
  const LoopbackClient one(port);
  first_.AwaitCount(1);
  first_.CloseFirst();
  while (listener.Counts()[0].open != 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
}

TEST_F(ListenerTest, TakesNoMoreConnectionsOnceStopped) {
  Listener listener(8);
  const uint16_t port = Add(listener, "grpc", first_);
  ASSERT_TRUE(listener.Start().ok());
  listener.Stop();
  EXPECT_FALSE(LoopbackClient(port).connected());
}

}  // namespace
}  // namespace nibble
