// A registry on a small host device with a gate, and the language in which its tests speak.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/device.h"
#include "kernels/error_details.h"
#include "kernels/mutex.h"
#include "server/model_registry.h"
#include "tests/support/gated_device.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {

// Far beyond what anything here takes; reached only by a bug.
inline constexpr absl::Duration kNever = absl::Seconds(50);

// Something that happens once, on another thread.
template <typename T>
class Awaited {
 public:
  void Set(T value) {
    MutexLock lock(mutex_);
    EXPECT_FALSE(value_.has_value()) << "it happens once";
    value_ = std::move(value);
    changed_.SignalAll();
  }

  bool happened() const {
    MutexLock lock(mutex_);
    return value_.has_value();
  }

  T Await() {
    MutexLock lock(mutex_);
    while (!value_.has_value()) {
      if (!changed_.WaitFor(mutex_, kNever)) {
        ADD_FAILURE() << "waited in vain";
        std::abort();
      }
    }
    return *value_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::optional<T> value_;
};

// Records what it hears, and complains if the order is wrong.
class RecordingListener final : public LoadListener {
 public:
  void OnPlan(const PlanAnswer& plan) override {
    EXPECT_EQ(progress_count_, 0);
    EXPECT_FALSE(done_.happened());
    plan_.Set(plan);
  }

  void OnProgress(const LoadProgress& progress) override {
    EXPECT_TRUE(plan_.happened());
    EXPECT_FALSE(done_.happened());
    MutexLock lock(mutex_);
    EXPECT_GE(progress.read_bytes, last_.read_bytes);
    EXPECT_GE(progress.tensors_done, last_.tensors_done);
    EXPECT_LE(progress.read_bytes, progress.source_bytes);
    last_ = progress;
    ++progress_count_;
    changed_.SignalAll();
  }

  void OnDone(const absl::StatusOr<ModelInfo>& result) override { done_.Set(result); }

  PlanAnswer AwaitPlan() { return plan_.Await(); }
  absl::StatusOr<ModelInfo> AwaitDone() { return done_.Await(); }
  LoadProgress AwaitProgress() {
    MutexLock lock(mutex_);
    while (progress_count_ == 0) {
      changed_.Wait(mutex_);
    }
    return last_;
  }

  bool is_done() const { return done_.happened(); }
  bool has_plan() const { return plan_.happened(); }

 private:
  Awaited<PlanAnswer> plan_;
  Awaited<absl::StatusOr<ModelInfo>> done_;
  Mutex mutex_;
  CondVar changed_;
  LoadProgress last_;
  std::atomic<int> progress_count_ = 0;
};

class RecordingObserver final : public RegistryObserver {
 public:
  void OnStateChanged(const ModelInfo& model) override {
    MutexLock lock(mutex_);
    states_[model.name].push_back(model.state);
    order_.emplace_back(model.name, model.state);
    changed_.SignalAll();
  }
  void OnRead(int64_t bytes) override { read_bytes_ += bytes; }
  void OnLoadFinished(const ModelInfo& model, const absl::Status& status) override {
    MutexLock lock(mutex_);
    finished_.emplace_back(model.name, status.code());
  }
  void OnRefused(absl::string_view reason) override {
    MutexLock lock(mutex_);
    refused_.emplace_back(reason);
  }
  void OnDeviceBroken(const absl::Status& health) override { broken_.Set(health); }

  // Until the last state told of `model` is `state`.
  void AwaitState(const std::string& model, ModelState state) {
    MutexLock lock(mutex_);
    while (states_[model].empty() || states_[model].back() != state) {
      changed_.Wait(mutex_);
    }
  }

  std::vector<ModelState> states(const std::string& model) {
    MutexLock lock(mutex_);
    return states_[model];
  }
  std::vector<std::pair<std::string, ModelState>> order() {
    MutexLock lock(mutex_);
    return order_;
  }
  std::vector<std::pair<std::string, absl::StatusCode>> finished() {
    MutexLock lock(mutex_);
    return finished_;
  }
  std::vector<std::string> refused() {
    MutexLock lock(mutex_);
    return refused_;
  }
  int64_t read_bytes() const { return read_bytes_; }
  absl::Status AwaitBroken() { return broken_.Await(); }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, std::vector<ModelState>> states_;
  std::vector<std::pair<std::string, ModelState>> order_;
  std::vector<std::pair<std::string, absl::StatusCode>> finished_;
  std::vector<std::string> refused_;
  std::atomic<int64_t> read_bytes_ = 0;
  Awaited<absl::Status> broken_;
};

// One load as a test holds it.
struct StartedLoad {
  ModelRegistry::Ticket ticket = 0;
  std::shared_ptr<RecordingListener> listener;
};

class RegistryFixture : public ::testing::Test {
 protected:
  using Unloaded = std::shared_ptr<Awaited<absl::StatusOr<int64_t>>>;

