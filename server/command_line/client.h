// The way from a command to the daemon, and what all client commands share.

#pragma once

#include <grpcpp/client_context.h>
#include <nibble/v1/generation.grpc.pb.h>
#include <nibble/v1/memory.grpc.pb.h>
#include <nibble/v1/model.grpc.pb.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/command_line/command.h"

namespace nibble {

struct ClientOptions {
  std::string address = "127.0.0.1:50051";
  bool json = false;
};

// --address and --json. `options` must outlive them.
SettingGroup ClientSettings(ClientOptions* options);

// --json alone, for commands without a daemon.
Setting JsonSetting(bool* json);

// Stubs on one channel. Thread-safe.
class Client {
 public:
  explicit Client(const ClientOptions& options);

  v1::ModelService::Stub& models() { return *models_; }
  v1::MemoryService::Stub& memory() { return *memory_; }
  v1::GenerationService::Stub& generation() { return *generation_; }

  // The outcome of a call, with the address and what to do if no daemon answered.
  absl::Status Outcome(const grpc::Status& status) const;

 private:
  const std::string address_;
  std::unique_ptr<v1::ModelService::Stub> models_;
  std::unique_ptr<v1::MemoryService::Stub> memory_;
  std::unique_ptr<v1::GenerationService::Stub> generation_;
};

// Prints `message` as JSON to stdout, with the field names of the .proto files and every field.
//
// Returns: kExitDone.
int PrintJson(const google::protobuf::Message& message);

}  // namespace nibble
