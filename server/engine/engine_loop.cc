#include "server/engine/engine_loop.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

// How often a paused sequence's client is looked after when nothing else happens.
constexpr absl::Duration kIdleWait = absl::Milliseconds(200);

bool IsHybrid(const ModelRecipe& recipe) { return recipe.linear_layer_count() > 0; }

}  // namespace

Engine::Loop::Loop(std::unique_ptr<Queue> queue, std::unique_ptr<ForwardPass> pass,
                   DecodeSteps decode_steps, const EngineOptions& options, EngineObserver* observer)
    : queue_(std::move(queue)),
      pass_(std::move(pass)),
      options_(options),
      observer_(observer),
      doorbell_(std::make_shared<Doorbell>([this]() { Wake(); })),
      decode_steps_(std::move(decode_steps)),
      pool_(pass_->sizes().page_count,
            !IsHybrid(pass_->recipe()) || pass_->sizes().state_snapshots > 0),
      snapshots_(static_cast<int32_t>(pass_->sizes().limits.sequences),
                 pass_->sizes().state_snapshots),
      inputs_(pass_->sizes().limits),
      sampling_(pass_->recipe().vocabulary_size) {
  for (int64_t slot = pass_->sizes().limits.sequences; slot > 0; --slot) {
    free_slots_.push_back(static_cast<int32_t>(slot - 1));
  }
  totals_.page_count = pool_.page_count();
  stats_ = totals_;
  MutexLock lock(stop_mutex_);
  thread_ = std::thread([this]() { Run(); });
}

Engine::Loop::~Loop() { Stop(); }

absl::Status Engine::Loop::Check(const GenerationRequest& request) const {
  const int64_t vocabulary_size = pass_->recipe().vocabulary_size;
  const int64_t context_tokens = pass_->sizes().limits.context_tokens;
  const auto prompt_tokens = std::ssize(request.prompt);
  if (prompt_tokens == 0) {
    return BadField("prompt", "expected at least one token, found none");
  }
  // A prompt that is only scored may fill the context.
  const int64_t room = request.tokens_max > 0 ? context_tokens - 1 : context_tokens;
  if (prompt_tokens > room) {
    return BadField("prompt", absl::StrCat("expected at most ", room, " of ", context_tokens,
                                           " tokens of context, found ", prompt_tokens));
  }
  if (request.tokens_max < 0 || (request.tokens_max == 0 && !request.score_prompt)) {
    return BadField("max_tokens", absl::StrCat("expected at least 1, found ", request.tokens_max));
  }
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= vocabulary_size) {
      return BadField("token_ids",
                      absl::StrCat("expected 0 to ", vocabulary_size - 1, ", found ", id));
    }
  }
  return Validate(request.sampling, vocabulary_size);
}

