#include <cstdio>
#include <limits>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "loader/load_plan.h"
#include "server/answer_messages.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/local_source.h"
#include "server/command_line/plan_table.h"
#include "server/command_line/spec_settings.h"
#include "server/device_choice.h"
#include "server/engine/serving_plan.h"

namespace nibble {
namespace {

struct PlanOptions {
  std::string source;
  QuantizationSpec quantization;
  ServingSpec serving;
  std::string device = "host";
  int64_t staging_bytes = kStagingBytesDefault;
  std::optional<int64_t> budget_bytes;
  std::optional<int64_t> runtime_bytes;
  bool tensors = false;
  bool json = false;
};

// How the plan stands against --vram-budget; without one it stands against nothing and fits.
v1::Plan Answer(const PlanOptions& options, LoadPlan plan) {
  PlanAnswer answer;
  const int64_t runtime_default = plan.traits.kind == DeviceKind::kCuda ? kCudaRuntimeBytes : 0;
  const int64_t runtime = options.runtime_bytes.value_or(runtime_default);
  answer.plan = std::make_shared<const LoadPlan>(std::move(plan));
  answer.limit_bytes = options.budget_bytes.value_or(std::numeric_limits<int64_t>::max());
  answer.available_bytes = std::max<int64_t>(answer.limit_bytes - runtime, 0);
  answer.remedies = Remedies(*answer.plan, answer.available_bytes, answer.available_bytes);
  v1::Plan message = PlanMessage(answer, PlanDetail::kTensors);
  if (!options.budget_bytes.has_value()) {
    message.clear_budget_bytes();
    message.clear_available_bytes();
  }
  return message;
}

int RunPlan(const PlanOptions& options) {
  const absl::StatusOr<Checkpoint> checkpoint = OpenLocalCheckpoint(options.source);
  if (!checkpoint.ok()) {
    return ReportFailure(checkpoint.status());
  }
  absl::StatusOr<LoadPlan> plan = MakeLoadPlan(*checkpoint, options.quantization, options.serving,
                                               *TraitsOf(options.device), options.staging_bytes);
  if (!plan.ok()) {
    return ReportFailure(plan.status());
  }
  if (const PlannedServing serving = PlanServing(*checkpoint, *plan); !serving.plan_status.ok()) {
    return ReportFailure(serving.plan_status);
  }
  const v1::Plan message = Answer(options, *std::move(plan));
  if (options.json) {
    return PrintJson(message);
  }
  std::printf("%s, planned for %s\n%s", options.source.c_str(),
              options.device == "host" ? "the host device" : "a CUDA device",
              RenderPlan(message).c_str());
  if (options.tensors) {
    std::printf("\n%s", RenderTensors(message.tensors()).c_str());
  }
  return kExitDone;
}

std::vector<Setting> DeviceSettings(PlanOptions* options) {
  return {
      DeviceSetting("The kind of device to plan for, host or cuda: they differ in how allocations "
                    "are rounded.",
                    &options->device),
      SizeSetting("staging", "Staging memory of the daemon, the fixed part of every load's peak.",
                  "128MiB", [options](int64_t bytes) { options->staging_bytes = bytes; }),
      SizeSetting("vram-budget",
                  "Budget to hold the plan against, in bytes: a share would need the device.",
                  "none", [options](int64_t bytes) { options->budget_bytes = bytes; }),
      SizeSetting("runtime-reserve",
                  "What the daemon sets aside of the budget for the CUDA context and modules.",
                  "1GiB on cuda, 0 on the host",
                  [options](int64_t bytes) { options->runtime_bytes = bytes; }),
  };
}

}  // namespace

Command PlanCommand() {
  auto options = std::make_shared<PlanOptions>();
  Command command;
  command.name = "plan";
  command.summary = "says to the byte what a load would take, without a daemon";
  command.description =
      "Reads a checkpoint's headers, no tensor data, and says to the byte what loading it would "
      "take: "
      "source, weights, staging, peak, the share in 4 bits, and why the rest is kept. With "
      "--vram-budget it says whether that fits and what would help; that it does not fit is an "
      "answer, "
      "not a failure: the exit code is 0 (scripts read `fits` of --json). The daemon plans the "
      "same.";
  command.examples = {
      "nibble plan /models/Qwen3-30B-A3B",
      "nibble plan hf:org/model --device cuda --vram-budget 24GiB",
      "nibble plan . --tensors                             # every tensor, and why it is kept",
      "nibble plan . --vram-budget 8GB --json | jq '.fits, .shortfall_bytes'",
  };
  command.positionals = {
      {"SOURCE",
       "Directory of a Hugging Face checkpoint (safetensors), or hf:org/name[@revision] in this "
       "user's local cache.",
       &options->source}};
  command.groups = {
      {"The device", DeviceSettings(options.get())},
      {"Output",
       {SwitchSetting("tensors", "Lists every tensor.", &options->tensors),
        JsonSetting(&options->json)}},
      {"Quantization", QuantizationSettings(&options->quantization)},
      {"Serving", ServingSettings(&options->serving)},
  };
  command.run = [options] { return RunPlan(*options); };
  return command;
}

}  // namespace nibble
