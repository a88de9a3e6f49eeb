#include "kernels/ops.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

absl::Status CheckSpan(const char* what, DeviceSpan span, int64_t bytes, uint64_t alignment) {
  if (span.bytes() != bytes || span.address() % alignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": expected ", bytes, " bytes aligned to ",
                                                   alignment, ", found ", span.bytes(), " at ",
                                                   span.address()));
  }
  return absl::OkStatus();
}

absl::Status CheckCell(DeviceSpan cell) {
  return CheckSpan("first_non_finite", cell, sizeof(uint64_t), sizeof(uint64_t));
}

// What quantizing and dequantizing share: n elements of `type` beside their two planes.
absl::Status CheckPlanes(int64_t block_size, FloatType type, int64_t element_count,
                         DeviceSpan elements, DeviceSpan codes, DeviceSpan scales) {
  if (!IsBlockSize(block_size)) {
    return absl::InvalidArgumentError(absl::StrCat("block size: expected a power of two from ",
                                                   kBlockSizeMin, " to ", kBlockSizeMax, ", found ",
                                                   block_size));
  }
  if (element_count < 0) {
    return absl::InvalidArgumentError("element count is negative");
  }
  const int64_t element_bytes = BytesPerElement(type);
  absl::Status status = CheckSpan("elements", elements, element_count * element_bytes,
                                  static_cast<uint64_t>(element_bytes));
  status.Update(CheckSpan("codes", codes, CodeBytes(element_count), 1));
  status.Update(CheckSpan("scales", scales, ScaleBytes(element_count, block_size), sizeof(float)));
  return status;
}

}  // namespace

absl::Status CheckArgs(const QuantizeArgs& args) {
  absl::Status status = CheckPlanes(args.block_size, args.source_type, args.element_count,
                                    args.source, args.codes, args.scales);
  if (!args.first_non_finite.empty()) {
    status.Update(CheckCell(args.first_non_finite));
  }
  return status;
}

absl::Status CheckArgs(const DequantizeArgs& args) {
  return CheckPlanes(args.block_size, args.target_type, args.element_count, args.target, args.codes,
                     args.scales);
}

absl::Status CheckArgs(const FindNonFiniteArgs& args) {
  const int64_t element_bytes = BytesPerElement(args.source_type);
  absl::Status status = CheckSpan("elements", args.source, args.element_count * element_bytes,
                                  static_cast<uint64_t>(element_bytes));
  status.Update(CheckCell(args.first_non_finite));
  return status;
}

}  // namespace nibble
