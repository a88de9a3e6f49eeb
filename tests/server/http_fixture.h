// An HTTP server on a free port, and an API whose answers a test puts together.

#pragma once

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/mutex.h"
#include "server/http_server.h"
#include "server/listener.h"
#include "tests/support/loopback_client.h"

namespace nibble {

// Answers with the parts that a test puts in, each when it is there.
class FakeApi final : public HttpApi {
 public:
  std::shared_ptr<HttpExchange> Start(HttpRequest request, std::function<void()> wake) override {
    MutexLock lock(mutex_);
    requests_.push_back(std::move(request));
    wake_ = std::move(wake);
    ++running_;
    changed_.SignalAll();
    return std::make_shared<Exchange>(*this);
  }

  void Put(std::string text, bool last, absl::Duration retry_after = {}) {
    std::function<void()> wake;
    {
      MutexLock lock(mutex_);
      HttpPart part;
      part.answer.content_type = "text/event-stream";
      part.answer.body = std::move(text);
      part.answer.retry_after = retry_after;
      part.last = last;
      parts_.push_back(std::move(part));
      wake = wake_;
    }
    wake();
  }

  // Until as many exchanges were begun, and `running` of them are not destroyed.
  void Await(size_t begun, int running) {
    MutexLock lock(mutex_);
    while (requests_.size() != begun || running_ != running) {
      ASSERT_TRUE(changed_.WaitFor(mutex_, absl::Seconds(20))) << "waited in vain";
    }
  }

  std::function<void()> wake() {
    MutexLock lock(mutex_);
    return wake_;
  }
  HttpRequest request(size_t index) {
    MutexLock lock(mutex_);
    return requests_.at(index);
  }

 private:
  class Exchange final : public HttpExchange {
   public:
    explicit Exchange(FakeApi& api) : api_(api) {}
    ~Exchange() override {
      MutexLock lock(api_.mutex_);
      --api_.running_;
      api_.changed_.SignalAll();
    }
    std::optional<HttpPart> Next() override {
      MutexLock lock(api_.mutex_);
      if (api_.parts_.empty()) {
        return std::nullopt;
      }
      HttpPart part = std::move(api_.parts_.front());
      api_.parts_.pop_front();
      return part;
    }

   private:
    FakeApi& api_;
  };

  Mutex mutex_;
  CondVar changed_;
  std::vector<HttpRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::deque<HttpPart> parts_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
};

class HttpFixture : public ::testing::Test {
 protected:
  void Start(HttpOptions options = {}) {
    server_ = std::make_unique<HttpServer>(
        options, [this] { return metrics_; }, &api_);
    ListenAddress address = *ParseListenAddress("--http-listen", "127.0.0.1:0");
    absl::StatusOr<Descriptor> socket = OpenListeningSocket(address);
    ASSERT_TRUE(socket.ok()) << socket.status();
    port_ = address.port;
    listener_ = std::make_unique<Listener>(64);
    listener_->Add("http", *std::move(socket),
                   [this](Descriptor connection) { server_->Serve(std::move(connection)); });
    ASSERT_TRUE(listener_->Start().ok());
  }

  std::string Answer(absl::string_view request) {
    LoopbackClient client(port_);
    EXPECT_TRUE(client.Send(request));
    return client.ReadAll();
  }

  FakeApi api_;  // Outlives the server.
  std::string metrics_ = "nibble_models 0\n";
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<Listener> listener_;
  uint16_t port_ = 0;
};

}  // namespace nibble
