#include "kernels/ops.h"

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int64_t kCountMax = int64_t{1} << 48;  // More bytes than an address space has.

absl::Status CheckSpan(const char* what, DeviceSpan span, int64_t bytes, uint64_t alignment) {
  if (span.bytes() != bytes || span.address() % alignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": expected ", bytes, " bytes aligned to ",
                                                   alignment, ", found ", span.bytes(), " at ",
                                                   span.address()));
  }
  return absl::OkStatus();
}

// Keeps the byte counts that follow within 63 bits.
absl::Status CheckCount(const char* what, int64_t count) {
  if (count < 0 || count > kCountMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": expected 0 to ", kCountMax, ", found ", count));
  }
  return absl::OkStatus();
}

// Of a matrix or a block: at least 1.
absl::Status CheckExtent(const char* what, int64_t count) {
  return count == 0
             ? absl::InvalidArgumentError(absl::StrCat(what, ": expected at least 1, found 0"))
             : CheckCount(what, count);
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
  if (absl::Status status = CheckCount("element count", element_count); !status.ok()) {
    return status;
  }
  const int64_t element_bytes = BytesPerElement(type);
  absl::Status status = CheckSpan("elements", elements, element_count * element_bytes,
                                  static_cast<uint64_t>(element_bytes));
  status.Update(CheckSpan("codes", codes, CodeBytes(element_count), 1));
  status.Update(CheckSpan("scales", scales, ScaleBytes(element_count, block_size), sizeof(float)));
  return status;
}

absl::Status CheckFloats(const char* what, DeviceSpan span, int64_t count) {
  return CheckSpan(what, span, count * static_cast<int64_t>(sizeof(float)), sizeof(float));
}

// A tensor's scales and their double-quantized form.
absl::Status CheckScalePlanes(int64_t scale_count, DeviceSpan scales, DeviceSpan scale_codes,
                              DeviceSpan absmax2, DeviceSpan offset) {
  absl::Status status = CheckCount("scale count", scale_count);
  if (!status.ok()) {
    return status;
  }
  status.Update(CheckFloats("scales", scales, scale_count));
  status.Update(CheckSpan("scale codes", scale_codes, scale_count, 1));
  status.Update(CheckFloats("absmax2", absmax2, ScaleBlockCount(scale_count)));
  status.Update(CheckFloats("offset", offset, 1));
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
  if (absl::Status status = CheckCount("element count", args.element_count); !status.ok()) {
    return status;
  }
  const int64_t element_bytes = BytesPerElement(args.source_type);
  absl::Status status = CheckSpan("elements", args.source, args.element_count * element_bytes,
                                  static_cast<uint64_t>(element_bytes));
  status.Update(CheckCell(args.first_non_finite));
  return status;
}

absl::Status CheckArgs(const ExpandF8Args& args) {
  const F8Range& range = args.range;
  absl::Status status = CheckCount("first index", range.first_index);
  status.Update(CheckCount("element count", range.element_count));
  status.Update(CheckExtent("columns", range.columns));
  status.Update(CheckExtent("rows of a scale's block", range.block_rows));
  status.Update(CheckExtent("columns of a scale's block", range.block_columns));
  if (!status.ok()) {
    return status;
  }
  const int64_t scale_count = range.scale_row_count() * range.scale_columns();
  const int64_t scale_bytes = BytesPerElement(range.scale_type);
  status.Update(CheckSpan("source", args.source, range.element_count, 1));
  status.Update(CheckSpan("scales", args.scales, scale_count * scale_bytes,
                          static_cast<uint64_t>(scale_bytes)));
  status.Update(CheckFloats("target", args.target, range.element_count));
  return status;
}

absl::Status CheckArgs(const MeasureErrorArgs& args) {
  absl::Status status = CheckPlanes(args.block_size, args.source_type, args.element_count,
                                    args.source, args.codes, args.scales);
  if (!status.ok()) {
    return status;
  }
  const int64_t chunk_bytes = static_cast<int64_t>(sizeof(ErrorSums));
  return CheckSpan("sums", args.sums, ErrorChunkCount(args.element_count) * chunk_bytes,
                   alignof(ErrorSums));
}

absl::Status CheckArgs(const MeanScaleArgs& args) {
  absl::Status status = CheckCount("scale count", args.scale_count);
  if (!status.ok()) {
    return status;
  }
  status.Update(CheckFloats("scales", args.scales, args.scale_count));
  status.Update(CheckFloats("offset", args.offset, 1));
  return status;
}

absl::Status CheckArgs(const QuantizeScalesArgs& args) {
  return CheckScalePlanes(args.scale_count, args.scales, args.scale_codes, args.absmax2,
                          args.offset);
}

absl::Status CheckArgs(const DequantizeScalesArgs& args) {
  absl::Status status =
      CheckScalePlanes(args.scale_count, args.scales, args.scale_codes, args.absmax2, args.offset);
  status.Update(CheckFloats("map", args.map, kScaleMapSize));
  return status;
}

}  // namespace nibble
