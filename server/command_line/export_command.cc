#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/progress_bar.h"

namespace nibble {
namespace {

struct ExportOptions {
  std::string name;
  std::string directory;
  ClientOptions client;
};

// The daemon knows no current directory of its clients.
std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

// Follows the export to its end. Returns the summary, if it came to that.
std::optional<v1::ExportSummary> Follow(grpc::ClientReader<v1::ExportModelResponse>& reader,
                                        ProgressPrinter& printer) {
  std::optional<v1::ExportSummary> summary;
  v1::ExportModelResponse response;
  while (reader.Read(&response)) {
    printer.Update(static_cast<int64_t>(response.written_bytes()),
                   static_cast<int64_t>(response.total_bytes()));
    if (response.has_summary()) {
      summary = response.summary();
    }
  }
  printer.Finish();
  return summary;
}

int RunExport(const ExportOptions& options) {
  grpc::ClientContext context;
  // Before the channel, whose threads must not take the signals.
  const InterruptGuard interrupt([&context] { context.TryCancel(); });
  Client client(options.client);
  ProgressPrinter printer(stderr, options.name, options.client.json);
  v1::ExportModelRequest request;
  request.set_model(options.name);
  request.set_directory(AbsolutePath(options.directory));
  const auto reader = client.models().ExportModel(&context, request);
  const std::optional<v1::ExportSummary> summary = Follow(*reader, printer);
  const absl::Status status = client.Outcome(reader->Finish());
  if (interrupt.interrupted() && !summary.has_value()) {
    std::fprintf(stderr, "cancelled the export of %s, nothing is left of it\n",
                 options.name.c_str());
    return kExitFailed;
  }
  if (!status.ok()) {
    return ReportFailure(status);
  }
  if (!summary.has_value()) {
    return ReportFailure(absl::InternalError("the daemon ended the export without a summary"));
  }
  for (const std::string& warning : summary->warnings()) {
    std::fprintf(stderr, "warning: %s\n", warning.c_str());
  }
  if (options.client.json) {
    return PrintJson(*summary);
  }
  std::printf("%s exported: %d files, %s in %s\n", options.name.c_str(), summary->files_size(),
              FormatData(static_cast<int64_t>(summary->bytes())).c_str(),
              summary->directory().c_str());
  return kExitDone;
}

}  // namespace

Command ExportCommand() {
  auto options = std::make_shared<ExportOptions>();
  Command command;
  command.name = "export";
  command.summary = "writes a model as a bitsandbytes checkpoint";
  command.description =
      "Writes a loaded model, as it lies in device memory, as a bitsandbytes checkpoint: shards, "
      "index, config.json with a quantization_config, and the tokenizer's files of its source. "
      "transformers 4 and 5 load dense models from it, nibble loads all of them without quantizing "
      "again. Experts are written one by one, as transformers 4 has them; transformers 5 reads no "
      "experts in 4 bits. The daemon writes it, on its own machine, beneath a directory that it "
      "was "
      "started with as --export-root, and whole or not at all: Ctrl-C leaves nothing.";
  command.examples = {"nibble serve --model-root /models --export-root /exports &",
                      "nibble export qwen /exports/qwen-nf4"};
  command.positionals = {
      {"NAME", "The model's name, as `nibble ps` shows it.", &options->name},
      {"DIR",
       "Directory on the daemon's machine, new or empty. A relative path is one of the directory "
       "that this command stands in.",
       &options->directory}};
  command.groups = {ClientSettings(&options->client)};
  command.run = [options] { return RunExport(*options); };
  return command;
}

}  // namespace nibble
