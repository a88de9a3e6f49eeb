// A whole front on free ports over a small host device with a gate, and its clients.

#pragma once

#include <google/rpc/error_details.pb.h>
#include <google/rpc/status.pb.h>
#include <grpcpp/create_channel.h>
#include <nibble/v1/memory.grpc.pb.h>
#include <nibble/v1/model.grpc.pb.h>

#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/front.h"
#include "server/registry_log.h"
#include "tests/support/gated_device.h"
#include "tests/support/loopback_client.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {

// Finds one kind of detail in an error as a client decodes it.
template <typename Detail>
std::optional<Detail> FindDetail(const grpc::Status& status) {
  google::rpc::Status decoded;
  EXPECT_TRUE(decoded.ParseFromString(status.error_details()));
  EXPECT_EQ(decoded.code(), status.error_code());
  for (const google::protobuf::Any& any : decoded.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) {
      return detail;
    }
  }
  return std::nullopt;
}

inline std::string BadFieldOf(const grpc::Status& status) {
  const auto request = FindDetail<google::rpc::BadRequest>(status);
  return request.has_value() ? request->field_violations(0).field() : "";
}

class FrontFixture : public ::testing::Test {
 protected:
  static constexpr int64_t kDeviceBytes = 64_MiB;

  FrontFixture() {
    TinyLlama().Write(root_.path() / "tiny");
    TinyLlamaShape other;
    other.layer_count = 3;
    TinyLlama(other).Write(root_.path() / "other");
    registry_options_.model_roots = {root_.path().string()};
    registry_options_.staging_bytes = kStagingBytesMin;
    registry_options_.loader.reader_count = 1;
    front_options_.listen = "127.0.0.1:0";
    front_options_.http_listen = "127.0.0.1:0";
  }

  ~FrontFixture() override { Stop(); }

  void Start() {
    registry_ = std::make_unique<ModelRegistry>(device_, budget_, registry_options_, observers_);
    exporter_ = std::make_unique<Exporter>(device_, *registry_,
                                           std::vector<std::string>{root_.path().string()});
    absl::StatusOr<std::unique_ptr<Front>> front = StartFront();
    ASSERT_TRUE(front.ok()) << front.status();
    front_ = *std::move(front);
    channel_ =
        grpc::CreateChannel(front_->grpc_address().ToString(), grpc::InsecureChannelCredentials());
    models_ = v1::ModelService::NewStub(channel_);
    memory_ = v1::MemoryService::NewStub(channel_);
  }

  absl::StatusOr<std::unique_ptr<Front>> StartFront() {
    return Front::Start(front_options_,
                        {device_, budget_, *registry_, *exporter_, metrics_, logger_});
  }

  void Stop() {
    device_.gate().Open();
    if (registry_ != nullptr) {
      registry_->Shutdown(absl::Seconds(10));
    }
    if (front_ != nullptr) {
      front_->Shutdown(absl::Seconds(10));
    }
    front_.reset();
    exporter_.reset();
    registry_.reset();
    EXPECT_EQ(budget_.Snapshot().reserved.total(), 0);
    EXPECT_EQ(host_->QueryMemory()->free_bytes, kDeviceBytes) << "the device agrees";
  }

  // One caller of LoadModel.
  struct LoadCall {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::LoadModelResponse>> reader;

    // Reads to the end.
    grpc::Status Finish(std::vector<v1::LoadModelResponse>* responses = nullptr) {
      v1::LoadModelResponse response;
      while (reader->Read(&response)) {
        if (responses != nullptr) {
          responses->push_back(response);
        }
      }
      return reader->Finish();
    }
  };

  static v1::LoadModelRequest LoadRequestFor(const std::string& model,
                                             const std::string& source = "tiny") {
    v1::LoadModelRequest request;
    request.set_model(model);
    request.set_source(source);
    return request;
  }

  std::unique_ptr<LoadCall> StartLoad(const v1::LoadModelRequest& request) {
    auto call = std::make_unique<LoadCall>();
    call->reader = models_->LoadModel(&call->context, request);
    return call;
  }

  grpc::Status Load(const v1::LoadModelRequest& request,
                    std::vector<v1::LoadModelResponse>* responses = nullptr) {
    return StartLoad(request)->Finish(responses);
  }

  // Begins a load and returns when it stands at the closed gate, its plan read.
  std::unique_ptr<LoadCall> StartAndBlock(const v1::LoadModelRequest& request) {
    device_.gate().Close();
    std::unique_ptr<LoadCall> call = StartLoad(request);
    v1::LoadModelResponse response;
    EXPECT_TRUE(call->reader->Read(&response));
    EXPECT_TRUE(response.has_plan());
    device_.gate().AwaitWaiting(1);
    return call;
  }

  // Exports to the end.
  grpc::Status Export(const std::string& model, const std::string& directory,
                      std::vector<v1::ExportModelResponse>* responses = nullptr) {
    grpc::ClientContext context;
    v1::ExportModelRequest request;
    request.set_model(model);
    request.set_directory(directory);
    const auto reader = models_->ExportModel(&context, request);
    v1::ExportModelResponse response;
    while (reader->Read(&response)) {
      if (responses != nullptr) {
        responses->push_back(response);
      }
    }
    return reader->Finish();
  }

  grpc::Status Unload(const std::string& model, v1::UnloadModelResponse* response) {
    grpc::ClientContext context;
    v1::UnloadModelRequest request;
    request.set_model(model);
    return models_->UnloadModel(&context, request, response);
  }

  v1::GetMemoryResponse GetMemory() {
    grpc::ClientContext context;
    v1::GetMemoryResponse response;
    const grpc::Status status = memory_->GetMemory(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  v1::ListModelsResponse ListModels() {
    grpc::ClientContext context;
    v1::ListModelsResponse response;
    const grpc::Status status = models_->ListModels(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  std::string GetMetrics() { return HttpGet(front_->http_address().port, "/metrics"); }

  ScratchDirectory root_;
  std::unique_ptr<Device> host_ = OpenHostDevice(kDeviceBytes);
  GatedDevice device_{*host_};
  VramBudget budget_{kDeviceBytes};
  std::ostringstream log_;
  Logger logger_{LogLevel::kDebug, LogFormat::kText, log_};
  Metrics metrics_{"0.0.0", "none"};
  RegistryLog registry_log_{logger_, "host"};
  ObserverPair observers_{metrics_, registry_log_};
  RegistryOptions registry_options_;
  FrontOptions front_options_;
  std::unique_ptr<ModelRegistry> registry_;
  std::unique_ptr<Exporter> exporter_;
  std::unique_ptr<Front> front_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::MemoryService::Stub> memory_;
};

}  // namespace nibble
