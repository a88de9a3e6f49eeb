#include "server/command_line/client.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "server/command_line/failure.h"

namespace nibble {

SettingGroup ClientSettings(ClientOptions* options) {
  return {
      "The daemon",
      {TextSetting("address", "HOST:PORT",
                   "Where the daemon listens for gRPC: an address and a port.", &options->address),
       JsonSetting(&options->json)}};
}

Setting JsonSetting(bool* json) {
  return SwitchSetting(
      "json",
      "Prints the answer as JSON, with the field names of the .proto files (64-bit "
      "numbers are strings there).",
      json);
}

Client::Client(const ClientOptions& options) : address_(options.address) {
  grpc::ChannelArguments arguments;
  // A report of every tensor of a large model is more than the default of 4 MiB.
  arguments.SetMaxReceiveMessageSize(-1);
  // A proxy between this machine and itself is never what was meant.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments);
  models_ = v1::ModelService::NewStub(channel);
  memory_ = v1::MemoryService::NewStub(channel);
  generation_ = v1::GenerationService::NewStub(channel);
}

absl::Status Client::Outcome(const grpc::Status& status) const {
  // Without details it was not the daemon that answered.
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE && status.error_details().empty()) {
    return absl::UnavailableError(
        absl::StrCat("no daemon answers at ", address_, " (", status.error_message(),
                     "); start one with `nibble serve`, or name its address with --address"));
  }
  return FromGrpcStatus(status);
}

int PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    return ReportFailure(absl::InternalError(
        absl::StrCat("the answer cannot be written as JSON: ", std::string(status.message()))));
  }
  std::fputs(json.c_str(), stdout);
  return kExitDone;
}

}  // namespace nibble
