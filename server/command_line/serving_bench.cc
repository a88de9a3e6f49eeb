#include "server/command_line/serving_bench.h"

#include <filesystem>
#include <future>
#include <iostream>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "kernels/bytes.h"
#include "loader/load_plan.h"
#include "server/command_line/bench_device.h"
#include "server/command_line/client.h"
#include "server/command_line/http_stream.h"
#include "server/command_line/local_source.h"
#include "server/engine/serving_plan.h"
#include "server/front.h"
#include "server/metrics.h"

namespace nibble {
namespace {

constexpr char kModel[] = "bench";
constexpr absl::string_view kDone = "data: [DONE]";

class LoadResult final : public LoadListener {
 public:
  void OnPlan(const PlanAnswer&) override {}
  void OnProgress(const LoadProgress&) override {}
  void OnDone(const absl::StatusOr<ModelInfo>& result) override {
    result_.set_value(result.status());
  }

  absl::Status Await() { return result_.get_future().get(); }

 private:
  std::promise<absl::Status> result_;
};

// Two full contexts are the KV cache: together they hold all sequences, each in pages of its own.
ServingSpec SpecFor(const ServingWork& work) {
  const int64_t pages =
      CeilDivide(work.prompt_tokens + work.answer_tokens + 1, kPageTokens) * work.sequences;
  ServingSpec spec;
  spec.max_sequences = work.sequences;
  spec.max_context_tokens = CeilDivide(pages, int64_t{2}) * kPageTokens;
  return spec;
}

absl::StatusOr<LoadPlan> PlanFor(const std::string& source, const std::string& device,
                                 const ServingSpec& serving) {
  absl::StatusOr<Checkpoint> checkpoint = OpenLocalCheckpoint(source);
  if (!checkpoint.ok()) {
    return checkpoint.status();
  }
  absl::StatusOr<LoadPlan> plan =
      MakeLoadPlan(*checkpoint, {}, serving, *TraitsOf(device), kStagingBytesDefault);
  if (plan.ok()) {
    const PlannedServing planned = PlanServing(*checkpoint, *plan);
    if (!planned.plan_status.ok() || !planned.serving.ok()) {
      return planned.plan_status.ok() ? planned.serving.status() : planned.plan_status;
    }
  }
  return plan;
}

absl::Status WrongCount(int64_t found, int64_t wanted) {
  return absl::InternalError(absl::StrCat("expected ", wanted, " tokens, found ", found));
}

}  // namespace

// In the order of construction, as in the daemon.
struct ServingBench::Parts {
  Parts(std::unique_ptr<Device> opened, int64_t budget_bytes, const ServingWork& asked)
      : work(asked),
        logger(LogLevel::kError, LogFormat::kText, std::cerr),
        metrics("bench", ""),
        device(std::move(opened)),
        budget(budget_bytes),
        registry(*device, budget, OptionsFor(asked), metrics),
        exporter(*device, registry, {}) {}

  static RegistryOptions OptionsFor(const ServingWork& work) {
    RegistryOptions options;
    options.model_roots = {"/"};
    options.engine.waiting_max = work.sequences;
    return options;
  }

  std::vector<int32_t> NextPrompt() {
    const int64_t size = (*handle->engine())->recipe().vocabulary_size;
    std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(size - 1));
    std::vector<int32_t> prompt(static_cast<size_t>(work.prompt_tokens));
    for (int32_t& id : prompt) {
      id = any(random);
    }
    return prompt;
  }

  // Runs `ask` with a prompt on a thread for each sequence; clients are as many.
  template <typename Ask>
  absl::StatusOr<absl::Duration> TimeClients(int64_t sequences, const Ask& ask) {
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t index = 0; index < sequences; ++index) {
      prompts.push_back(NextPrompt());
    }
    std::vector<absl::Status> results(prompts.size());
    std::vector<std::thread> clients;
    const absl::Time start = absl::Now();
    for (size_t index = 0; index < prompts.size(); ++index) {
      clients.emplace_back([&, index] { results[index] = ask(prompts[index]); });
    }
    for (std::thread& client : clients) {
      client.join();
    }
    const absl::Duration time = absl::Now() - start;
    for (const absl::Status& result : results) {
      if (!result.ok()) {
        return result;
      }
    }
    return time;
  }

  const ServingWork work;
  std::mt19937_64 random{1};
  Logger logger;
  Metrics metrics;
  const std::unique_ptr<Device> device;
  VramBudget budget;
  ModelRegistry registry;
  Exporter exporter;
  std::unique_ptr<Front> front;
  std::unique_ptr<Client> client;
  std::optional<ModelHandle> handle;
};

