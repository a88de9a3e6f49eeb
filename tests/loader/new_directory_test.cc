#include "loader/new_directory.h"

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "tests/support/file_size_limit.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::vector<std::string> Names(const std::filesystem::path& path) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

class NewDirectoryAsideTest : public testing::Test {
 protected:
  std::filesystem::path target() const { return root_.path() / "model"; }

  NewDirectory MakeTarget() const {
    return {FileDescriptor(open(root_.path().c_str(), O_RDONLY | O_DIRECTORY)), "model",
            target().string()};
  }

  ScratchDirectory root_;
};

TEST_F(NewDirectoryAsideTest, AppearsWholeUnderItsNameWhenKept) {
  NewDirectory directory = MakeTarget();
  ASSERT_EQ(directory.Make(), absl::OkStatus());
  ASSERT_EQ(directory.WriteText("a", "one"), absl::OkStatus());
  EXPECT_THAT(Names(root_.path()), ElementsAre(StartsWith("model.partial-")));
  ASSERT_EQ(directory.Keep(), absl::OkStatus());
  EXPECT_THAT(Names(root_.path()), ElementsAre("model"));
  EXPECT_EQ(ReadFile(target() / "a"), "one");
}

TEST_F(NewDirectoryAsideTest, LeavesNothingUnlessKept) {
  {
    NewDirectory directory = MakeTarget();
    ASSERT_EQ(directory.Make(), absl::OkStatus());
    ASSERT_EQ(directory.WriteText("a", "one"), absl::OkStatus());
    absl::StatusOr<NewFile> open_file = directory.Create("b");
    ASSERT_TRUE(open_file.ok());
  }
  EXPECT_THAT(Names(root_.path()), IsEmpty());
}

TEST_F(NewDirectoryAsideTest, TakesThePlaceOfAnEmptyDirectory) {
  std::filesystem::create_directory(target());
  NewDirectory directory = MakeTarget();
  ASSERT_EQ(directory.Make(), absl::OkStatus());
  ASSERT_EQ(directory.WriteText("a", "one"), absl::OkStatus());
  ASSERT_EQ(directory.Keep(), absl::OkStatus());
  EXPECT_THAT(Names(root_.path()), ElementsAre("model"));
  EXPECT_EQ(ReadFile(target() / "a"), "one");
}

TEST_F(NewDirectoryAsideTest, LeavesWhatIsThereAlone) {
  std::filesystem::create_directory(target());
  WriteFile(target() / "mine", "1");
  EXPECT_TRUE(absl::IsAlreadyExists(MakeTarget().Make()));
  std::filesystem::remove_all(target());
  WriteFile(target(), "a file");
  EXPECT_TRUE(absl::IsAlreadyExists(MakeTarget().Make()));
  std::filesystem::remove(target());
  // A link could lead anywhere, even to an empty directory.
  std::filesystem::create_directory(root_.path() / "elsewhere");
  std::filesystem::create_directory_symlink("elsewhere", target());
  EXPECT_TRUE(absl::IsAlreadyExists(MakeTarget().Make()));
  EXPECT_THAT(Names(root_.path()), ElementsAre("elsewhere", "model"));
}

TEST_F(NewDirectoryAsideTest, DoesNotReplaceWhatCameMeanwhile) {
  {
    NewDirectory directory = MakeTarget();
    ASSERT_EQ(directory.Make(), absl::OkStatus());
    std::filesystem::create_directory(target());
    WriteFile(target() / "mine", "1");
    EXPECT_TRUE(absl::IsAlreadyExists(directory.Keep()));
  }
  EXPECT_THAT(Names(root_.path()), ElementsAre("model"));
  EXPECT_EQ(ReadFile(target() / "mine"), "1");
}

TEST_F(NewDirectoryAsideTest, NamesFileAndBytesWhenTheDiskIsFull) {
  NewDirectory directory = MakeTarget();
  ASSERT_EQ(directory.Make(), absl::OkStatus());
  absl::StatusOr<NewFile> file = directory.Create("weights");
  ASSERT_TRUE(file.ok());
  absl::Status status;
  {
    const FileSizeLimit limit(1000);
    ASSERT_EQ(file->Append(std::string(600, 'a')), absl::OkStatus());
    status = file->Append(std::string(600, 'b'));
  }
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(DetailsOf(status).reason, "DISK_FULL");
  // The kernel writes what fits before it refuses the rest.
  EXPECT_THAT(std::string(status.message()), HasSubstr("model/weights"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("200 bytes after the first 1000"));
}

}  // namespace
}  // namespace nibble
