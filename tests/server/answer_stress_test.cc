// Load, generation, cancellation, unload and failure from sixteen threads at once, in process, so
// that the sanitizers see all of it: every request is answered or refused with a reason, what a
// model says does not depend on what else goes on, and nothing stays behind. Seeded, but the
// scheduler has its say.

#include <atomic>
#include <filesystem>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "server/engine/text/text_generation.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;

constexpr absl::Duration kStressDuration = absl::Seconds(3);
// Goes on until so many whole answers were compared: a sanitizer makes each take a hundred times as
// long, and unloads cut off many.
constexpr int kComparedMin = 20;
constexpr absl::Duration kStressDurationMax = absl::Seconds(60);
constexpr int kThreads = 16;
constexpr int64_t kReferenceTokens = 12;
const char* const kSources[] = {"tiny", "other", "demo-model"};

std::vector<int32_t> PromptOf(uint64_t choice) {
  std::vector<int32_t> prompt(1 + choice % 40);  // Some longer than a page.
  for (size_t index = 0; index < prompt.size(); ++index) {
    prompt[index] = static_cast<int32_t>((index * 7 + choice % 3) % 90);
  }
  return prompt;
}

class AnswerStressTest : public RegistryFixture {
 protected:
  using Tokens = std::vector<int32_t>;

  AnswerStressTest() {
    options_.model_roots.push_back(NIBBLE_TEST_DATA);
    options_.max_queued_loads = 4;
    options_.engine.waiting_max = 8;
    // Half of its data is infinity: its load ends in the middle.
    TinyLlama().Write(root_.path() / "broken");
    const auto file = root_.path() / "broken" / "model.safetensors";
    std::string infinity;
    for (size_t left = std::filesystem::file_size(file) / 4; left > 0; --left) {
      infinity += "\x80\x7f";
    }
    OverwriteFile(file, static_cast<int64_t>(std::filesystem::file_size(file) / 4 * 2), infinity);
  }

  // A model's name says its source, so that answers can be compared.
  static LoadRequest RequestFor(const std::string& source) {
    LoadRequest request = Request(source, source);
    request.serving.max_sequences = 4;
    request.serving.max_context_tokens = 128;
    return request;
  }

  static std::string AnySource(std::minstd_rand& random) {
    return kSources[random() % std::size(kSources)];
  }

  bool GoesOn(absl::Time start) const {
    const absl::Duration passed = absl::Now() - start;
    return passed < kStressDuration || (compared_ < kComparedMin && passed < kStressDurationMax);
  }

  void Live(uint32_t seed, absl::Time start) {
    std::minstd_rand random(seed);
    std::vector<StartedLoad> loads;
    while (GoesOn(start)) {
      // Without a moment to think, sixteen that are refused would leave the engines no core.
      absl::SleepFor(absl::Milliseconds(static_cast<int64_t>(random() % 20)));
      switch (random() % 12) {
        case 0:
        case 1:
        case 2:
          LoadOne(RequestFor(AnySource(random)), loads);
          break;
        case 3:
          LoadOne(Request("broken", "broken"), loads);
          break;
        case 4:
          if (!loads.empty()) {
            registry().Leave(loads.back().ticket);
            loads.pop_back();
          }
          break;
        case 5:
          UnloadOne(random() % 4 == 0 ? "broken" : AnySource(random), AnyPatience(random));
          break;
        case 6:
          static_cast<void>(registry().Snapshot());
          static_cast<void>(registry().ReadEngines());
          break;
        case 7:
          WithEngine(AnySource(random),
                     [&](ModelHandle&, Engine& engine) { ScoreOne(engine, PromptOf(random())); });
          break;
        default:
          AnswerOne(AnySource(random), random);
      }
    }
    for (const StartedLoad& load : loads) {
      static_cast<void>(load.listener->AwaitDone());  // Any result, but one.
    }
  }

  // At most so many loads of a thread are under way: all that joined are told one after the other.
  static constexpr size_t kLoadsMax = 8;

  void LoadOne(const LoadRequest& request, std::vector<StartedLoad>& loads) {
    if (loads.size() == kLoadsMax) {
      static_cast<void>(loads.front().listener->AwaitDone());
      loads.erase(loads.begin());
    }
    if (absl::StatusOr<StartedLoad> load = TryStart(request); load.ok()) {
      loads.push_back(*std::move(load));
    } else {
      EXPECT_THAT(load.status().code(),
                  AnyOf(absl::StatusCode::kAlreadyExists, absl::StatusCode::kResourceExhausted))
          << load.status();
    }
  }

  // None, less than an answer takes, or enough for all.
  static absl::Duration AnyPatience(std::minstd_rand& random) {
    constexpr absl::Duration kPatience[] = {absl::ZeroDuration(), absl::Milliseconds(10),
                                            absl::Seconds(30)};
    return kPatience[random() % std::size(kPatience)];
  }

  void UnloadOne(const std::string& model, absl::Duration drain_timeout) {
    ++unloads_asked_;
    registry().Unload(model, drain_timeout, [this](const absl::StatusOr<int64_t>& bytes) {
      EXPECT_TRUE(bytes.ok() || absl::IsNotFound(bytes.status())) << bytes.status();
      ++unloads_answered_;
    });
  }

  template <typename Use>
  void WithEngine(const std::string& model, const Use& use) {
    absl::StatusOr<ModelHandle> handle = registry().Acquire(model);
    if (!handle.ok()) {
      EXPECT_THAT(handle.status().code(),
                  AnyOf(absl::StatusCode::kNotFound, absl::StatusCode::kFailedPrecondition,
                        absl::StatusCode::kUnavailable))
          << handle.status();
      return;
    }
    const absl::StatusOr<Engine*> engine = handle->engine();
    ASSERT_TRUE(engine.ok()) << engine.status();
    use(*handle, **engine);
  }