absl::StatusOr<std::unique_ptr<ServingBench>> ServingBench::Load(const std::string& source,
                                                                 const std::string& device,
                                                                 const ServingWork& work) {
  LoadRequest request;
  request.model = kModel;
  request.source = std::filesystem::absolute(source).lexically_normal().string();
  request.serving = SpecFor(work);
  const absl::StatusOr<LoadPlan> plan = PlanFor(request.source, device, request.serving);
  if (!plan.ok()) {
    return plan.status();
  }
  absl::StatusOr<std::unique_ptr<Device>> opened = OpenBenchDevice(device, plan->peak_bytes());
  if (!opened.ok()) {
    return opened.status();
  }
  auto parts = std::make_unique<Parts>(*std::move(opened), plan->peak_bytes(), work);
  const auto loaded = std::make_shared<LoadResult>();
  absl::Status status = parts->registry.Load(request, loaded).status();
  if (status.ok()) {
    status = loaded->Await();
  }
  if (!status.ok()) {
    return status;
  }
  absl::StatusOr<ModelHandle> handle = parts->registry.Acquire(kModel);
  if (!handle.ok() || !handle->engine().ok()) {
    return handle.ok() ? handle->engine().status() : handle.status();
  }
  parts->handle.emplace(*std::move(handle));
  FrontOptions ports;
  ports.listen = "127.0.0.1:0";
  ports.http_listen = "127.0.0.1:0";
  absl::StatusOr<std::unique_ptr<Front>> front =
      Front::Start(ports, {*parts->device, parts->budget, parts->registry, parts->exporter,
                           parts->metrics, parts->logger});
  if (!front.ok()) {
    return front.status();
  }
  parts->front = *std::move(front);
  parts->client =
      std::make_unique<Client>(ClientOptions{parts->front->grpc_address().ToString(), false});
  return std::unique_ptr<ServingBench>(new ServingBench(std::move(parts)));
}

ServingBench::ServingBench(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

ServingBench::~ServingBench() = default;

std::string ServingBench::device_description() const {
  return absl::StrCat(parts_->device->name(), " (", parts_->device->description(), ")");
}

absl::StatusOr<absl::Duration> ServingBench::TimeEngine(int64_t sequences) {
  std::vector<GenerationRequest> requests(static_cast<size_t>(sequences));
  for (GenerationRequest& request : requests) {
    request.prompt = parts_->NextPrompt();
    request.tokens_max = parts_->work.answer_tokens;
    request.sampling.temperature = 0;
  }
  Engine& engine = **parts_->handle->engine();
  std::vector<std::shared_ptr<Generation>> generations;
  const absl::Time start = absl::Now();
  for (GenerationRequest& request : requests) {
    absl::StatusOr<std::shared_ptr<Generation>> generation =
        engine.Submit(std::move(request), [] {});
    if (!generation.ok()) {
      return generation.status();
    }
    generations.push_back(*std::move(generation));
  }
  for (const auto& generation : generations) {
    while (!generation->end().has_value()) {
      generation->Wait();
      while (generation->Next().has_value()) {
      }
    }
  }
  const absl::Duration time = absl::Now() - start;
  for (const auto& generation : generations) {
    const GenerationEnd end = *generation->end();
    if (!end.status.ok() || end.generated_tokens != parts_->work.answer_tokens) {
      return end.status.ok() ? WrongCount(end.generated_tokens, parts_->work.answer_tokens)
                             : end.status;
    }
  }
  return time;
}

absl::StatusOr<absl::Duration> ServingBench::TimeGrpc(int64_t sequences) {
  return parts_->TimeClients(sequences, [this](const std::vector<int32_t>& prompt) {
    v1::GenerateRequest request;
    request.set_model(kModel);
    request.mutable_token_ids()->Add(prompt.begin(), prompt.end());
    request.set_max_tokens(static_cast<uint64_t>(parts_->work.answer_tokens));
    request.set_temperature(0);
    request.set_ignore_eos(true);
    grpc::ClientContext context;
    const auto reader = parts_->client->generation().Generate(&context, request);
    int64_t tokens = 0;
    for (v1::GenerateResponse response; reader->Read(&response);) {
      tokens += response.token_ids_size();
    }
    absl::Status status = parts_->client->Outcome(reader->Finish());
    if (status.ok() && tokens != parts_->work.answer_tokens) {
      status = WrongCount(tokens, parts_->work.answer_tokens);
    }
    return status;
  });
}

absl::StatusOr<absl::Duration> ServingBench::TimeHttp(int64_t sequences) {
  return parts_->TimeClients(sequences, [this](const std::vector<int32_t>& prompt) -> absl::Status {
    const std::string body =
        absl::StrCat(R"({"model": ")", kModel, R"(", "prompt": [)", absl::StrJoin(prompt, ","),
                     R"(], "max_tokens": )", parts_->work.answer_tokens,
                     R"(, "temperature": 0, "ignore_eos": true, "stream": true, )"
                     R"("stream_options": {"include_usage": true}})");
    const absl::StatusOr<std::string> reply =
        PostAndRead(parts_->front->http_address(), "/v1/completions", body);
    if (!reply.ok()) {
      return reply.status();
    }
    const std::string usage =
        absl::StrCat(R"("completion_tokens":)", parts_->work.answer_tokens, ",");
    return absl::StrContains(*reply, usage) && absl::StrContains(*reply, kDone)
               ? absl::OkStatus()
               : absl::InternalError(absl::StrCat("expected ", usage, " and ", kDone, ", found ",
                                                  reply->substr(0, 500)));
  });
}

}  // namespace nibble
