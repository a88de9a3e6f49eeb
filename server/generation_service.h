// Text on the wire: nibble.v1.GenerationService over the models of the registry.

#pragma once

#include <nibble/v1/generation.grpc.pb.h>

#include <functional>

#include "server/logging.h"
#include "server/model_registry.h"
#include "server/task_thread.h"

namespace nibble {

// Translates and nothing else: no thread of gRPC waits or tokenizes. All arguments must outlive the
// gRPC server.
class GenerationService final : public v1::GenerationService::CallbackService {
 public:
  GenerationService(ModelRegistry& registry, Logger& logger);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  // Runs `answer` on the preparing thread and finishes the call with what it returns.
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const char* call,
                                   const std::string& model,
                                   std::function<absl::Status(const ModelHandle&)> answer);
  void Finish(grpc::ServerUnaryReactor* reactor, const char* call, const std::string& model,
              const absl::Status& status) const;

  ModelRegistry& registry_;
  Logger& logger_;
  TaskThread deliverer_;  // What streams say; of each at most one task waits.
  TaskThread preparer_;   // Ends first: what it prepares is delivered.
};

}  // namespace nibble
