// The thread of an engine: step after step while there is work.

#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "kernels/mutex.h"
#include "server/engine/decode_steps.h"
#include "server/engine/engine.h"
#include "server/engine/forward_pass.h"
#include "server/engine/page_pool.h"
#include "server/engine/sequence.h"
#include "server/engine/state_snapshots.h"
#include "server/engine/step_inputs.h"
#include "server/engine/step_sampling.h"

namespace nibble {

class Engine::Loop {
 public:
  Loop(std::unique_ptr<Queue> queue, std::unique_ptr<ForwardPass> pass, DecodeSteps decode_steps,
       const EngineOptions& options, EngineObserver* observer);
  ~Loop();

  absl::StatusOr<std::shared_ptr<Generation>> Submit(GenerationRequest request,
                                                     std::function<void()> notify);
  void Drain();
  void Abort();
  void Stop();
  EngineStats stats() const;
  const ForwardPass& pass() const { return *pass_; }

 private:
  using SequencePointer = std::unique_ptr<Sequence>;

  absl::Status Check(const GenerationRequest& request) const;
  void Wake();

  // Those of the thread.
  void Run();
  bool WaitForWork();  // False when the thread is to end.
  void EndWhatIsOver();
  absl::Status ReasonToEnd(const Sequence& sequence) const;
  PagePool::Beginning FindBeginning(const Sequence& sequence) const;
  void Admit();
  int64_t SnapshotPlace(const Sequence& sequence) const;
  absl::Status KeepState(const Sequence& sequence);
  void RunStep();
  bool Prepare();
  bool AddToStep(Sequence& sequence, int64_t count);
  absl::Status Compute();
  void TakeResults();
  void TakeResult(Sequence& sequence, int64_t row, const SampledRow& result);
  void Preempt(size_t index);
  void Leave(Sequence& sequence);
  void End(Sequence& sequence, const absl::Status& status, FinishReason reason);
  void Break(const absl::Status& status);
  void Publish();
  void TellEnds();

  // A request that is over; its client hears of it once stats() know.
  struct Ending {
    std::shared_ptr<Generation> generation;
    GenerationEnd end;
    RequestTimes times;
  };

  // One sequence's part of a step.
  struct Part {
    Sequence* sequence;
    int64_t count;
    int64_t first_row;     // Of those that have outputs.
    int64_t first_output;  // Among the step's.
    int64_t output_count;
  };

  const std::unique_ptr<Queue> queue_;
  const std::unique_ptr<ForwardPass> pass_;
  const EngineOptions options_;
  EngineObserver* const observer_;
  const std::shared_ptr<Doorbell> doorbell_;

  // Those of the thread.
  DecodeSteps decode_steps_;
  PagePool pool_;
  StateSnapshots snapshots_;
  StepInputs inputs_;
  StepSampling sampling_;
  std::vector<int32_t> free_slots_;
  std::vector<SequencePointer> running_;  // In the order of arrival.
  std::deque<SequencePointer> waiting_;   // Those that were preempted first.
  std::vector<Part> parts_;
  std::vector<Ending> endings_;
  EngineStats totals_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<SequencePointer> submitted_ ABSL_GUARDED_BY(mutex_);
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborting_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  EngineStats stats_ ABSL_GUARDED_BY(mutex_);
  Mutex stop_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(stop_mutex_);
};

}  // namespace nibble
