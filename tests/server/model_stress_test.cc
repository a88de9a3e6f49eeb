// Many threads at once: whatever they do, every question is answered once, every picture of the
// state is consistent, and nothing stays behind. Seeded, but the scheduler has its say.

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/server/registry_fixture.h"

namespace nibble {
namespace {

constexpr absl::Duration kStressDuration = absl::Seconds(1);

// Everything that a snapshot says, but for what belongs to no sequence.
std::string Render(const StateSnapshot& state) {
  std::string text =
      absl::StrCat(state.ledger.limit_bytes, " ", state.ledger.reserved.total(), " ",
                   state.ledger.allocated.total(), " ", state.ledger.reserved_peak_bytes, " ",
                   state.ledger.allocated_peak_bytes, "\n");
  for (const LedgerSnapshot::Owner& owner : state.ledger.owners) {
    absl::StrAppend(&text, owner.name, " ", owner.reserved.total(), " ", owner.allocated.total(),
                    " ", owner.allocated_peak_bytes, "\n");
  }
  for (const ModelInfo& model : state.models) {
    absl::StrAppend(&text, model.name, " ", model.source, " ", ModelStateName(model.state), " ",
                    model.plan == nullptr ? -1 : model.plan->peak_bytes(), " ", model.peak_bytes,
                    " ", absl::FormatDuration(model.load_duration), " ", model.pinned, " ",
                    absl::FormatTime(model.last_used), " ", model.failure.ToString(), "\n");
  }
  return text;
}

void ExpectConsistentLedger(const LedgerSnapshot& ledger) {
  PurposeBytes reserved;
  PurposeBytes allocated;
  for (const LedgerSnapshot::Owner& owner : ledger.owners) {
    for (const Purpose purpose : kPurposes) {
      EXPECT_LE(owner.allocated[purpose], owner.reserved[purpose]);
      reserved[purpose] += owner.reserved[purpose];
      allocated[purpose] += owner.allocated[purpose];
    }
  }
  EXPECT_EQ(reserved, ledger.reserved);
  EXPECT_EQ(allocated, ledger.allocated);
  EXPECT_LE(ledger.reserved.total(), ledger.limit_bytes);
}

// A READY model holds exactly its resident bytes; every owner in the ledger is a model.
void ExpectConsistentState(const StateSnapshot& state) {
  ExpectConsistentLedger(state.ledger);
  std::map<std::string, const LedgerSnapshot::Owner*> owners;
  for (const LedgerSnapshot::Owner& owner : state.ledger.owners) {
    EXPECT_TRUE(owners.emplace(owner.name, &owner).second) << owner.name << " is listed twice";
  }
  for (const ModelInfo& model : state.models) {
    const auto owner = owners.find(model.name);
    if (model.state == ModelState::kReady) {
      ASSERT_NE(owner, owners.end());
      EXPECT_EQ(owner->second->allocated.total(), model.plan->resident_bytes());
    } else if (model.state == ModelState::kQueued || model.state == ModelState::kFailed) {
      EXPECT_EQ(owner, owners.end()) << model.name << ModelStateName(model.state);
    }
    if (owner != owners.end()) {
      owners.erase(owner);
    }
  }
  EXPECT_TRUE(owners.empty()) << owners.begin()->first << " is no model";
}

// Two threads at work look at the registry; equal sequences must mean equal contents across both.
class SnapshotWatcher {
 public:
  explicit SnapshotWatcher(const ModelRegistry& registry) : registry_(registry) {}

  void Look() {
    const std::shared_ptr<const StateSnapshot> state = registry_.Snapshot();
    ExpectConsistentState(*state);
    MutexLock lock(mutex_);
    const auto [seen, is_new] = seen_.emplace(state->ledger.sequence, Render(*state));
    if (!is_new) {
      EXPECT_EQ(seen->second, Render(*state)) << state->ledger.sequence;
    }
    if (seen_.size() > 1000) {
      seen_.erase(seen_.begin());
    }
  }

