#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "kernels/device.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"

namespace nibble {
namespace {

int RunVersion(bool json) {
  const std::vector<std::string> gpus = ListCudaDevices();
  if (json) {
    nlohmann::ordered_json answer = {{"version", NIBBLE_VERSION}, {"cuda", CudaVersionText()}};
    answer["gpus"] = gpus;
    std::puts(answer.dump(1).c_str());
    return kExitDone;
  }
  std::printf("nibble %s, CUDA %s\n", NIBBLE_VERSION, CudaVersionText().c_str());
  for (const std::string& gpu : gpus) {
    std::printf("  %s\n", gpu.c_str());
  }
  return kExitDone;
}

}  // namespace

Command VersionCommand() {
  auto json = std::make_shared<bool>(false);
  Command command;
  command.name = "version";
  command.summary = "says which version this is and which GPUs it can drive";
  command.description =
      "Says which version this is, whether it was built with CUDA, and which GPUs it can drive.";
  command.examples = {"nibble version"};
  command.groups = {{"Output", {JsonSetting(json.get())}}};
  command.run = [json] { return RunVersion(*json); };
  return command;
}

}  // namespace nibble
