#include <cstdio>
#include <thread>

#include "absl/strings/str_format.h"
#include "server/command_line/bench_figures.h"
#include "server/command_line/bench_model.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/commands.h"
#include "server/command_line/failure.h"
#include "server/command_line/memory_read_rate.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

struct BenchAnswerOptions : BenchModelOptions {
  int64_t prompt_tokens = 128;
  int64_t tokens = 32;
};

// The rates of each run.
struct AnswerRates {
  std::vector<double> prefill;      // Tokens a second.
  std::vector<double> decode;       // Tokens a second; of one sequence.
  std::vector<double> read;         // Bytes a second that the machine reads.
  std::vector<double> read_shares;  // Of it, by the weights that decoding reads.
};

absl::StatusOr<AnswerRates> Measure(BenchModel& model, const BenchAnswerOptions& options) {
  const MemoryReader reader(std::max<int64_t>(model.row_weight_bytes(), 256_MiB),
                            static_cast<int>(std::thread::hardware_concurrency()));
  AnswerRates rates;
  for (int64_t run = 0; run <= options.runs; ++run) {
    const absl::StatusOr<AnswerTimes> times = model.Answer(options.prompt_tokens, options.tokens);
    if (!times.ok()) {
      return times.status();
    }
    const double read_rate =
        static_cast<double>(reader.bytes()) / absl::ToDoubleSeconds(reader.TimeRead());
    if (run == 0) {
      continue;  // Only warms up.
    }
    const double decode =
        static_cast<double>(options.tokens - 1) / absl::ToDoubleSeconds(times->to_last_token);
    rates.prefill.push_back(static_cast<double>(options.prompt_tokens) /
                            absl::ToDoubleSeconds(times->to_first_token));
    rates.decode.push_back(decode);
    rates.read.push_back(read_rate);
    rates.read_shares.push_back(decode * static_cast<double>(model.row_weight_bytes()) / read_rate);
  }
  return rates;
}

std::string SpreadText(const std::vector<double>& samples, double unit, const char* format) {
  const Spread spread = SpreadOf(samples);
  return absl::StrCat(absl::StrFormat("%10.2f", spread.median / unit), "  (",
                      absl::StrFormat("%.2f", spread.least / unit), " to ",
                      absl::StrFormat("%.2f", spread.most / unit), ")  ", format, "\n");
}

std::string SpreadJson(const char* name, const std::vector<double>& samples, double unit) {
  const Spread spread = SpreadOf(samples);
  return absl::StrFormat("\"%s\": {\"median\": %.6g, \"min\": %.6g, \"max\": %.6g}", name,
                         spread.median / unit, spread.least / unit, spread.most / unit);
}

void Print(const BenchAnswerOptions& options, const BenchModel& model, const AnswerRates& rates,
           bool decode) {
  constexpr double kGigabyte = 1e9;
  const std::vector<double>& tokens = decode ? rates.decode : rates.prefill;
  if (options.json) {
    std::printf(
        "{\"bench\": \"%s\", \"device\": \"%s\", \"prompt_tokens\": %lld, \"tokens\": %lld, "
        "\"weight_bytes_per_token\": %lld, \"runs\": %zu, %s, %s",
        decode ? "decode" : "prefill", model.device().name().c_str(),
        static_cast<long long>(options.prompt_tokens), static_cast<long long>(options.tokens),
        static_cast<long long>(model.row_weight_bytes()), tokens.size(),
        SpreadJson("tokens_per_second", tokens, 1).c_str(),
        SpreadJson("read_gb_per_second", rates.read, kGigabyte).c_str());
    std::printf("%s}\n",
                decode ? (", " + SpreadJson("share_of_read", rates.read_shares, 1)).c_str() : "");
    return;
  }
  std::printf("%s of %s on %s (%s), %s of weights a token, medians and spread of %zu runs\n",
              decode ? "decode" : "prefill", options.source.c_str(), model.device().name().c_str(),
              model.device().description().c_str(), FormatData(model.row_weight_bytes()).c_str(),
              tokens.size());
  std::printf("%s", SpreadText(tokens, 1,
                               decode ? "tokens/s of one sequence, after the prompt"
                                      : "tokens/s of the prompt, to the first token of the answer")
                        .c_str());
  std::printf("%s",
              SpreadText(rates.read, kGigabyte, "GB/s that all cores read from memory").c_str());
  if (decode) {
    std::printf("%s", SpreadText(rates.read_shares, 1, "of that rate, by the weights").c_str());
  }
}

int Run(const BenchAnswerOptions& options, bool decode) {
  absl::StatusOr<std::unique_ptr<BenchModel>> model = BenchModel::Load(options);
  if (!model.ok()) {
    return ReportFailure(model.status());
  }
  const absl::StatusOr<AnswerRates> rates = Measure(**model, options);
  if (!rates.ok()) {
    return ReportFailure(rates.status());
  }
  Print(options, **model, *rates, decode);
  return kExitDone;
}

Command AnswerCommand(bool decode) {
  auto options = std::make_shared<BenchAnswerOptions>();
  BenchAnswerOptions* raw = options.get();
  if (!decode) {
    options->tokens = 1;
  }
  Command command;
  command.positionals = {{"SOURCE", "Directory of a checkpoint.", &options->source}};
  SettingGroup group = {"What to measure", BenchModelSettings(*options)};
  group.settings.push_back(CountSetting(
      "prompt-tokens", "Tokens of the prompt.", "128", 1, 1 << 20, [raw](int64_t count) {
        raw->prompt_tokens = count;
        raw->context_tokens = std::max(raw->context_tokens, count + raw->tokens + 1);
      }));
  if (decode) {
    group.settings.push_back(
        CountSetting("tokens", "Tokens of the answer.", "32", 2, 1 << 20, [raw](int64_t count) {
          raw->tokens = count;
          raw->context_tokens = std::max(raw->context_tokens, raw->prompt_tokens + count + 1);
        }));
  }
  command.groups = {std::move(group)};
  command.run = [options, decode] { return Run(*options, decode); };
  return command;
}

}  // namespace

Command BenchDecodeCommand() {
  Command command = AnswerCommand(true);
  command.name = "bench decode";
  command.summary = "times the tokens of one sequence beside the machine's memory";
  command.description =
      "Loads a checkpoint in this process and lets it answer prompts of random tokens, one at a "
      "time. Prints tokens a second after the first one, and between the answers reads memory with "
      "all cores: which share of that rate the weights of each token amount to.";
  command.examples = {"nibble bench decode /models/Llama-8B",
                      "nibble bench decode --arithmetic fp32 --tokens 64 /models/Llama-8B"};
  return command;
}

Command BenchPrefillCommand() {
  Command command = AnswerCommand(false);
  command.name = "bench prefill";
  command.summary = "times prompts up to the first token of their answers";
  command.description =
      "Loads a checkpoint in this process and gives it prompts of random tokens, one at a time. "
      "Prints tokens of the prompt a second, up to the first token of the answer.";
  command.examples = {"nibble bench prefill /models/Llama-8B",
                      "nibble bench prefill --prompt-tokens 512 /models/Llama-8B"};
  return command;
}

}  // namespace nibble
