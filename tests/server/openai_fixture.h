// The demo model behind OpenAI's API on a free port, without gRPC, and a client for it.

#pragma once

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/http_server.h"
#include "server/listener.h"
#include "server/openai_api.h"
#include "tests/server/registry_fixture.h"
#include "tests/support/loopback_client.h"

namespace nibble {

// Tells when the engine generates, and how the first request ended.
class EngineWatcher final : public RegistryObserver {
 public:
  void OnStateChanged(const ModelInfo& /*model*/) override {}
  void OnRead(int64_t /*bytes*/) override {}
  void OnLoadFinished(const ModelInfo& /*model*/, const absl::Status& /*status*/) override {}
  void OnRefused(absl::string_view /*reason*/) override {}
  void OnDeviceBroken(const absl::Status& health) override { ADD_FAILURE() << health; }
  void OnInterTokenLatency(absl::string_view /*model*/, absl::Duration /*latency*/) override {
    MutexLock lock(mutex_);
    generates_ = true;
    changed_.SignalAll();
  }
  void OnRequestDone(absl::string_view /*model*/, const RequestTimes& /*times*/,
                     const absl::Status& status) override {
    MutexLock lock(mutex_);
    ends_.push_back(status);
    changed_.SignalAll();
  }

  void AwaitGenerating() {
    MutexLock lock(mutex_);
    while (!generates_) {
      ASSERT_TRUE(changed_.WaitFor(mutex_, kNever)) << "waited in vain";
    }
  }

  // How requests ended, once there are `count`.
  std::vector<absl::Status> AwaitEnds(size_t count) {
    MutexLock lock(mutex_);
    while (ends_.size() < count) {
      if (!changed_.WaitFor(mutex_, kNever)) {
        ADD_FAILURE() << "waited in vain";
        break;
      }
    }
    return ends_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool generates_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<absl::Status> ends_ ABSL_GUARDED_BY(mutex_);
};

// An HTTP answer as a client sees it.
struct Reply {
  int status = 0;
  std::string head;
  std::string body;  // Put together from its chunks.

  nlohmann::json json() const { return nlohmann::json::parse(body, nullptr, false); }

  // The data of each event of a stream.
  std::vector<std::string> events() const {
    std::vector<std::string> all;
    for (absl::string_view event : absl::StrSplit(body, "\n\n", absl::SkipEmpty())) {
      EXPECT_TRUE(absl::ConsumePrefix(&event, "data: ")) << event;
      all.emplace_back(event);
    }
    return all;
  }
};

inline Reply ParseReply(const std::string& text) {
  Reply reply;
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos || !absl::StartsWith(text, "HTTP/1.")) {
    ADD_FAILURE() << "no answer: " << text;
    return reply;
  }
  reply.head = text.substr(0, end + 2);
  reply.body = text.substr(end + 4);
  EXPECT_TRUE(absl::SimpleAtoi(text.substr(9, 3), &reply.status));
  if (absl::StrContains(reply.head, "Transfer-Encoding: chunked")) {
    std::string whole;
    absl::string_view rest = reply.body;
    uint32_t bytes = 1;
    while (bytes != 0) {
      const size_t line = rest.find("\r\n");
      EXPECT_TRUE(absl::SimpleHexAtoi(rest.substr(0, line), &bytes)) << rest;
      if (line == absl::string_view::npos || rest.size() < line + 4 + bytes) {
        ADD_FAILURE() << "the last chunk is missing";
        break;
      }
      absl::StrAppend(&whole, rest.substr(line + 2, bytes));
      rest.remove_prefix(line + 4 + bytes);
    }
    reply.body = whole;
  }
  return reply;
}

class OpenAiFixture : public ::testing::Test {
 protected:
  static constexpr int64_t kDeviceBytes = 256_MiB;

  OpenAiFixture() {
    RegistryOptions options;
    options.model_roots = {NIBBLE_TEST_DATA, root_.path().string()};
    options.staging_bytes = kStagingBytesMin;
    registry_ = std::make_unique<ModelRegistry>(*device_, budget_, options, watcher_);
    api_ = std::make_unique<OpenAiApi>(*registry_, logger_);
    Load("demo", false);
    Serve({});
  }

  ~OpenAiFixture() override {
    listener_.reset();
    server_.reset();
    api_.reset();
    registry_.reset();
    EXPECT_EQ(budget_.Snapshot().reserved.total(), 0);
  }

  void Load(const std::string& name, bool weights_only, const std::string& source = "demo-model") {
    LoadRequest request;
    request.model = name;
    request.source = source;
    request.serving.weights_only = weights_only;
    request.serving.kv_cache_type = KvCacheType::kF32;  // As the golden texts were made.
    auto loaded = std::make_shared<RecordingListener>();
    ASSERT_TRUE(registry_->Load(request, loaded).ok());
    const absl::StatusOr<ModelInfo> model = loaded->AwaitDone();
    ASSERT_TRUE(model.ok()) << model.status();
  }

  void Serve(const HttpOptions& options) {
    listener_.reset();
    server_ = std::make_unique<HttpServer>(
        options, [] { return std::string(); }, api_.get());
    ListenAddress address = *ParseListenAddress("--http-listen", "127.0.0.1:0");
    absl::StatusOr<Descriptor> socket = OpenListeningSocket(address);
    ASSERT_TRUE(socket.ok()) << socket.status();
    port_ = address.port;
    listener_ = std::make_unique<Listener>(64);
    listener_->Add("http", *std::move(socket),
                   [this](Descriptor connection) { server_->Serve(std::move(connection)); });
    ASSERT_TRUE(listener_->Start().ok());
  }

  static std::string PostText(absl::string_view path, absl::string_view body,
                              absl::string_view headers = "Connection: close\r\n") {
    return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: localhost\r\n",
                        "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n",
                        headers, "\r\n", body);
  }

  Reply Send(absl::string_view request) const {
    LoopbackClient client(port_);
    EXPECT_TRUE(client.Send(request));
    return ParseReply(client.ReadAll());
  }
  Reply Get(absl::string_view path) const { return ParseReply(HttpGet(port_, path)); }
  Reply Complete(absl::string_view body) const { return Send(PostText("/v1/completions", body)); }
  Reply Chat(absl::string_view body) const { return Send(PostText("/v1/chat/completions", body)); }

  const ScratchDirectory root_;  // Of checkpoints that a test makes.
  std::unique_ptr<Device> device_ = OpenHostDevice(kDeviceBytes);
  VramBudget budget_{kDeviceBytes};
  std::ostringstream log_;
  Logger logger_{LogLevel::kDebug, LogFormat::kText, log_};
  EngineWatcher watcher_;
  std::unique_ptr<ModelRegistry> registry_;
  std::unique_ptr<OpenAiApi> api_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<Listener> listener_;
  uint16_t port_ = 0;
};

}  // namespace nibble