  static void ExpectRefusal(const absl::Status& status) {
    EXPECT_THAT(status.code(),
                AnyOf(absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable))
        << status;
  }

  void ScoreOne(Engine& engine, Tokens prompt) {
    GenerationRequest request;
    request.prompt = std::move(prompt);
    request.score_prompt = true;
    const auto scored = std::ssize(request.prompt) - 1;
    const absl::StatusOr<std::shared_ptr<Generation>> generation =
        engine.Submit(std::move(request), [] {});
    if (!generation.ok()) {
      return ExpectRefusal(generation.status());
    }
    int64_t count = 0;
    while (!(*generation)->end().has_value()) {
      (*generation)->Wait();
      while ((*generation)->Next().has_value()) {
        ++count;
      }
    }
    if ((*generation)->end()->status.ok()) {
      EXPECT_EQ(count, scored);
    }
  }

  TextRequest AnyRequest(const ModelHandle& handle, std::minstd_rand& random) {
    TextRequest request;
    request.prompt = PromptOf(random());
    request.tokens_max = 1 + static_cast<int64_t>(random() % 60);
    request.sampling.temperature = random() % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = random();
    request.answers = random() % 4 == 0 ? 3 : 1;
    request.echo = random() % 4 == 0;
    if (random() % 4 == 0) {
      request.deadline = absl::Now() + absl::Milliseconds(static_cast<int64_t>(random() % 30));
    }
    if (handle.text()->tokenizer().ok() && random() % 2 == 0) {
      request.stop = {"the", ". "};
    }
    return request;
  }

  // One request, of which the client may think better after a few events.
  void AnswerOne(const std::string& model, std::minstd_rand& random) {
    WithEngine(model, [&](ModelHandle& handle, Engine& engine) {
      const bool compares = random() % 2 == 0;
      const uint32_t prompt = static_cast<uint32_t>(random() % kPrompts);
      TextRequest request = compares ? Reference(prompt) : AnyRequest(handle, random);
      absl::StatusOr<std::unique_ptr<TextGeneration>> generation =
          TextGeneration::Start(engine, handle.text(), std::move(request), [] {});
      if (!generation.ok()) {
        return ExpectRefusal(generation.status());
      }
      const int patience = random() % 3 == 0 ? static_cast<int>(random() % 4) : 1000;
      absl::Status status;
      const Tokens tokens = Read(**generation, patience, status);
      EXPECT_THAT(status.code(),
                  AnyOf(absl::StatusCode::kOk, absl::StatusCode::kCancelled,
                        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kUnavailable))
          << status;
      if (compares && status.ok() && (*generation)->done()) {
        EXPECT_EQ(tokens, references_.at({model, prompt})) << model << " " << prompt;
        ++compared_;
      }
    });
  }

  static Tokens Read(TextGeneration& generation, int patience, absl::Status& status) {
    Tokens tokens;
    while (!generation.done() && patience > 0) {
      generation.Wait();
      while (std::optional<TextEvent> event = generation.Next()) {
        --patience;
        for (const GeneratedToken& token : event->tokens) {
          tokens.push_back(token.id);
        }
        if (event->end.has_value()) {
          status.Update(event->end->status);
        }
      }
    }
    return tokens;
  }

  static TextRequest Reference(uint32_t prompt) {
    TextRequest request;
    request.prompt = PromptOf(prompt * 13);
    request.tokens_max = kReferenceTokens;
    request.sampling.temperature = 0;
    return request;
  }

  // What each model says when it is alone.
  void MakeReferences() {
    for (const char* const source : kSources) {
      LoadReady(RequestFor(source));
      WithEngine(source, [&](ModelHandle& handle, Engine& engine) {
        for (uint32_t prompt = 0; prompt < kPrompts; ++prompt) {
          absl::StatusOr<std::unique_ptr<TextGeneration>> generation =
              TextGeneration::Start(engine, handle.text(), Reference(prompt), [] {});
          ASSERT_TRUE(generation.ok()) << generation.status();
          absl::Status status;
          references_[{source, prompt}] = Read(**generation, 1000, status);
          ASSERT_TRUE(status.ok()) << status;
          ASSERT_EQ(std::ssize((references_[{source, prompt}])), kReferenceTokens);
        }
      });
      ASSERT_TRUE(Unload(source).ok());
    }
  }

  static constexpr uint32_t kPrompts = 3;
  std::map<std::pair<std::string, uint32_t>, Tokens> references_;
  std::atomic<int> compared_ = 0;
  std::atomic<int> unloads_asked_ = 0;
  std::atomic<int> unloads_answered_ = 0;
};

TEST_F(AnswerStressTest, SixteenThreadsAreAnsweredAndLeaveNothingBehind) {
  MakeReferences();
  // Room for two of the three, so that loads are refused.
  ASSERT_TRUE(budget_.SetLimit(2 * Plan("demo-model")->plan->peak_bytes()).ok());
  std::vector<std::thread> threads;
  const absl::Time start = absl::Now();
  for (uint32_t index = 0; index < kThreads; ++index) {
    threads.emplace_back([this, index, start] { Live(index + 1, start); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  registry().Shutdown(absl::ZeroDuration());
  ExpectEmptyLedger();
  EXPECT_EQ(unloads_answered_, unloads_asked_);
  EXPECT_GT(unloads_asked_, 0);
  EXPECT_GE(compared_, kComparedMin);
}

}  // namespace
}  // namespace nibble
