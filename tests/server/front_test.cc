#include "server/front.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/server/front_fixture.h"

namespace nibble {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// The wire form of grpc.health.v1's HealthCheckResponse{status}.
const std::string kServing("\x08\x01", 2);
const std::string kNotServing("\x08\x02", 2);

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (buffer.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
  }
  return bytes;
}

grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

class FrontTest : public FrontFixture {
 protected:
  // Sends one message to a method that no stub of ours knows and returns its first answer.
  std::string CallRaw(const std::string& method, const std::string& request,
                      grpc::Status* status = nullptr) {
    grpc::GenericStub stub(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto call = stub.PrepareCall(&context, method, &queue);
    void* tag = nullptr;
    bool ok = false;
    call->StartCall(&tag);
    queue.Next(&tag, &ok);
    call->Write(Buffer(request), &tag);
    queue.Next(&tag, &ok);
    grpc::ByteBuffer response;
    call->Read(&response, &tag);
    queue.Next(&tag, &ok);
    std::string answer = ok ? Bytes(response) : "";
    call->WritesDone(&tag);
    queue.Next(&tag, &ok);
    grpc::Status end;
    call->Finish(status == nullptr ? &end : status, &tag);
    queue.Next(&tag, &ok);
    return answer;
  }

  // HealthCheckRequest{service}.
  std::string CheckHealth(const std::string& service, grpc::Status* status = nullptr) {
    std::string request;
    if (!service.empty()) {
      request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
    }
    return CallRaw("/grpc.health.v1.Health/Check", request, status);
  }
};

TEST_F(FrontTest, HealthServesFromStartToShutdown) {
  Start();
  for (const char* service : {"", "nibble.v1.ModelService", "nibble.v1.MemoryService"}) {
    EXPECT_EQ(CheckHealth(service), kServing) << service;
  }
  EXPECT_THAT(HttpGet(front_->http_address().port, "/readyz"), StartsWith("HTTP/1.1 200"));
  front_->StopServing();
  for (const char* service : {"", "nibble.v1.ModelService", "nibble.v1.MemoryService"}) {
    EXPECT_EQ(CheckHealth(service), kNotServing) << service;
  }
  EXPECT_THAT(HttpGet(front_->http_address().port, "/readyz"), StartsWith("HTTP/1.1 503"));
  EXPECT_THAT(HttpGet(front_->http_address().port, "/healthz"), StartsWith("HTTP/1.1 200"));
}

TEST_F(FrontTest, HealthKnowsNoOtherService) {
  Start();
  grpc::Status status;
  EXPECT_EQ(CheckHealth("nobody", &status), "");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(FrontTest, ReflectionListsTheServices) {
  Start();
  // ServerReflectionRequest{list_services: "*"}.
  const std::string answer =
      CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "\x3a\x01*");
  EXPECT_THAT(answer, HasSubstr("nibble.v1.ModelService"));
  EXPECT_THAT(answer, HasSubstr("nibble.v1.MemoryService"));
  EXPECT_THAT(answer, HasSubstr("grpc.health.v1.Health"));
}

TEST_F(FrontTest, ReflectionDescribesAMessage) {
  Start();
  // ServerReflectionRequest{file_containing_symbol: "nibble.v1.LoadModelRequest"}.
  const std::string symbol = "nibble.v1.LoadModelRequest";
  const std::string answer =
      CallRaw("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              absl::StrCat("\x22", std::string(1, static_cast<char>(symbol.size())), symbol));
  EXPECT_THAT(answer, HasSubstr("nibble/v1/model.proto"));
}

TEST_F(FrontTest, AnUnknownMethodIsUnimplemented) {
  Start();
  grpc::Status status;
  CallRaw("/nibble.v1.ModelService/Nothing", "", &status);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(FrontTest, GarbageForAMessageIsAnError) {
  Start();
  grpc::Status status;
  CallRaw("/nibble.v1.ModelService/GetModel", "\xff\xff\xff", &status);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(CheckHealth(""), kServing);
}

TEST_F(FrontTest, RefusesAMessageThatIsTooLarge) {
  Start();
  const grpc::Status status = Load(LoadRequestFor("tiny", std::string(5 << 20, 'x')));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(FrontTest, ListensForThisMachineAloneUnlessToldOtherwise) {
  Start();
  for (const bool http : {false, true}) {
    FrontOptions options;
    (http ? options.http_listen : options.listen) = "0.0.0.0:0";
    (http ? options.listen : options.http_listen) = "127.0.0.1:0";
    front_options_ = options;
    const absl::Status status = StartFront().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("--insecure"));
    EXPECT_THAT(status.message(), HasSubstr(http ? "--http-listen" : "--listen"));
    front_options_.insecure = true;
    EXPECT_TRUE(StartFront().ok());
  }
}

TEST_F(FrontTest, NamesAnAddressInUse) {
  Start();
  front_options_.listen = front_->grpc_address().ToString();
  const absl::Status status = StartFront().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr(front_options_.listen));
}

TEST_F(FrontTest, WritesItsPortsWhenBothAreOpen) {
  front_options_.port_file = (root_.path() / "ports").string();
  Start();
  EXPECT_EQ(ReadFile(front_options_.port_file),
            absl::StrCat("grpc=", front_->grpc_address().port,
                         "\nhttp=", front_->http_address().port, "\n"));
  int drafts = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root_.path())) {
    drafts += entry.path().extension() == ".tmp" ? 1 : 0;
  }
  EXPECT_EQ(drafts, 0);
  front_options_.port_file = (root_.path() / "nowhere" / "ports").string();
  EXPECT_THAT(StartFront().status().message(), HasSubstr("port file"));
}