absl::StatusOr<std::shared_ptr<Generation>> Engine::Loop::Submit(GenerationRequest request,
                                                                 std::function<void()> notify) {
  if (absl::Status status = Check(request); !status.ok()) {
    return status;
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->generation = std::make_shared<Generation>(std::move(notify));
  sequence->generation->doorbell_ = doorbell_;
  sequence->arrived = absl::Now();
  sequence->tokens = request.prompt;
  sequence->prompt_count = std::ssize(request.prompt);
  for (const int32_t id : request.prompt) {
    sequence->counts[id] = 0;
  }
  sequence->request = std::move(request);
  const std::shared_ptr<Generation> generation = sequence->generation;
  MutexLock lock(mutex_);
  if (!broken_.ok()) {
    return broken_;
  }
  if (draining_) {
    return absl::UnavailableError("the model is being unloaded");
  }
  if (stats_.waiting >= options_.waiting_max) {
    ErrorDetails details;
    details.reason = "REQUEST_QUEUE_FULL";
    return WithDetails(absl::ResourceExhaustedError(absl::StrCat(
                           options_.waiting_max, " requests wait already; try again later")),
                       details);
  }
  ++stats_.waiting;
  submitted_.push_back(std::move(sequence));
  changed_.SignalAll();
  return generation;
}

void Engine::Loop::Wake() {
  MutexLock lock(mutex_);
  woken_ = true;
  changed_.SignalAll();
}

void Engine::Loop::Drain() {
  MutexLock lock(mutex_);
  draining_ = true;
}

void Engine::Loop::Abort() {
  MutexLock lock(mutex_);
  draining_ = true;
  aborting_ = true;
  woken_ = true;
  changed_.SignalAll();
}

void Engine::Loop::Stop() {
  {
    MutexLock lock(mutex_);
    draining_ = true;
    aborting_ = true;
    stopping_ = true;
    changed_.SignalAll();
  }
  MutexLock lock(stop_mutex_);
  if (thread_.joinable()) {
    thread_.join();
    doorbell_->Silence();
  }
}

EngineStats Engine::Loop::stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

void Engine::Loop::Run() {
  while (WaitForWork()) {
    EndWhatIsOver();
    Admit();
    Publish();
    RunStep();
    Publish();
  }
  EndWhatIsOver();
  Publish();
}

// Takes what was submitted. Waits while nothing runs, and a while if everything that runs is
// paused.
bool Engine::Loop::WaitForWork() {
  const auto can_run = [](const SequencePointer& sequence) {
    return !sequence->generation->full();
  };
  MutexLock lock(mutex_);
  while (!stopping_ && !woken_ && submitted_.empty()) {
    if (running_.empty() && waiting_.empty()) {
      changed_.Wait(mutex_);
    } else if (std::any_of(running_.begin(), running_.end(), can_run) || running_.empty()) {
      break;
    } else {
      changed_.WaitFor(mutex_, kIdleWait);
      break;
    }
  }
  woken_ = false;
  for (SequencePointer& sequence : submitted_) {
    waiting_.push_back(std::move(sequence));
  }
  submitted_.clear();
  return !stopping_;
}

absl::Status Engine::Loop::ReasonToEnd(const Sequence& sequence) const {
  const absl::Time now = absl::Now();
  if (sequence.generation->cancelled()) {
    return absl::CancelledError("the request was cancelled");
  }
  if (now >= sequence.request.deadline) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  if (sequence.generation->full() &&
      now - sequence.generation->last_taken() > options_.paused_max) {
    return absl::CancelledError(absl::StrCat("the client has taken no token for ",
                                             absl::FormatDuration(options_.paused_max)));
  }
  return absl::OkStatus();
}

void Engine::Loop::EndWhatIsOver() {
  bool aborting;
  absl::Status broken;
  {
    MutexLock lock(mutex_);
    aborting = aborting_;
    broken = broken_;
  }
  const auto end_if_over = [&](const SequencePointer& sequence) {
    absl::Status reason = broken;
    if (reason.ok() && aborting) {
      reason = absl::UnavailableError("the model is being unloaded");
    }
    if (reason.ok()) {
      reason = ReasonToEnd(*sequence);
    }
    if (reason.ok()) {
      return false;
    }
    End(*sequence, reason, FinishReason::kLength);
    return true;
  };
  std::erase_if(running_, end_if_over);
  std::erase_if(waiting_, end_if_over);
}

// Pages of others that a sequence can begin with; of a model with linear attention those after
// which its state was kept.
PagePool::Beginning Engine::Loop::FindBeginning(const Sequence& sequence) const {
  if (sequence.scores()) {
    return {};
  }
  return pool_.FindBeginning(sequence.tokens, [this](uint64_t text) {
    return !IsHybrid(pass_->recipe()) || snapshots_.Has(text);
  });
}

// The first of those that wait begins as soon as there are pages for all of its tokens and the
// next.
void Engine::Loop::Admit() {
  while (!waiting_.empty() && !free_slots_.empty()) {
    Sequence& sequence = *waiting_.front();
    const PagePool::Beginning beginning = FindBeginning(sequence);
    const int64_t needed = CeilDivide(std::ssize(sequence.tokens) + 1, kPageTokens);
    const int64_t all = std::min(needed, pass_->sizes().limits.pages);
    if (all - std::ssize(beginning.pages) + beginning.unheld > pool_.available()) {
      return;
    }
    pool_.Hold(beginning);
    sequence.pages = beginning.pages;
    sequence.computed = std::ssize(sequence.pages) * kPageTokens;
    totals_.reused_tokens += sequence.computed;
    sequence.state_slot = free_slots_.back();
    free_slots_.pop_back();
    if (IsHybrid(pass_->recipe()) && sequence.computed > 0) {
      const int32_t kept = snapshots_.Use(pool_.text(sequence.pages.back()));
      if (absl::Status status = pass_->QueueStateCopy(*queue_, kept, sequence.state_slot);
          !status.ok()) {
        Break(status);
      }
    }
    // In the order of arrival, also what was preempted.
    const auto place = std::upper_bound(
        running_.begin(), running_.end(), sequence.arrived,
        [](absl::Time arrived, const SequencePointer& other) { return arrived < other->arrived; });
    running_.insert(place, std::move(waiting_.front()));
    waiting_.pop_front();
  }
}

// After how many of its tokens a sequence's state is kept: the longest beginning of its prompt that
// another prompt can have in common with it in whole pages. 0: it is not kept.
int64_t Engine::Loop::SnapshotPlace(const Sequence& sequence) const {
  return pass_->sizes().state_snapshots == 0 || sequence.scores()
             ? 0
             : RoundDown(sequence.prompt_count - 1, kPageTokens);
}

absl::Status Engine::Loop::KeepState(const Sequence& sequence) {
  if (sequence.computed == 0 || sequence.computed != SnapshotPlace(sequence)) {
    return absl::OkStatus();
  }
  const auto page = static_cast<size_t>(sequence.computed / kPageTokens - 1);
  const uint64_t text = pool_.text(sequence.pages[page]);
  if (text == 0 || snapshots_.Has(text)) {
    return absl::OkStatus();
  }
  return pass_->QueueStateCopy(*queue_, sequence.state_slot, snapshots_.Keep(text));
}

void Engine::Loop::Leave(Sequence& sequence) {
  pool_.GiveBack(sequence.pages);
  sequence.pages.clear();
  sequence.computed = 0;
  if (sequence.state_slot >= 0) {
    free_slots_.push_back(sequence.state_slot);
    sequence.state_slot = -1;
  }
}

void Engine::Loop::Preempt(size_t index) {
  ++totals_.preemptions;
  Leave(*running_[index]);
  waiting_.push_front(std::move(running_[index]));
}

void Engine::Loop::End(Sequence& sequence, const absl::Status& status, FinishReason reason) {
  Leave(sequence);
  GenerationEnd end;
  end.status = status;
  end.reason = reason;
  end.prompt_tokens = sequence.prompt_count;
  end.generated_tokens = sequence.generated();
  const RequestTimes times = {sequence.first_token - sequence.arrived,
                              absl::Now() - sequence.arrived, end.prompt_tokens,
                              end.generated_tokens};
  endings_.push_back({sequence.generation, std::move(end), times});
}

void Engine::Loop::TellEnds() {
  for (Ending& ending : std::exchange(endings_, {})) {
    if (observer_ != nullptr) {
      observer_->OnRequestDone(ending.times, ending.end.status);
    }
    ending.generation->End(std::move(ending.end));
  }
}

void Engine::Loop::RunStep() {
  if (!Prepare()) {
    return;
  }
  if (absl::Status status = Compute(); !status.ok()) {
    Break(status);
    return;
  }
  TakeResults();
}

// Chooses and places the sequences of the next step. Returns: whether there are any.
bool Engine::Loop::Prepare() {
  std::vector<SequenceView> views;
  for (const SequencePointer& sequence : running_) {
    views.push_back(sequence->view());
    views.back().paused = sequence->generation->full();
    views.back().stop = SnapshotPlace(*sequence);
  }
  const Schedule schedule = MakeSchedule(views, pool_.available(), pass_->sizes().limits);
  for (const size_t index : schedule.preempted) {
    Preempt(index);
  }
  inputs_.Clear();
  sampling_.Clear();
  parts_.clear();
  for (size_t index = 0; index < running_.size(); ++index) {
    if (schedule.counts[index] > 0 && running_[index] != nullptr) {
      AddToStep(*running_[index], schedule.counts[index]);
    }
  }
  std::erase(running_, nullptr);
  return !parts_.empty();
}

// Returns: false if a page was missing: some that a preempted sequence held are shared.
bool Engine::Loop::AddToStep(Sequence& sequence, int64_t count) {
  const int64_t pages = CeilDivide(sequence.computed + count, kPageTokens);
  while (std::ssize(sequence.pages) < pages) {
    if (pool_.available() == 0) {
      return false;
    }
    sequence.pages.push_back(pool_.Take());
  }
  const int64_t end = sequence.computed + count;
  const bool reaches_end = end == std::ssize(sequence.tokens);
  const bool scores = sequence.scores();
  const int64_t known = scores ? std::min(end, sequence.prompt_count - 1) - sequence.computed : 0;
  const bool samples = reaches_end && sequence.request.tokens_max > sequence.generated();
  const int64_t output_count = known + (samples ? 1 : 0);
  const int64_t first_row = scores ? 0 : count - output_count;
  const std::span<const int32_t> tokens(sequence.tokens);
  const int64_t first_output = inputs_.Add(
      {tokens.subspan(static_cast<size_t>(sequence.computed), static_cast<size_t>(count)),
       sequence.computed, sequence.pages, sequence.state_slot, first_row, output_count});
  for (int64_t index = 0; index < known; ++index) {
    sampling_.AddKnown(sequence, tokens[static_cast<size_t>(sequence.computed + index + 1)]);
  }
  if (samples) {
    sampling_.AddNext(sequence);
  }
  parts_.push_back({&sequence, count, first_row, first_output, output_count});
  return true;
}

absl::Status Engine::Loop::Compute() {
  const StepBounds bounds = inputs_.bounds();
  absl::Status status = inputs_.Upload(*queue_, pass_->inputs());
  if (inputs_.output_count() == 0) {
    status.Update(pass_->QueueStep(*queue_, bounds));
  } else {
    status.Update(sampling_.Upload(*queue_, pass_->buffers()));
    if (status.ok()) {
      status = inputs_.only_decodes() ? decode_steps_.Replay(bounds)
                                      : pass_->QueueSampledStep(*queue_, bounds);
    }
    if (status.ok()) {
      status = sampling_.Download(*queue_, pass_->buffers());
    }
  }
  // Always waits: what was queued still uses memory of the host.
  status.Update(queue_->Synchronize());
  return status;
}

void Engine::Loop::TakeResults() {
  std::vector<const Sequence*> ended;
  for (const Part& part : parts_) {
    Sequence& sequence = *part.sequence;
    const int64_t before = sequence.computed;
    sequence.computed += part.count;
    totals_.prompt_tokens += std::min(sequence.computed, sequence.prompt_count) -
                             std::min(before, sequence.prompt_count);
    for (int64_t page = before / kPageTokens; (page + 1) * kPageTokens <= sequence.computed;
         ++page) {
      pool_.Fill(sequence.pages, static_cast<size_t>(page), sequence.tokens);
    }
    if (absl::Status status = KeepState(sequence); !status.ok()) {
      Break(status);
    }
    for (int64_t output = 0; output < part.output_count; ++output) {
      TakeResult(sequence, before + part.first_row + output,
                 sampling_.result(part.first_output + output));
    }
    const bool only_scored = sequence.request.tokens_max == 0;
    if (only_scored && sequence.computed == sequence.prompt_count) {
      End(sequence, absl::OkStatus(), FinishReason::kLength);
    }
    if (sequence.state_slot < 0) {
      ended.push_back(&sequence);
    }
  }
  std::erase_if(running_, [&ended](const SequencePointer& sequence) {
    return std::find(ended.begin(), ended.end(), sequence.get()) != ended.end();
  });
}

// What row `row` of a sequence (the place of a token) says of the token behind it.
void Engine::Loop::TakeResult(Sequence& sequence, int64_t row, const SampledRow& result) {
  GeneratedToken token;
  token.id = result.id;
  token.of_prompt = row + 1 < sequence.prompt_count;
  token.log_probability = result.log_probability;
  const int64_t top = std::max(sequence.request.sampling.top_log_probabilities, int64_t{0});
  for (int64_t index = 0; index < top; ++index) {
    token.top.emplace_back(result.top_ids[index], result.top_log_probabilities[index]);
  }
  if (result.id < 0) {
    End(sequence,
        absl::InternalError(
            absl::StrCat("token ", row + 1, ": expected finite logits, found none")),
        FinishReason::kLength);
    return;
  }
  if (token.of_prompt) {
    // A sequence that was preempted is scored again; nobody hears of it twice.
    if (row + 1 >= sequence.scored) {
      sequence.scored = row + 2;
      sequence.generation->Push(std::move(token));
    }
    return;
  }
  const absl::Time now = absl::Now();
  if (sequence.generated() == 0) {
    sequence.first_token = now;
  } else if (observer_ != nullptr) {
    observer_->OnInterTokenLatency(now - sequence.last_token);
  }
  sequence.last_token = now;
  sequence.tokens.push_back(token.id);
  ++sequence.counts[token.id];
  ++totals_.generated_tokens;
  if (sequence.request.constraint != nullptr) {
    sequence.request.constraint->Accept(token.id);
  }
  const std::vector<int32_t>& stops = sequence.request.stop_token_ids;
  const bool stopped = std::find(stops.begin(), stops.end(), token.id) != stops.end();
  const bool full = sequence.generated() >= sequence.request.tokens_max ||
                    std::ssize(sequence.tokens) >= pass_->sizes().limits.context_tokens;
  sequence.generation->Push(std::move(token));
  if (stopped || full) {
    End(sequence, absl::OkStatus(), stopped ? FinishReason::kStop : FinishReason::kLength);
  }
}

void Engine::Loop::Break(const absl::Status& status) {
  {
    MutexLock lock(mutex_);
    broken_ = status;
    woken_ = true;  // Whoever waits hears of it too.
  }
  if (observer_ != nullptr) {
    observer_->OnBroken(status);
  }
}

void Engine::Loop::Publish() {
  totals_.running = std::ssize(running_);
  totals_.pages_used = pool_.page_count() - pool_.available();
  {
    MutexLock lock(mutex_);
    totals_.waiting = std::ssize(waiting_) + std::ssize(submitted_);
    stats_ = totals_;
  }
  TellEnds();
}

}  // namespace nibble
