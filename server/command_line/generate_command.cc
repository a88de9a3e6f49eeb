#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include "server/command_line/answer_printer.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/sampling_settings.h"

namespace nibble {
namespace {

struct GenerateOptions {
  std::string name;
  std::string prompt;
  bool chat = false;
  bool echo = false;
  SamplingFlags sampling;
  ClientOptions client;
};

std::string ReadPrompt(const std::string& argument) {
  if (!argument.empty()) {
    return argument;
  }
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

int RunGenerate(const GenerateOptions& options) {
  grpc::ClientContext context;
  // Before the channel, whose threads must not take the signals.
  const InterruptGuard interrupt([&context] { context.TryCancel(); });
  Client client(options.client);
  v1::GenerateRequest request = RequestOf(options.sampling, options.name);
  const std::string prompt = ReadPrompt(options.prompt);
  if (options.chat) {
    v1::Message& message = *request.add_messages();
    message.set_role("user");
    message.set_content(prompt);
    request.set_split_answer(true);
  } else {
    request.set_prompt(prompt);
  }
  request.set_echo(options.echo);
  const auto reader = client.generation().Generate(&context, request);
  v1::GenerateResponse response;
  AnswerPrinter answer(StdoutIsTerminal());
  while (reader->Read(&response)) {
    if (options.client.json) {
      PrintJson(response);
    } else {
      answer.Print(response);
    }
  }
  if (!options.client.json) {
    answer.Finish();
  }
  const absl::Status status = client.Outcome(reader->Finish());
  if (interrupt.interrupted()) {
    return kExitFailed;  // Whoever stopped it knows.
  }
  return status.ok() ? kExitDone : ReportFailure(status);
}

}  // namespace

Command GenerateCommand() {
  auto options = std::make_shared<GenerateOptions>();
  Command command;
  command.name = "generate";
  command.summary = "continues a text";
  command.description =
      "Sends a prompt to a loaded model and prints what comes, as it comes. Without PROMPT it is "
      "read from standard input to its end. Ctrl-C ends the answer.";
  command.examples = {"nibble generate demo \"Once upon a time\"",
                      "nibble generate qwen --chat \"What is a nibble?\" --temperature 0",
                      "nibble generate qwen < prompt.txt --max-tokens 200"};
  command.positionals = {{"NAME", "The model's name, as `nibble ps` shows it.", &options->name},
                         {"PROMPT", "The text to continue; standard input if it is not given.",
                          &options->prompt, false}};
  command.groups = {
      {"The prompt",
       {SwitchSetting(
            "chat",
            "The prompt is a user's message, and goes through the model's chat template. What the "
            "model thinks before it answers is shown dimmed on a terminal, and nowhere else.",
            &options->chat),
        SwitchSetting("echo", "Prints the prompt too, as the model has read it.", &options->echo)}},
      SamplingSettings(&options->sampling),
      ClientSettings(&options->client)};
  command.run = [options] { return RunGenerate(*options); };
  return command;
}

}  // namespace nibble
