#include "loader/piece_reader.h"

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int64_t kBufferBytes = int64_t{256} << 10;
static_assert(kBufferBytes >= kPieceBytesMax, "a piece fits");

// What lies between is read from the disk anyway.
constexpr int64_t kGapBytesMax = 4096;

using TakePiece = absl::FunctionRef<absl::Status(const FilePiece& piece, absl::string_view bytes)>;

absl::Status CheckTotal(const std::vector<FilePiece>& pieces) {
  int64_t left = kPiecesBytesTotalMax;
  for (const FilePiece& piece : pieces) {
    left -= piece.range.bytes;
    if (left < 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("expected at most ", kPiecesBytesTotalMax,
                       " bytes that describe quantized tensors in all shards together"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckUnchanged(const ReadOnlyFile& file, const Shard& shard) {
  const absl::StatusOr<FileIdentity> identity = file.Identify();
  if (!identity.ok()) {
    return identity.status();
  }
  return *identity == shard.identity ? absl::OkStatus()
                                     : absl::DataLossError(absl::StrCat(
                                           shard.file_name, ": was changed while it was read"));
}

// How many of `pieces`, sorted, are read at once.
size_t ClusterSize(std::span<const FilePiece> pieces) {
  const int64_t begin = pieces.front().range.offset;
  int64_t end = begin + pieces.front().range.bytes;
  size_t count = 1;
  for (const FilePiece& piece : pieces.subspan(1)) {
    const int64_t piece_end = piece.range.offset + piece.range.bytes;
    if (piece.range.offset - end > kGapBytesMax || piece_end - begin > kBufferBytes) {
      break;
    }
    end = std::max(end, piece_end);
    ++count;
  }
  return count;
}

absl::Status ReadCluster(const ReadOnlyFile& file, std::span<const FilePiece> cluster,
                         std::string& buffer, TakePiece take) {
  const int64_t begin = cluster.front().range.offset;
  int64_t end = begin;
  for (const FilePiece& piece : cluster) {
    end = std::max(end, piece.range.offset + piece.range.bytes);
  }
  buffer.resize(static_cast<size_t>(end - begin));
  absl::Status status = file.Read(begin, std::as_writable_bytes(std::span(buffer)));
  for (const FilePiece& piece : cluster) {
    if (!status.ok()) {
      break;
    }
    status = take(piece,
                  absl::string_view(buffer).substr(static_cast<size_t>(piece.range.offset - begin),
                                                   static_cast<size_t>(piece.range.bytes)));
  }
  return status;
}

// Requires: `pieces` are sorted and of the shard.
absl::Status ReadShardPieces(const CheckpointDirectory& directory, const Shard& shard,
                             std::span<const FilePiece> pieces, TakePiece take) {
  const absl::StatusOr<std::unique_ptr<ReadOnlyFile>> file = directory.Open(shard.file_name);
  if (!file.ok()) {
    return file.status();
  }
  absl::Status status = CheckUnchanged(**file, shard);
  std::string buffer;
  while (status.ok() && !pieces.empty()) {
    const size_t count = ClusterSize(pieces);
    status = ReadCluster(**file, pieces.first(count), buffer, take);
    pieces = pieces.subspan(count);
  }
  return status.ok() ? CheckUnchanged(**file, shard) : status;
}

}  // namespace

absl::Status ReadPieces(const Checkpoint& checkpoint, std::vector<FilePiece> pieces,
                        TakePiece take) {
  if (absl::Status status = CheckTotal(pieces); !status.ok()) {
    return status;
  }
  std::sort(pieces.begin(), pieces.end(), [](const FilePiece& a, const FilePiece& b) {
    return std::tie(a.range.shard_index, a.range.offset, a.range.bytes, a.id) <
           std::tie(b.range.shard_index, b.range.offset, b.range.bytes, b.id);
  });
  std::span<const FilePiece> rest = pieces;
  while (!rest.empty()) {
    const int shard_index = rest.front().range.shard_index;
    size_t count = 1;
    while (count < rest.size() && rest[count].range.shard_index == shard_index) {
      ++count;
    }
    absl::Status status =
        ReadShardPieces(*checkpoint.directory, checkpoint.shards[static_cast<size_t>(shard_index)],
                        rest.first(count), take);
    if (!status.ok()) {
      return status;
    }
    rest = rest.subspan(count);
  }
  return absl::OkStatus();
}

}  // namespace nibble
