// Where every byte is, on the wire: nibble.v1.MemoryService over ledger and device.

#pragma once

#include <nibble/v1/memory.grpc.pb.h>

#include "kernels/device.h"
#include "loader/vram_budget.h"
#include "server/change_feed.h"
#include "server/logging.h"
#include "server/model_registry.h"

namespace nibble {

// All arguments must outlive the gRPC server.
class MemoryService final : public v1::MemoryService::CallbackService {
 public:
  MemoryService(const ModelRegistry& registry, VramBudget& budget, const Device& device,
                ChangeFeed& feed, Logger& logger);

  grpc::ServerUnaryReactor* GetMemory(grpc::CallbackServerContext* context,
                                      const v1::GetMemoryRequest* request,
                                      v1::GetMemoryResponse* response) override;
  grpc::ServerWriteReactor<v1::GetMemoryResponse>* WatchMemory(
      grpc::CallbackServerContext* context, const v1::WatchMemoryRequest* request) override;
  grpc::ServerUnaryReactor* SetBudget(grpc::CallbackServerContext* context,
                                      const v1::SetBudgetRequest* request,
                                      v1::SetBudgetResponse* response) override;

 private:
  // The limit after the change.
  absl::StatusOr<int64_t> ChangeBudget(const v1::SetBudgetRequest& request);

  const ModelRegistry& registry_;
  VramBudget& budget_;
  const Device& device_;
  ChangeFeed& feed_;
  Logger& logger_;
};

}  // namespace nibble