 private:
  const ModelRegistry& registry_;
  Mutex mutex_;
  std::map<uint64_t, std::string> seen_;
};

class ModelStressTest : public RegistryFixture {
 protected:
  // One thread's random life.
  void Live(uint32_t seed, absl::Time end, SnapshotWatcher& watcher) {
    std::minstd_rand random(seed);
    std::vector<StartedLoad> loads;
    while (absl::Now() < end) {
      const std::string model = absl::StrCat("m", random() % 6);
      switch (random() % 8) {
        case 0:
        case 1:
        case 2:
          StartOne(Request(model, random() % 4 == 0 ? "other" : "tiny"), loads);
          break;
        case 3:
          LeaveOne(random, loads);
          break;
        case 4:
          UnloadOne(model, absl::Milliseconds(static_cast<int64_t>(random() % 3)));
          break;
        case 5:
          UseOne(model);
          break;
        default:
          watcher.Look();
      }
    }
    for (const StartedLoad& load : loads) {
      static_cast<void>(load.listener->AwaitDone());  // Any result, but one.
    }
  }

  void StartOne(const LoadRequest& request, std::vector<StartedLoad>& loads) {
    if (absl::StatusOr<StartedLoad> load = TryStart(request); load.ok()) {
      loads.push_back(*std::move(load));
    } else {
      const absl::StatusCode code = load.status().code();
      EXPECT_TRUE(code == absl::StatusCode::kAlreadyExists ||
                  code == absl::StatusCode::kResourceExhausted)
          << load.status();
    }
  }

  void LeaveOne(std::minstd_rand& random, std::vector<StartedLoad>& loads) {
    if (loads.empty()) {
      return;
    }
    std::swap(loads[random() % loads.size()], loads.back());
    registry().Leave(loads.back().ticket);
    loads.pop_back();
  }

  void UnloadOne(const std::string& model, absl::Duration drain_timeout) {
    ++unloads_asked_;
    registry().Unload(model, drain_timeout, [this](const absl::StatusOr<int64_t>& bytes) {
      EXPECT_TRUE(bytes.ok() || bytes.status().code() == absl::StatusCode::kNotFound);
      ++unloads_answered_;
    });
  }

  void UseOne(const std::string& model) {
    if (const absl::StatusOr<ModelHandle> handle = registry().Acquire(model); handle.ok()) {
      EXPECT_EQ(handle->weights().allocated_bytes(), handle->weights().plan().resident_bytes());
    }
  }

  std::atomic<int> unloads_asked_ = 0;
  std::atomic<int> unloads_answered_ = 0;
};

TEST_F(ModelStressTest, SixteenThreadsLeaveNothingBehind) {
  // Room for a few of the six models, so that refusals happen.
  ASSERT_TRUE(budget_.SetLimit(2 * Plan("other")->plan->peak_bytes()).ok());
  options_.max_queued_loads = 4;
  SnapshotWatcher watcher(registry());
  std::vector<std::thread> threads;
  const absl::Time end = absl::Now() + kStressDuration;
  for (uint32_t i = 0; i < 16; ++i) {
    threads.emplace_back([&, i] { Live(i + 1, end, watcher); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  registry().Shutdown(absl::ZeroDuration());
  ExpectEmptyLedger();
  EXPECT_EQ(unloads_answered_, unloads_asked_);
  EXPECT_GT(unloads_asked_, 0);
}

TEST_F(ModelStressTest, SnapshotsStayConsistentAllThroughLoads) {
  SnapshotWatcher watcher(registry());
  std::atomic<bool> stop = false;
  std::vector<std::thread> watchers;
  watchers.reserve(2);
  for (int i = 0; i < 2; ++i) {
    watchers.emplace_back([&] {
      while (!stop) {
        watcher.Look();
      }
    });
  }
  for (int i = 0; i < 10; ++i) {
    const StartedLoad first = Start(Request("first"));
    const StartedLoad second = Start(Request("second", "other"));
    ASSERT_TRUE(first.listener->AwaitDone().ok());
    ASSERT_TRUE(second.listener->AwaitDone().ok());
    ASSERT_TRUE(Unload("first").ok());
    ASSERT_TRUE(Unload("second").ok());
  }
  stop = true;
  for (std::thread& thread : watchers) {
    thread.join();
  }
}

TEST_F(ModelStressTest, AnUnchangedStateIsOneSharedSnapshot) {
  LoadReady(Request("llama"));
  EXPECT_EQ(registry().Snapshot(), registry().Snapshot());
}

}  // namespace
}  // namespace nibble
