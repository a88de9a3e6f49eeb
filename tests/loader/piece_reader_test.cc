#include "loader/piece_reader.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/faulty_directory.h"
#include "tests/support/memory_directory.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PieceReaderTest : public ::testing::Test {
 protected:
  PieceReaderTest() {
    std::map<std::string, std::string> files;
    for (const char* name : {"a", "b"}) {
      std::string content;
      while (content.size() < 1'000'000) {
        absl::StrAppend(&content, name, content.size(), " ");
      }
      content_.push_back(content);
      files[name] = content;
      Shard& shard = checkpoint_.shards.emplace_back();
      shard.file_name = name;
      shard.identity.bytes = static_cast<int64_t>(content.size());
    }
    directory_ =
        std::make_shared<FaultyDirectory>(std::make_shared<MemoryDirectory>(std::move(files)), -1);
    checkpoint_.directory = directory_;
  }

  // Reads, and expects each piece to be what the files hold there.
  absl::Status Read(std::vector<FilePiece> pieces) {
    taken_.clear();
    return ReadPieces(
        checkpoint_, std::move(pieces), [this](const FilePiece& piece, absl::string_view bytes) {
          const std::string& content = content_[static_cast<size_t>(piece.range.shard_index)];
          EXPECT_EQ(bytes, content.substr(static_cast<size_t>(piece.range.offset),
                                          static_cast<size_t>(piece.range.bytes)));
          taken_.push_back(piece.id);
          return absl::OkStatus();
        });
  }

  Checkpoint checkpoint_;
  std::vector<std::string> content_;  // Of each shard.
  std::shared_ptr<FaultyDirectory> directory_;
  std::vector<size_t> taken_;
};

TEST_F(PieceReaderTest, HandsPiecesOverInTheOrderOfTheFiles) {
  ASSERT_TRUE(Read({{{1, 900'000, 100}, 0},
                    {{0, 500'000, 7}, 1},
                    {{1, 3, 65'536}, 2},
                    {{0, 500'000, 0}, 3},
                    {{0, 0, 1}, 4}})
                  .ok());
  EXPECT_THAT(taken_, ElementsAre(4, 3, 1, 2, 0));
}

TEST_F(PieceReaderTest, ReadsNeighboursAtOnce) {
  std::vector<FilePiece> pieces;
  for (size_t i = 0; i < 100; ++i) {
    pieces.push_back({{0, static_cast<int64_t>(i) * 2000, 64}, i});
  }
  ASSERT_TRUE(Read(pieces).ok());
  EXPECT_EQ(taken_.size(), 100u);
  // One Open, one Read of 198 064 bytes, and two looks at what the file is.
  EXPECT_EQ(directory_->call_count(), 4);
}

TEST_F(PieceReaderTest, ReadsNothingOfWhatLiesFarBetween) {
  ASSERT_TRUE(Read({{{0, 0, 64}, 0}, {{0, 500'000, 64}, 1}}).ok());
  EXPECT_EQ(directory_->call_count(), 5);
  ASSERT_TRUE(Read({}).ok());
  EXPECT_EQ(directory_->call_count(), 5);
}

TEST_F(PieceReaderTest, RefusesMoreBytesThanItsLimitBeforeItReads) {
  std::vector<FilePiece> pieces;
  for (int64_t left = kPiecesBytesTotalMax; left > 0; left -= kPieceBytesMax) {
    pieces.push_back({{0, 0, kPieceBytesMax}, 0});
  }
  pieces.push_back({{0, 0, 1}, 0});
  EXPECT_EQ(Read(pieces).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(directory_->call_count(), 0);
}

TEST_F(PieceReaderTest, RefusesAFileThatIsNotTheOneWhoseHeaderWasRead) {
  ++checkpoint_.shards[1].identity.changed_ns;
  const absl::Status status = Read({{{0, 0, 1}, 0}, {{1, 0, 1}, 1}});
  EXPECT_EQ(status, absl::DataLossError("b: was changed while it was read"));
  EXPECT_THAT(taken_, ElementsAre(0));
}

TEST_F(PieceReaderTest, StopsAtTheFirstError) {
  int calls = 0;
  const absl::Status status =
      ReadPieces(checkpoint_, {{{0, 0, 1}, 0}, {{0, 1, 1}, 1}, {{1, 0, 1}, 2}},
                 [&calls](const FilePiece&, absl::string_view) {
                   ++calls;
                   return absl::DataLossError("no");
                 });
  EXPECT_EQ(status, absl::DataLossError("no"));
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace nibble
