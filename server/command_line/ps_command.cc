#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/plan_table.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

using Align = TextTable::Align;

struct PsOptions {
  std::string report;
  ClientOptions client;
};

std::string MemoryOrNone(uint64_t bytes) {
  return bytes == 0 ? "-" : FormatMemory(static_cast<int64_t>(bytes));
}

// A model that failed holds nothing.
uint64_t HeldBytes(const v1::Model& model) {
  return model.state() == v1::FAILED ? 0 : model.plan().resident_bytes();
}

// What is held in 4 bits; what was asked for until that is known.
std::string FormatsText(const v1::Model& model) {
  if (!model.formats().empty()) {
    return model.formats();
  }
  return v1::WeightFormat_Name(model.has_plan() ? v1::AS_STORED : model.quantization().format());
}

// LOADING 62%, READY, FAILED.
std::string StateText(const v1::Model& model) {
  std::string state = v1::ModelState_Name(model.state());
  if (model.state() != v1::LOADING || model.progress().source_bytes() == 0) {
    return state;
  }
  return absl::StrFormat("%s %.0f%%", state,
                         100 * static_cast<double>(model.progress().read_bytes()) /
                             static_cast<double>(model.progress().source_bytes()));
}

// "3m ago", "-".
std::string LastUsed(const v1::Model& model) {
  if (!model.has_last_used()) {
    return "-";
  }
  const absl::Time used = absl::FromUnixSeconds(model.last_used().seconds());
  const absl::Duration age = absl::Trunc(absl::Now() - used, absl::Seconds(1));
  return absl::StrCat(absl::FormatDuration(std::max(age, absl::ZeroDuration())), " ago");
}

void PrintModels(const v1::ListModelsResponse& response) {
  if (response.models().empty()) {
    std::puts("no models");
    return;
  }
  TextTable table({Align::kLeft, Align::kLeft, Align::kLeft, Align::kRight, Align::kRight,
                   Align::kRight, Align::kLeft, Align::kLeft});
  table.AddRow({"NAME", "STATE", "FORMAT", "RESIDENT", "PEAK", "LOADED IN", "USED", "SOURCE"});
  for (const v1::Model& model : response.models()) {
    table.AddRow({model.model(), StateText(model), FormatsText(model),
                  MemoryOrNone(HeldBytes(model)), MemoryOrNone(model.peak_bytes()),
                  model.load_seconds() > 0 ? absl::StrFormat("%.2f s", model.load_seconds()) : "-",
                  LastUsed(model), model.source()});
  }
  std::fputs(table.Render().c_str(), stdout);
  for (const v1::Model& model : response.models()) {
    if (!model.failure().empty()) {
      std::printf("%s failed: %s\n", model.model().c_str(), model.failure().c_str());
    }
  }
}

int RunReport(const PsOptions& options) {
  Client client(options.client);
  v1::GetModelRequest request;
  request.set_model(options.report);
  grpc::ClientContext context;
  v1::GetModelResponse response;
  const absl::Status status =
      client.Outcome(client.models().GetModel(&context, request, &response));
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (options.client.json) {
    return PrintJson(response);
  }
  const v1::LoadReport& report = response.report();
  std::printf("%s  %s  %s\n\n%s\n%s  %.2f %% of the weights in 4 bits\n",
              response.model().model().c_str(), StateText(response.model()).c_str(),
              response.model().source().c_str(), RenderTensors(report.tensors()).c_str(),
              RenderGroups(report.tensors()).c_str(), 100 * report.quantized_ratio());
  for (const std::string& warning : report.warnings()) {
    std::printf("warning: %s\n", warning.c_str());
  }
  return kExitDone;
}

int RunPs(const PsOptions& options) {
  if (!options.report.empty()) {
    return RunReport(options);
  }
  Client client(options.client);
  grpc::ClientContext context;
  v1::ListModelsResponse response;
  const absl::Status status = client.Outcome(client.models().ListModels(&context, {}, &response));
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (options.client.json) {
    return PrintJson(response);
  }
  PrintModels(response);
  return kExitDone;
}

}  // namespace

Command PsCommand() {
  auto options = std::make_shared<PsOptions>();
  Command command;
  command.name = "ps";
  command.summary = "lists the models the daemon holds";
  command.description =
      "Lists the daemon's models: state, format, device memory when loaded, the most it took while "
      "loading (measured), and the source. With --report, every tensor of one model and what "
      "became "
      "of it: format, bytes, or why it was kept.";
  command.examples = {"nibble ps", "nibble ps --report qwen",
                      "nibble ps --json | jq -r '.models[] | .model + \" \" + .state'"};
  command.groups = {
      {"What to show",
       {TextSetting("report", "NAME", "Shows the load report of this model.", &options->report)}},
      ClientSettings(&options->client),
  };
  command.run = [options] { return RunPs(*options); };
  return command;
}

}  // namespace nibble
