// The control plane on the wire: nibble.v1.ModelService over the registry.

#pragma once

#include <nibble/v1/model.grpc.pb.h>

#include <string>

#include "server/change_feed.h"
#include "server/exporter.h"
#include "server/logging.h"
#include "server/model_registry.h"

namespace nibble {

// Translates and nothing else: each call is checked, handed to the registry, and answered from its
// callback, so that no thread of gRPC ever waits. All arguments must outlive the gRPC server.
class ModelService final : public v1::ModelService::CallbackService {
 public:
  // `device` is the name of the daemon's device, as in --device.
  ModelService(ModelRegistry& registry, Exporter& exporter, ChangeFeed& feed, Logger& logger,
               std::string device);

  grpc::ServerWriteReactor<v1::LoadModelResponse>* LoadModel(
      grpc::CallbackServerContext* context, const v1::LoadModelRequest* request) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* context,
                                        const v1::UnloadModelRequest* request,
                                        v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* PlanModel(grpc::CallbackServerContext* context,
                                      const v1::PlanModelRequest* request,
                                      v1::PlanModelResponse* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context,
                                     const v1::GetModelRequest* request,
                                     v1::GetModelResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context,
                                       const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchModelsResponse>* WatchModels(
      grpc::CallbackServerContext* context, const v1::WatchModelsRequest* request) override;
  grpc::ServerWriteReactor<v1::ExportModelResponse>* ExportModel(
      grpc::CallbackServerContext* context, const v1::ExportModelRequest* request) override;

 private:
  v1::Model Describe(const ModelInfo& info) const;

  // Fills `response` (ListModels and WatchModels answer alike) from one snapshot.
  template <typename Response>
  void FillList(Response& response) const;

  // Answers a unary call, and logs it if it failed.
  void Finish(grpc::ServerUnaryReactor* reactor, absl::string_view call, absl::string_view model,
              const absl::Status& status) const;

  ModelRegistry& registry_;
  Exporter& exporter_;
  ChangeFeed& feed_;
  Logger& logger_;
  const std::string device_;
};

}  // namespace nibble
