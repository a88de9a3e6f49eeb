#include "server/memory_service.h"

#include "server/answer_messages.h"
#include "server/grpc_status.h"
#include "server/request_messages.h"
#include "server/system_memory.h"
#include "server/watch_stream.h"

namespace nibble {

MemoryService::MemoryService(const ModelRegistry& registry, VramBudget& budget,
                             const Device& device, ChangeFeed& feed, Logger& logger)
    : registry_(registry), budget_(budget), device_(device), feed_(feed), logger_(logger) {}

grpc::ServerUnaryReactor* MemoryService::GetMemory(grpc::CallbackServerContext* context,
                                                   const v1::GetMemoryRequest*,
                                                   v1::GetMemoryResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  *response = MemoryMessage(*registry_.Snapshot(), SampleMemory(device_, registry_));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerWriteReactor<v1::GetMemoryResponse>* MemoryService::WatchMemory(
    grpc::CallbackServerContext*, const v1::WatchMemoryRequest* request) {
  using Stream = WatchStream<v1::GetMemoryResponse>;
  const absl::StatusOr<absl::Duration> interval = ParseWatchInterval(*request);
  if (!interval.ok()) {
    LogRequest(logger_, "WatchMemory", "", "", interval.status());
    return Stream::Refuse(feed_, interval.status());
  }
  return Stream::Start(feed_, *interval, [this] {
    return MemoryMessage(*registry_.Snapshot(), SampleMemory(device_, registry_));
  });
}

grpc::ServerUnaryReactor* MemoryService::SetBudget(grpc::CallbackServerContext* context,
                                                   const v1::SetBudgetRequest* request,
                                                   v1::SetBudgetResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const absl::StatusOr<int64_t> limit_bytes = ChangeBudget(*request);
  if (limit_bytes.ok()) {
    response->set_budget_bytes(static_cast<uint64_t>(*limit_bytes));
    logger_.Log(LogLevel::kInfo, "budget changed", {{"budget_bytes", *limit_bytes}});
  }
  LogRequest(logger_, "SetBudget", "", "", limit_bytes.status());
  reactor->Finish(ToGrpcStatus(limit_bytes.status()));
  return reactor;
}

absl::StatusOr<int64_t> MemoryService::ChangeBudget(const v1::SetBudgetRequest& request) {
  const absl::StatusOr<Device::Memory> memory = device_.QueryMemory();
  if (!memory.ok()) {
    registry_.CheckDevice();
    return memory.status();
  }
  absl::StatusOr<int64_t> limit_bytes = ParseBudget(request, device_.name(), memory->total_bytes);
  if (!limit_bytes.ok()) {
    return limit_bytes;
  }
  if (absl::Status status = budget_.SetLimit(*limit_bytes); !status.ok()) {
    return status;
  }
  return limit_bytes;
}

}  // namespace nibble
