// What one rendering has used up so far, and its first error.

#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/engine/chat/limits.h"

namespace nibble::jinja {

// Counts steps and bytes, and keeps the first error. The error sticks: from then on Step() is
// false, values that are made are undefined, and whoever loops must look and stop. So no function
// of the interpreter returns a status, and none goes on for long after one.
//
// Belongs to one thread. Must outlive the values that are charged to it.
class Run {
 public:
  // Whether `count` steps more are allowed; fails the run if not, and is false after any failure.
  bool Step(int64_t count = 1) {
    steps_ += count;
    return (steps_ <= kStepsMax && status_.ok()) || FailSteps();
  }
  // For bytes that are copied or searched as they stand.
  bool StepBytes(size_t bytes) { return Step(1 + static_cast<int64_t>(bytes) / kBytesPerStep); }
  // For names, items or characters that are looked at one by one.
  bool StepLookups(size_t count) { return Step(static_cast<int64_t>(count) / kLookupsPerStep); }

  // Whether values of `bytes` more may be made; fails the run if not. Ask before making what is
  // large: what is made is charged only when it is there.
  bool MayMake(int64_t bytes);

  // INVALID_ARGUMENT with `message` behind the line of the template.
  void Fail(absl::string_view message);
  // As it stands. Only the first failure counts.
  void FailWith(absl::Status status);

  bool failed() const { return !status_.ok(); }
  const absl::Status& status() const { return status_; }
  int64_t steps() const { return steps_; }
  int64_t bytes() const { return bytes_; }
  void set_line(int line) { line_ = line; }
  int line() const { return line_; }

 private:
  friend class Charge;
  bool FailSteps();

  int64_t steps_ = 0;
  int64_t bytes_ = 0;
  int line_ = 0;  // Of the statement at work.
  absl::Status status_;
};

// Bytes that a value holds, given back on destruction. Without a run (a template's own constants)
// nothing is counted.
class Charge {
 public:
  Charge() = default;
  Charge(Run* run, int64_t bytes) : run_(run) { Add(bytes); }
  Charge(Charge&& other) noexcept
      : run_(std::exchange(other.run_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge() {
    if (run_ != nullptr) {
      run_->bytes_ -= bytes_;
    }
  }

  void Add(int64_t bytes) {
    if (run_ != nullptr) {
      bytes_ += bytes;
      run_->bytes_ += bytes;
    }
  }

 private:
  Run* run_ = nullptr;
  int64_t bytes_ = 0;
};

// What is printed into: the answer itself, or what a macro or a block captures.
class Output {
 public:
  explicit Output(Run& run) : run_(run), charge_(&run, 0) {}

  // Does nothing once the run has failed.
  //
  // Errors: RESOURCE_EXHAUSTED in the run, if it becomes too long.
  void Append(absl::string_view text);
  std::string Take() { return std::move(text_); }

 private:
  Run& run_;
  Charge charge_;
  std::string text_;
};

// One level of the interpreter's recursion.
class DepthGuard {
 public:
  DepthGuard(Run& run, int& depth);
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace nibble::jinja
