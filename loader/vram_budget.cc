#include "loader/vram_budget.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/error_details.h"

namespace nibble {

// Guarded by the budget's mutex.
struct VramBudget::Account {
  LedgerSnapshot::Owner owner;
};

absl::string_view PurposeName(Purpose purpose) {
  constexpr std::array<absl::string_view, kPurposeCount> kNames = {
      "weights", "kv_cache", "workspace", "staging", "runtime"};
  return kNames[static_cast<size_t>(purpose)];
}

int64_t PurposeBytes::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

VramBudget::Reservation::Reservation(Reservation&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      account_(std::exchange(other.account_, nullptr)) {}

VramBudget::Reservation& VramBudget::Reservation::operator=(Reservation&& other) noexcept {
  if (this != &other) {
    GiveBack();
    budget_ = std::exchange(other.budget_, nullptr);
    account_ = std::exchange(other.account_, nullptr);
  }
  return *this;
}

VramBudget::Reservation::~Reservation() { GiveBack(); }

void VramBudget::Reservation::GiveBack() {
  if (account_ == nullptr) {
    return;
  }
  MutexLock lock(budget_->mutex_);
  const LedgerSnapshot::Owner& owner = account_->owner;
  Check(owner.allocated.total() == 0, "a reservation outlives what is allocated under it");
  for (const Purpose purpose : kPurposes) {
    budget_->totals_.reserved[purpose] -= owner.reserved[purpose];
  }
  std::erase_if(budget_->accounts_,
                [this](const auto& account) { return account.get() == account_; });
  account_ = nullptr;
  budget_->Change();
}

PurposeBytes VramBudget::Reservation::reserved() const {
  if (account_ == nullptr) {
    return {};
  }
  MutexLock lock(budget_->mutex_);
  return account_->owner.reserved;
}

PurposeBytes VramBudget::Reservation::allocated() const {
  if (account_ == nullptr) {
    return {};
  }
  MutexLock lock(budget_->mutex_);
  return account_->owner.allocated;
}

int64_t VramBudget::Reservation::allocated_peak_bytes() const {
  if (account_ == nullptr) {
    return 0;
  }
  MutexLock lock(budget_->mutex_);
  return account_->owner.allocated_peak_bytes;
}

void VramBudget::Reservation::Release(Purpose purpose) {
  Check(account_ != nullptr, "the reservation is held");
  MutexLock lock(budget_->mutex_);
  LedgerSnapshot::Owner& owner = account_->owner;
  Check(owner.allocated[purpose] == 0, "a share outlives what is allocated under it");
  budget_->totals_.reserved[purpose] -= owner.reserved[purpose];
  owner.reserved[purpose] = 0;
  budget_->Change();
}

void VramBudget::Reservation::CountAllocated(Purpose purpose, int64_t bytes) {
  Check(account_ != nullptr, "the reservation is held");
  MutexLock lock(budget_->mutex_);
  LedgerSnapshot::Owner& owner = account_->owner;
  LedgerSnapshot& totals = budget_->totals_;
  Check(bytes >= 0 && bytes <= owner.reserved[purpose] - owner.allocated[purpose],
        "an allocation is covered by its reservation");
  owner.allocated[purpose] += bytes;
  owner.allocated_peak_bytes = std::max(owner.allocated_peak_bytes, owner.allocated.total());
  totals.allocated[purpose] += bytes;
  totals.allocated_peak_bytes = std::max(totals.allocated_peak_bytes, totals.allocated.total());
  budget_->Change();
}

void VramBudget::Reservation::CountFreed(Purpose purpose, int64_t bytes) {
  Check(account_ != nullptr, "the reservation is held");
  MutexLock lock(budget_->mutex_);
  LedgerSnapshot::Owner& owner = account_->owner;
  Check(bytes >= 0 && bytes <= owner.allocated[purpose], "what is freed was allocated");
  owner.allocated[purpose] -= bytes;
  budget_->totals_.allocated[purpose] -= bytes;
  budget_->Change();
}

VramBudget::VramBudget(int64_t limit_bytes) {
  Check(limit_bytes >= 0, "a budget is not negative");
  totals_.limit_bytes = limit_bytes;
}

VramBudget::~VramBudget() { Check(accounts_.empty(), "a budget outlives its reservations"); }

absl::StatusOr<VramBudget::Reservation> VramBudget::Reserve(absl::string_view owner,
                                                            const PurposeBytes& bytes) {
  const int64_t needed_bytes = bytes.total();
  MutexLock lock(mutex_);
  const int64_t available_bytes = totals_.available_bytes();
  if (needed_bytes > available_bytes) {
    ErrorDetails details;
    details.reason = "BUDGET_EXCEEDED";
    details.resource = std::string(owner);
    details.needed_bytes = needed_bytes;
    details.available_bytes = available_bytes;
    return WithDetails(
        absl::ResourceExhaustedError(absl::StrCat(
            owner, ": needs ", needed_bytes, " bytes of device memory, ", available_bytes, " of ",
            totals_.limit_bytes, " are available: ", needed_bytes - available_bytes, " short")),
        details);
  }
  auto account = std::make_unique<Account>();
  account->owner.name = std::string(owner);
  account->owner.reserved = bytes;
  Account* const raw = account.get();
  accounts_.push_back(std::move(account));  // First: should it throw, nothing is counted.
  for (const Purpose purpose : kPurposes) {
    totals_.reserved[purpose] += bytes[purpose];
  }
  totals_.reserved_peak_bytes = std::max(totals_.reserved_peak_bytes, totals_.reserved.total());
  Change();
  return Reservation(this, raw);
}

absl::Status VramBudget::SetLimit(int64_t limit_bytes) {
  MutexLock lock(mutex_);
  const int64_t reserved_bytes = totals_.reserved.total();
  if (limit_bytes < reserved_bytes) {
    ErrorDetails details;
    details.reason = "BUDGET_HELD";
    details.needed_bytes = reserved_bytes;
    details.available_bytes = limit_bytes;
    return WithDetails(
        absl::FailedPreconditionError(absl::StrCat(
            "budget of ", limit_bytes, " bytes: ", reserved_bytes, " are reserved; unload first")),
        details);
  }
  totals_.limit_bytes = limit_bytes;
  Change();
  return absl::OkStatus();
}

void VramBudget::Touch() {
  MutexLock lock(mutex_);
  Change();
}

void VramBudget::Change() {
  ++totals_.sequence;
  changed_.SignalAll();
}

uint64_t VramBudget::sequence() const {
  MutexLock lock(mutex_);
  return totals_.sequence;
}

LedgerSnapshot VramBudget::Snapshot() const {
  MutexLock lock(mutex_);
  LedgerSnapshot snapshot = totals_;
  snapshot.owners.reserve(accounts_.size());
  for (const auto& account : accounts_) {
    snapshot.owners.push_back(account->owner);
  }
  return snapshot;
}

uint64_t VramBudget::WaitForChange(uint64_t seen, absl::Duration timeout) const {
  MutexLock lock(mutex_);
  if (totals_.sequence == seen) {
    changed_.WaitFor(mutex_, timeout);
  }
  return totals_.sequence;
}

}  // namespace nibble
