#include <cstdio>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/answer_messages.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/local_source.h"
#include "server/command_line/progress_bar.h"
#include "server/command_line/spec_settings.h"

namespace nibble {
namespace {

struct LoadOptions {
  std::string name;
  std::string source;
  QuantizationSpec quantization;
  ServingSpec serving;
  v1::WhenFull when_full = v1::REFUSE;
  absl::Duration keep_alive = absl::InfiniteDuration();
  bool pinned = false;
  bool detach = false;
  std::string request_id;
  ClientOptions client;
};

v1::LoadModelRequest MakeRequest(const LoadOptions& options) {
  v1::LoadModelRequest request;
  request.set_model(options.name);
  request.set_source(AbsoluteIfLocal(options.source));
  *request.mutable_quantization() = QuantizationMessage(options.quantization);
  *request.mutable_serving() = ServingMessage(options.serving);
  request.set_when_full(options.when_full);
  if (options.keep_alive != absl::InfiniteDuration()) {
    const timespec time = absl::ToTimespec(options.keep_alive);
    request.mutable_keep_alive()->set_seconds(time.tv_sec);
    request.mutable_keep_alive()->set_nanos(static_cast<int32_t>(time.tv_nsec));
  }
  request.set_pinned(options.pinned);
  request.set_detach(options.detach);
  request.set_request_id(options.request_id);
  return request;
}

std::string MemoryText(uint64_t bytes) { return FormatMemory(static_cast<int64_t>(bytes)); }

std::string PlannedLine(const std::string& name, const v1::Plan& plan) {
  return absl::StrCat(
      name, "  planned: reads ", FormatData(static_cast<int64_t>(plan.source_bytes())), ", peak ",
      MemoryText(plan.peak_bytes()), " = resident ", MemoryText(plan.resident_bytes()),
      " + staging ", MemoryText(plan.staging_bytes()),
      absl::StrFormat(", %.2f %% in 4 bits", 100 * plan.quantized_ratio()));
}

std::string ReadyLine(const v1::Model& model) {
  const double rate = model.load_seconds() > 0
                          ? static_cast<double>(model.read_bytes()) / model.load_seconds() / 1e9
                          : 0;
  return absl::StrCat(
      model.model(), "  ready: resident ", MemoryText(model.plan().resident_bytes()), ", peak ",
      MemoryText(model.peak_bytes()), ", read ",
      FormatData(static_cast<int64_t>(model.read_bytes())),
      model.loaded_from() == v1::LOADED_FROM_CACHE ? " from the cache" : "",
      absl::StrFormat(", %.2f s, %.2f GB/s, %.2f %% in 4 bits", model.load_seconds(), rate,
                      100 * model.plan().quantized_ratio()));
}

// Follows the load to its end. Returns the last model, if it came to that.
std::optional<v1::Model> Follow(grpc::ClientReader<v1::LoadModelResponse>& reader,
                                const std::string& name, ProgressPrinter& printer) {
  std::optional<v1::Model> model;
  v1::LoadModelResponse response;
  while (reader.Read(&response)) {
    switch (response.event_case()) {
      case v1::LoadModelResponse::kPlan:
        printer.Say(PlannedLine(name, response.plan()));
        for (const std::string& warning : response.plan().warnings()) {
          printer.Say(absl::StrCat("warning: ", warning));
        }
        break;
      case v1::LoadModelResponse::kProgress:
        printer.Update(static_cast<int64_t>(response.progress().read_bytes()),
                       static_cast<int64_t>(response.progress().source_bytes()));
        break;
      case v1::LoadModelResponse::kModel:
        model = response.model();
        break;
      case v1::LoadModelResponse::EVENT_NOT_SET:
        break;
    }
  }
  printer.Finish();
  return model;
}

int RunLoad(const LoadOptions& options) {
  grpc::ClientContext context;
  // Before the channel, whose threads must not take the signals.
  InterruptGuard interrupt([&context] { context.TryCancel(); });
  Client client(options.client);
  ProgressPrinter printer(stderr, options.name, options.client.json);
  const auto reader = client.models().LoadModel(&context, MakeRequest(options));
  const std::optional<v1::Model> model = Follow(*reader, options.name, printer);
  const absl::Status status = client.Outcome(reader->Finish());
  if (interrupt.interrupted() && !model.has_value()) {
    std::fprintf(stderr,
                 options.detach ? "left; the load of %s goes on, see `nibble ps`\n"
                                : "cancelled the load of %s\n",
                 options.name.c_str());
    return options.detach ? kExitDone : kExitFailed;
  }
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (!model.has_value()) {
    return ReportFailure(absl::InternalError("the daemon ended the load without a model"));
  }
  if (options.client.json) {
    return PrintJson(*model);
  }
  if (!model->cache_fallback().empty()) {
    std::fprintf(stderr, "warning: loaded from the source, not from the cache: %s\n",
                 model->cache_fallback().c_str());
  }
  std::puts(ReadyLine(*model).c_str());
  return kExitDone;
}

std::vector<Setting> LoadingSettings(LoadOptions* options) {
  return {
      ChoiceSetting("when-full", "What to do if the load does not fit beside what is loaded.",
                    {"REFUSE", "WAIT", "EVICT_IDLE"}, 0,
                    [options](size_t index) {
                      options->when_full = static_cast<v1::WhenFull>(v1::REFUSE + index);
                    }),
      DurationSetting("keep-alive", "How long the model stays without a request.",
                      &options->keep_alive),
      SwitchSetting("pinned", "Never evicts the model.", &options->pinned),
      SwitchSetting("detach", "Goes on loading when this command is interrupted or dies.",
                    &options->detach),
      TextSetting("request-id", "TEXT", "Appears in the daemon's log beside this load.",
                  &options->request_id),
  };
}

}  // namespace

Command LoadCommand() {
  auto options = std::make_shared<LoadOptions>();
  Command command;
  command.name = "load";
  command.summary = "loads a checkpoint, quantized while it streams in";
  command.description =
      "Loads a checkpoint into the daemon under a name: plans it to the byte, reserves its peak, "
      "then "
      "streams and quantizes it. A load that does not fit is refused before any of it is read, "
      "with "
      "the figures and what would make it fit. Asking again for the same name and the same spec "
      "joins "
      "the load or returns at once. Ctrl-C cancels the load. `nibble plan` says beforehand what it "
      "will take.";
  command.examples = {
      "nibble load qwen /models/Qwen3-30B-A3B --weights-only",
      "nibble load tuned hf:org/model@main --block-size 128 --keep '*.layers.0.*'",
      "nibble load qwen Qwen3-30B-A3B --json > model.json   # a path under a model root",
  };
  command.positionals = {
      {"NAME", "Name that clients will use: letters, digits and ._:/-, at most 128.",
       &options->name},
      {"SOURCE",
       "Directory of a Hugging Face checkpoint (safetensors) beneath one of the daemon's model "
       "roots, or hf:org/name[@revision] in its local cache.",
       &options->source}};
  command.groups = {{"Quantization", QuantizationSettings(&options->quantization)},
                    {"Serving", ServingSettings(&options->serving)},
                    {"Loading", LoadingSettings(options.get())},
                    ClientSettings(&options->client)};
  command.run = [options] { return RunLoad(*options); };
  return command;
}

}  // namespace nibble
