#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"

namespace nibble {
namespace {

struct UnloadOptions {
  std::string name;
  absl::Duration drain_timeout = absl::Seconds(30);
  ClientOptions client;
};

int RunUnload(const UnloadOptions& options) {
  Client client(options.client);
  v1::UnloadModelRequest request;
  request.set_model(options.name);
  const timespec timeout = absl::ToTimespec(options.drain_timeout);
  request.mutable_drain_timeout()->set_seconds(timeout.tv_sec);
  request.mutable_drain_timeout()->set_nanos(static_cast<int32_t>(timeout.tv_nsec));
  grpc::ClientContext context;
  v1::UnloadModelResponse response;
  const absl::Status status =
      client.Outcome(client.models().UnloadModel(&context, request, &response));
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (options.client.json) {
    return PrintJson(response);
  }
  const auto freed = static_cast<int64_t>(response.freed_bytes());
  std::printf("%s unloaded, %s (%s bytes) are back in the budget\n", options.name.c_str(),
              FormatMemory(freed).c_str(), FormatExact(freed).c_str());
  return kExitDone;
}

}  // namespace

Command UnloadCommand() {
  auto options = std::make_shared<UnloadOptions>();
  Command command;
  command.name = "unload";
  command.summary = "takes a model out and returns its memory";
  command.description =
      "Takes a model out of the daemon: cancels its load, or lets its running requests end, frees "
      "its memory, and returns when the bytes are back in the budget.";
  command.examples = {"nibble unload qwen",
                      "nibble unload qwen --drain-timeout 0s   # abort running requests at once"};
  command.positionals = {{"NAME", "The model's name, as `nibble ps` shows it.", &options->name}};
  command.groups = {
      {"Unloading",
       {DurationSetting("drain-timeout",
                        "How long running requests may go on before they are aborted.",
                        &options->drain_timeout)}},
      ClientSettings(&options->client),
  };
  command.run = [options] { return RunUnload(*options); };
  return command;
}

}  // namespace nibble
