// The promise not to use more device memory than the operator allowed, and the ledger behind every
// figure of device memory that leaves this process.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/mutex.h"

namespace nibble {

enum class Purpose { kWeights, kKvCache, kWorkspace, kStaging, kRuntime };
inline constexpr int kPurposeCount = 5;
inline constexpr std::array<Purpose, kPurposeCount> kPurposes = {
    Purpose::kWeights, Purpose::kKvCache, Purpose::kWorkspace, Purpose::kStaging,
    Purpose::kRuntime};

// As in metric labels: "weights", "kv_cache", "workspace", "staging", "runtime".
absl::string_view PurposeName(Purpose purpose);

// Bytes for each purpose.
struct PurposeBytes {
  std::array<int64_t, kPurposeCount> bytes = {};

  int64_t& operator[](Purpose purpose) { return bytes[static_cast<size_t>(purpose)]; }
  int64_t operator[](Purpose purpose) const { return bytes[static_cast<size_t>(purpose)]; }
  int64_t total() const;

  friend bool operator==(const PurposeBytes&, const PurposeBytes&) = default;
};

// The ledger at one moment. `sequence` grows with each change of the ledger and of what is
// versioned with it (see VramBudget::Touch); equal sequences mean equal snapshots.
struct LedgerSnapshot {
  struct Owner {
    std::string name;  // A model's name, or "runtime".
    PurposeBytes reserved;
    PurposeBytes allocated;
    int64_t allocated_peak_bytes = 0;  // High-water mark since its reservation was made.

    friend bool operator==(const Owner&, const Owner&) = default;
  };

  uint64_t sequence = 0;
  int64_t limit_bytes = 0;
  PurposeBytes reserved;
  PurposeBytes allocated;
  int64_t reserved_peak_bytes = 0;  // High-water marks since the daemon started.
  int64_t allocated_peak_bytes = 0;
  std::vector<Owner> owners;  // In the order of their reservations.

  int64_t available_bytes() const { return limit_bytes - reserved.total(); }
};

// Counts bytes of device memory against a limit: reserved (promised to an owner) and allocated
// (taken from the device under that promise, rounding included). It allocates nothing itself;
// DeviceBuffer does, and reports here.
//
// Invariant, at every moment: allocated <= reserved <= limit, for each owner and purpose and in
// all. A counter that is raised first and checked afterwards would let one refused request refuse
// another that fits; so it checks, then adds, under one lock.
//
// Thread-safe. Must outlive its reservations.
class VramBudget {
 private:
  struct Account;

 public:
  // A share of the budget, given back on destruction. Move-only. What was allocated under it must
  // have been freed before. One thread at a time.
  class Reservation {
   public:
    Reservation() = default;
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();

    bool empty() const { return account_ == nullptr; }
    PurposeBytes reserved() const;
    PurposeBytes allocated() const;

    // The most that was ever allocated under this share at once.
    int64_t allocated_peak_bytes() const;

    // Gives one purpose's share back, as when a finished load returns its staging.
    //
    // Requires: nothing of it is allocated.
    void Release(Purpose purpose);

    // For DeviceBuffer: counts what the device has given and taken back.
    //
    // Requires: allocated + bytes <= reserved for this purpose; checked in every build.
    void CountAllocated(Purpose purpose, int64_t bytes);
    void CountFreed(Purpose purpose, int64_t bytes);

   private:
    friend class VramBudget;
    Reservation(VramBudget* budget, Account* account) : budget_(budget), account_(account) {}
    void GiveBack();

    VramBudget* budget_ = nullptr;
    Account* account_ = nullptr;  // Owned by the budget.
  };

  // Requires: limit_bytes >= 0.
  explicit VramBudget(int64_t limit_bytes);
  ~VramBudget();

  VramBudget(const VramBudget&) = delete;
  VramBudget& operator=(const VramBudget&) = delete;

  // Sets `bytes` aside for `owner`, all of it or nothing.
  //
  // Errors: RESOURCE_EXHAUSTED with reason BUDGET_EXCEEDED and both figures if they do not fit; the
  //   budget is then unchanged.
  absl::StatusOr<Reservation> Reserve(absl::string_view owner, const PurposeBytes& bytes);

  // Changes the limit.
  //
  // Errors: FAILED_PRECONDITION if more than that is reserved.
  absl::Status SetLimit(int64_t limit_bytes);

  // Counts a change of something that is versioned with the ledger and guarded by the caller's own
  // lock, which the caller must hold around both the change and this call, and around Snapshot().
  void Touch();

  uint64_t sequence() const;
  LedgerSnapshot Snapshot() const;

  // Waits until the sequence differs from `seen` or the time has passed. Returns the sequence.
  uint64_t WaitForChange(uint64_t seen, absl::Duration timeout) const;

 private:
  void Change() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  mutable CondVar changed_;
  LedgerSnapshot totals_ ABSL_GUARDED_BY(mutex_);  // Without owners.
  std::vector<std::unique_ptr<Account>> accounts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace nibble
