#include <editline/readline.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "server/command_line/answer_printer.h"
#include "server/command_line/client.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/interrupt.h"
#include "server/command_line/sampling_settings.h"

namespace nibble {
namespace {

struct ChatOptions {
  std::string name;
  std::string system;
  SamplingFlags sampling;
  ClientOptions client;
};

// A line of the user, with history; nothing at the end of the input.
std::optional<std::string> ReadUserLine() {
  const std::unique_ptr<char, decltype(&std::free)> line(readline(">>> "), &std::free);
  if (line == nullptr) {
    return std::nullopt;
  }
  if (*line != '\0') {
    add_history(line.get());
  }
  return std::string(line.get());
}

void AddMessage(v1::GenerateRequest& request, const char* role, const std::string& content) {
  v1::Message& message = *request.add_messages();
  message.set_role(role);
  message.set_content(content);
}

// Prints the answer as it comes. Ctrl-C ends it, and what was said until then stays said.
absl::Status Answer(Client& client, const v1::GenerateRequest& request, AnswerPrinter& answer) {
  grpc::ClientContext context;
  const InterruptGuard interrupt([&context] { context.TryCancel(); });
  const auto reader = client.generation().Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    answer.Print(response);
  }
  answer.Finish();
  const absl::Status status = client.Outcome(reader->Finish());
  return interrupt.interrupted() ? absl::OkStatus() : status;
}

int RunChat(const ChatOptions& options) {
  std::signal(SIGINT, SIG_IGN);  // At the prompt; while an answer comes the guard takes it.
  std::unique_ptr<Client> client;
  {
    // The channel's threads begin with these signals blocked, so that each answer's guard has them.
    const InterruptGuard guard([] {});
    client = std::make_unique<Client>(options.client);
  }
  v1::GenerateRequest request = RequestOf(options.sampling, options.name);
  request.set_split_answer(true);
  if (!options.system.empty()) {
    AddMessage(request, "system", options.system);
  }
  bool has_failed = false;
  while (const std::optional<std::string> line = ReadUserLine()) {
    if (line->empty()) {
      continue;
    }
    AddMessage(request, "user", *line);
    AnswerPrinter answer(StdoutIsTerminal());
    if (const absl::Status status = Answer(*client, request, answer); !status.ok()) {
      ReportFailure(status);
      has_failed = true;
      if (absl::IsNotFound(status) || absl::IsUnavailable(status)) {
        return kExitFailed;
      }
      request.mutable_messages()->RemoveLast();  // As if it had not been asked.
      continue;
    }
    AddMessage(request, "assistant", answer.text());
    request.mutable_messages()->rbegin()->set_reasoning_content(answer.reasoning());
  }
  std::fputc('\n', stdout);
  // Somebody at a terminal has seen it; a script has not.
  return has_failed && isatty(STDIN_FILENO) == 0 ? kExitFailed : kExitDone;
}

}  // namespace

Command ChatCommand() {
  auto options = std::make_shared<ChatOptions>();
  Command command;
  command.name = "chat";
  command.summary = "talks to a model";
  command.description =
      "A conversation with a loaded model, through its chat template. Each line is a message; the "
      "arrow keys edit it and bring back earlier ones. Ctrl-C stops an answer and not the chat, "
      "Ctrl-D ends it. What a model thinks before it answers is shown dimmed.";
  command.examples = {"nibble chat demo", "nibble chat qwen --system \"Answer in one sentence.\""};
  command.positionals = {{"NAME", "The model's name, as `nibble ps` shows it.", &options->name}};
  command.groups = {{"The conversation",
                     {TextSetting("system", "TEXT", "What the model is told before the first line.",
                                  &options->system)}},
                    SamplingSettings(&options->sampling),
                    ClientSettings(&options->client)};
  command.run = [options] { return RunChat(*options); };
  return command;
}

}  // namespace nibble
