#include "server/model_service.h"

#include <memory>
#include <utility>

#include "loader/printable.h"
#include "server/answer_messages.h"
#include "server/export_stream.h"
#include "server/grpc_status.h"
#include "server/host_memory.h"
#include "server/load_stream.h"
#include "server/request_messages.h"
#include "server/watch_stream.h"

namespace nibble {
namespace {

// Changes of models are rare; ten lists a second follow every load closely enough.
constexpr absl::Duration kListInterval = absl::Milliseconds(100);

}  // namespace

ModelService::ModelService(ModelRegistry& registry, Exporter& exporter, ChangeFeed& feed,
                           Logger& logger, std::string device)
    : registry_(registry),
      exporter_(exporter),
      feed_(feed),
      logger_(logger),
      device_(std::move(device)) {}

grpc::ServerWriteReactor<v1::LoadModelResponse>* ModelService::LoadModel(
    grpc::CallbackServerContext*, const v1::LoadModelRequest* request) {
  const absl::StatusOr<LoadRequest> parsed = ParseLoad(*request, device_);
  if (!parsed.ok()) {
    LoadRequest refused;
    refused.model = request->model();
    refused.request_id = request->request_id();
    return LoadStream::Refuse(registry_, logger_, refused, parsed.status());
  }
  return LoadStream::Start(registry_, logger_, *parsed, device_);
}

grpc::ServerUnaryReactor* ModelService::UnloadModel(grpc::CallbackServerContext* context,
                                                    const v1::UnloadModelRequest* request,
                                                    v1::UnloadModelResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::StatusOr<absl::Duration> timeout = ParseDrainTimeout(*request);
  if (!timeout.ok()) {
    Finish(reactor, "UnloadModel", request->model(), timeout.status());
    return reactor;
  }
  // The client may leave while the model drains; context and messages live until Finish all the
  // same.
  registry_.Unload(request->model(), *timeout,
                   [this, reactor, response,
                    model = request->model()](const absl::StatusOr<int64_t>& freed_bytes) {
                     if (freed_bytes.ok()) {
                       response->set_freed_bytes(static_cast<uint64_t>(*freed_bytes));
                     }
                     Finish(reactor, "UnloadModel", model, freed_bytes.status());
                   });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::PlanModel(grpc::CallbackServerContext* context,
                                                  const v1::PlanModelRequest* request,
                                                  v1::PlanModelResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  absl::StatusOr<PlanRequest> parsed = ParsePlan(*request);
  if (!parsed.ok()) {
    Finish(reactor, "PlanModel", "", parsed.status());
    return reactor;
  }
  registry_.Plan(std::move(parsed->source), std::move(parsed->quantization), parsed->serving,
                 [this, reactor, response,
                  source = request->source()](const absl::StatusOr<PlanAnswer>& plan) {
                   Finish(reactor, "PlanModel", "", WithinHostMemory(Printable(source), [&] {
                            if (plan.ok()) {
                              *response->mutable_plan() = PlanMessage(*plan, PlanDetail::kTensors);
                            }
                            return plan.status();
                          }));
                 });
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::GetModel(grpc::CallbackServerContext* context,
                                                 const v1::GetModelRequest* request,
                                                 v1::GetModelResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::StatusOr<ModelInfo> info = registry_.Get(request->model());
  if (info.ok()) {
    *response->mutable_model() = Describe(*info);
    *response->mutable_report() = ReportMessage(*info);
  }
  Finish(reactor, "GetModel", request->model(), info.status());
  return reactor;
}

grpc::ServerUnaryReactor* ModelService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest*,
                                                   v1::ListModelsResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  FillList(*response);
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::WatchModelsResponse>* ModelService::WatchModels(
    grpc::CallbackServerContext*, const v1::WatchModelsRequest*) {
  return WatchStream<v1::WatchModelsResponse>::Start(feed_, kListInterval, [this] {
    v1::WatchModelsResponse response;
    FillList(response);
    return response;
  });
}

grpc::ServerWriteReactor<v1::ExportModelResponse>* ModelService::ExportModel(
    grpc::CallbackServerContext*, const v1::ExportModelRequest* request) {
  return ExportStream::Start(exporter_, logger_, {request->model(), request->directory()});
}

v1::Model ModelService::Describe(const ModelInfo& info) const {
  v1::Model message = ModelMessage(info, device_);
  if (info.state == ModelState::kLoading) {
    *message.mutable_progress() = ProgressMessage(registry_.Progress(info.name));
  }
  return message;
}

template <typename Response>
void ModelService::FillList(Response& response) const {
  const std::shared_ptr<const StateSnapshot> snapshot = registry_.Snapshot();
  response.set_sequence(snapshot->ledger.sequence);
  for (const ModelInfo& info : snapshot->models) {
    *response.add_models() = Describe(info);
  }
}

void ModelService::Finish(grpc::ServerUnaryReactor* reactor, absl::string_view call,
                          absl::string_view model, const absl::Status& status) const {
  LogRequest(logger_, call, model, "", status);
  reactor->Finish(ToGrpcStatus(status));
}

}  // namespace nibble