TEST_F(FrontTest, DoesWithoutHttp) {
  front_options_.http_listen = "";
  Start();
  EXPECT_EQ(front_->http_address().port, 0);
  EXPECT_EQ(GetMemory().devices_size(), 1);
}

TEST_F(FrontTest, LimitsGrpcAndHttpConnectionsTogether) {
  front_options_.connections_max = 2;
  Start();
  EXPECT_EQ(GetMemory().devices_size(), 1);  // The first connection, kept by the channel.
  LoopbackClient second(front_->http_address().port);
  ASSERT_TRUE(second.Send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  ASSERT_THAT(second.ReadUntil("ok\n"), StartsWith("HTTP/1.1 200"));
  LoopbackClient third(front_->http_address().port);
  EXPECT_EQ(third.ReadAll(), "");
  ASSERT_TRUE(second.Send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  EXPECT_THAT(second.ReadUntil("refused_total{protocol=\"http\"}"),
              HasSubstr("nibble_connections{protocol=\"grpc\"} 1\n"));
  EXPECT_EQ(GetMemory().devices_size(), 1) << "who is in stays in";
}

// gRPC's connections end in gRPC's own time; the listener must see it by the socket alone.
TEST_F(FrontTest, HasRoomAgainWhenAGrpcClientHasGone) {
  front_options_.connections_max = 1;
  Start();
  EXPECT_EQ(GetMemory().devices_size(), 1);
  models_.reset();
  memory_.reset();
  channel_.reset();
  for (int attempt = 0; attempt < 1000; ++attempt) {
    if (!HttpGet(front_->http_address().port, "/healthz").empty()) {
      return;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
  FAIL() << "the connection is still counted";
}

TEST_F(FrontTest, EndsWithClientsThatStillWatch) {
  Start();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GetMemoryResponse>>> watches;
  for (int index = 0; index < 20; ++index) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    watches.push_back(memory_->WatchMemory(contexts.back().get(), {}));
    v1::GetMemoryResponse response;
    ASSERT_TRUE(watches.back()->Read(&response));
  }
  Stop();
  for (const auto& watch : watches) {
    v1::GetMemoryResponse response;
    while (watch->Read(&response)) {
    }
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
}

// A reader that never reads costs one message, not one for each change.
TEST_F(FrontTest, AReaderThatDoesNotReadHoldsNobodyUp) {
  Start();
  grpc::ClientContext context;
  v1::WatchMemoryRequest request;
  request.set_max_rate(100);
  const auto watch = memory_->WatchMemory(&context, request);
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
    v1::UnloadModelResponse response;
    ASSERT_TRUE(Unload("tiny", &response).ok());
  }
  EXPECT_EQ(GetMemory().devices(0).reserved_bytes(), 0u);
}

// Whoever scrapes while the daemon ends gets a whole answer or none.
TEST_F(FrontTest, AnswersScrapesWholeOrNotAtAllWhileItShutsDown) {
  Start();
  ASSERT_TRUE(Load(LoadRequestFor("ready", "other")).ok());
  const std::unique_ptr<LoadCall> running = StartAndBlock(LoadRequestFor("running"));
  const uint16_t port = front_->http_address().port;
  std::atomic<int> whole_count = 0;
  std::atomic<bool> ended = false;
  std::thread scraper([&] {
    while (!ended) {
      const std::string answer = HttpGet(port, "/metrics");
      if (answer.empty()) {
        continue;
      }
      EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
      const size_t header_end = answer.find("\r\n\r\n");
      const size_t length = answer.find("Content-Length: ");
      ASSERT_TRUE(header_end != std::string::npos && length < header_end) << answer;
      EXPECT_EQ(answer.size() - header_end - 4, std::stoul(answer.substr(length + 16)));
      ++whole_count;
    }
  });
  const auto await_scrapes = [&whole_count](int count) {
    for (const int before = whole_count; whole_count < before + count && !HasFailure();) {
      std::this_thread::yield();
    }
  };
  await_scrapes(2);
  front_->StopServing();
  std::thread stopper([this] { registry_->Shutdown(absl::Seconds(10)); });
  await_scrapes(2);  // Models drain; the gate holds the load.
  device_.gate().Open();
  stopper.join();
  await_scrapes(2);
  front_->Shutdown(absl::Seconds(10));
  front_.reset();
  ended = true;
  scraper.join();
  EXPECT_EQ(running->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// By every way in which the device is asked for its memory; the line is for tests of the log.
TEST_F(FrontTest, ABrokenDeviceEndsTheProcessWhenItsMemoryIsAskedFor) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto ask = [this](const std::function<void()>& call) {
    Start();
    device_.Break(absl::InternalError("illegal address"));
    alarm(20);  // The end of a test that hangs.
    call();
    pause();  // Until the thread that tells has ended the process.
  };
  const testing::ExitedWithCode broken(kDeviceBrokenExitCode);
  EXPECT_EXIT(ask([this] { GetMemory(); }), broken, "");
  EXPECT_EXIT(ask([this] { GetMetrics(); }), broken, "");
  EXPECT_EXIT(ask([this] {
                grpc::ClientContext context;
                v1::SetBudgetRequest request;
                request.set_budget_bytes(1 << 20);
                v1::SetBudgetResponse response;
                memory_->SetBudget(&context, request, &response);
              }),
              broken, "");
}

}  // namespace
}  // namespace nibble
