// Operations that a device has no kernel for, as those that they stand for.

#include "kernels/step_ops.h"

namespace nibble {

absl::Status CheckArgs(const AddNormArgs& args) {
  absl::Status status = CheckArgs(args.add);
  status.Update(CheckArgs(args.norm));
  return status;
}

absl::Status CheckArgs(const RopeStoreKvArgs& args) {
  absl::Status status = CheckArgs(args.queries);
  status.Update(CheckArgs(args.keys));
  status.Update(CheckArgs(args.store));
  return status;
}

absl::Status StepOps::AddNorm(Queue& queue, const AddNormArgs& args) {
  absl::Status status = Add(queue, args.add);
  return status.ok() ? Norm(queue, args.norm) : status;
}

absl::Status StepOps::RopeStoreKv(Queue& queue, const RopeStoreKvArgs& args) {
  absl::Status status = Rope(queue, args.queries);
  if (status.ok()) {
    status = Rope(queue, args.keys);
  }
  return status.ok() ? StoreKv(queue, args.store) : status;
}

absl::Status StepOps::LinearSet(Queue& queue, std::span<const LinearArgs> products) {
  absl::Status status;
  for (const LinearArgs& args : products) {
    if (status.ok()) {
      status = Linear(queue, args);
    }
  }
  return status;
}

}  // namespace nibble