  static constexpr int64_t kDeviceBytes = 64_MiB;

  RegistryFixture() {
    TinyLlama().Write(root_.path() / "tiny");
    TinyLlamaShape other;
    other.layer_count = 3;
    TinyLlama(other).Write(root_.path() / "other");
    options_.model_roots = {root_.path().string()};
    options_.staging_bytes = kStagingBytesMin;
    options_.loader.reader_count = 1;  // So that a load waits at the gate with one thread.
  }

  ~RegistryFixture() override {
    device_.gate().Open();
    registry_.reset();
    ExpectEmptyLedger();
    EXPECT_EQ(host_->host_bytes(), 0);
  }

  // Made by the first use, with what options_ says then.
  ModelRegistry& registry() {
    if (registry_ == nullptr) {
      registry_ = std::make_unique<ModelRegistry>(device_, budget_, options_, observer_);
    }
    return *registry_;
  }

  static LoadRequest Request(std::string model, std::string source = "tiny") {
    LoadRequest request;
    request.model = std::move(model);
    request.source = std::move(source);
    return request;
  }

  absl::StatusOr<StartedLoad> TryStart(const LoadRequest& request) {
    auto listener = std::make_shared<RecordingListener>();
    absl::StatusOr<ModelRegistry::Ticket> ticket = registry().Load(request, listener);
    if (!ticket.ok()) {
      return ticket.status();
    }
    return StartedLoad{*ticket, listener};
  }

  StartedLoad Start(const LoadRequest& request) {
    absl::StatusOr<StartedLoad> load = TryStart(request);
    EXPECT_TRUE(load.ok()) << load.status();
    return *load;
  }

  ModelInfo LoadReady(const LoadRequest& request) {
    const absl::StatusOr<ModelInfo> model = Start(request).listener->AwaitDone();
    EXPECT_TRUE(model.ok()) << model.status();
    return *model;
  }

  absl::Status LoadFails(const LoadRequest& request) {
    return Start(request).listener->AwaitDone().status();
  }

  // A load that waits at the closed gate, as the first one.
  StartedLoad StartAndBlock(const LoadRequest& request) {
    device_.gate().Close();
    StartedLoad load = Start(request);
    device_.gate().AwaitWaiting(1);
    return load;
  }

  Unloaded StartUnload(const std::string& model,
                       absl::Duration drain_timeout = absl::InfiniteDuration()) {
    auto unloaded = std::make_shared<Awaited<absl::StatusOr<int64_t>>>();
    registry().Unload(model, drain_timeout,
                      [unloaded](absl::StatusOr<int64_t> bytes) { unloaded->Set(bytes); });
    return unloaded;
  }

  absl::StatusOr<int64_t> Unload(const std::string& model) { return StartUnload(model)->Await(); }

  absl::StatusOr<PlanAnswer> Plan(const std::string& source) {
    Awaited<absl::StatusOr<PlanAnswer>> answer;
    registry().Plan(source, {}, {},
                    [&](absl::StatusOr<PlanAnswer> plan) { answer.Set(std::move(plan)); });
    return answer.Await();
  }

  ModelState StateOf(const std::string& model) {
    const absl::StatusOr<ModelInfo> info = registry().Get(model);
    EXPECT_TRUE(info.ok()) << info.status();
    return info->state;
  }

  void ExpectEmptyLedger() {
    const LedgerSnapshot ledger = budget_.Snapshot();
    EXPECT_EQ(ledger.reserved.total(), 0);
    EXPECT_EQ(ledger.allocated.total(), 0);
    EXPECT_TRUE(ledger.owners.empty());
    EXPECT_EQ(host_->QueryMemory()->free_bytes, kDeviceBytes) << "the device agrees";
  }

  ScratchDirectory root_;
  std::unique_ptr<Device> host_ = OpenHostDevice(kDeviceBytes);
  GatedDevice device_{*host_};
  VramBudget budget_{kDeviceBytes};
  RecordingObserver observer_;
  RegistryOptions options_;
  std::unique_ptr<ModelRegistry> registry_;
};

}  // namespace nibble
