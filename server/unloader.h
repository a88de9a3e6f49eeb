// Drains models and gives their memory back.

#pragma once

#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "kernels/device.h"
#include "server/model_table.h"

namespace nibble {

// One thread that waits for the handles of draining models, tells those that outstay the timeout,
// and frees what nobody holds any more. A device that breaks over it is told of.
class Unloader {
 public:
  Unloader(ModelTable& table, const Device& device);
  ~Unloader();  // Stops.

  // Frees `entry` when its last handle is gone; from `timeout` on its handles are cancelled. Asked
  // again, the earlier deadline counts.
  //
  // Requires: it is kDraining and has weights; the table's mutex is held.
  void Drain(const EntryPointer& entry, absl::Duration timeout);

  // Ends the thread when everything is freed. Idempotent.
  //
  // Requires: the mutex is not held.
  void Stop();

 private:
  void Run();
  void Wait() ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_.mutex());
  EntryPointer TakeIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_.mutex());

  ModelTable& table_;
  const Device& device_;
  std::vector<EntryPointer> draining_ ABSL_GUARDED_BY(table_.mutex());
  bool stopping_ ABSL_GUARDED_BY(table_.mutex()) = false;
  std::thread thread_;  // Last, so that everything it uses is there before it.
};

}  // namespace nibble
