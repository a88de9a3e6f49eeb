// Reads many small pieces of a checkpoint's files: the side tensors that say how others are stored.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "loader/checkpoint.h"

namespace nibble {

inline constexpr int64_t kPieceBytesMax = int64_t{64} << 10;

// Of all pieces of a checkpoint: it bounds the time that a hostile one can take. Those of 70 000
// double-quantized tensors, a model of a trillion parameters, have 92 MB.
inline constexpr int64_t kPiecesBytesTotalMax = int64_t{256} << 20;

struct FilePiece {
  FileRange range;
  size_t id = 0;  // The caller's.
};

// Hands the bytes of each piece to `take`, in the order of the files whatever that of `pieces`, so
// that a disk is read through. Pieces that are less than a page apart are read at once.
//
// Requires: each range is within its shard, as its header says, and at most kPieceBytesMax.
// Errors: those of `take`, the first of which ends it; RESOURCE_EXHAUSTED for more than
//   kPiecesBytesTotalMax; DATA_LOSS if a shard is not the file any more whose header was read;
//   those of reading.
// Cost: a read for each cluster of pieces, and a buffer of 256 KiB.
absl::Status ReadPieces(
    const Checkpoint& checkpoint, std::vector<FilePiece> pieces,
    absl::FunctionRef<absl::Status(const FilePiece& piece, absl::string_view bytes)> take);

}  // namespace nibble
