#include "loader/checkpoint_directory.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/error_details.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

class CheckpointDirectoryTest : public ::testing::Test {
 protected:
  CheckpointDirectoryTest() {
    fs::create_directories(root() / "model");
    WriteFile(root() / "model/file", "0123456789");
  }

  fs::path root() const { return scratch_.path() / "root"; }

  std::shared_ptr<const CheckpointDirectory> OpenModel() const {
    auto directory = OpenCheckpointDirectory(root().string(), "model");
    EXPECT_TRUE(directory.ok()) << directory.status();
    return *directory;
  }

  absl::Status StatusOfPath(const std::string& path) const {
    return OpenCheckpointDirectory(root().string(), path).status();
  }

  static absl::StatusOr<std::string> ReadAt(const ReadOnlyFile& file, int64_t offset,
                                            size_t bytes) {
    std::string text(bytes, '\0');
    absl::Status status = file.Read(offset, std::as_writable_bytes(std::span(text)));
    return status.ok() ? absl::StatusOr<std::string>(text) : status;
  }

  ScratchDirectory scratch_;
};

TEST_F(CheckpointDirectoryTest, ListsEntriesSorted) {
  WriteFile(root() / "model/b", "");
  WriteFile(root() / "model/a", "");
  EXPECT_THAT(*OpenModel()->List(), ElementsAre("a", "b", "file"));
  EXPECT_THAT(*OpenModel()->List(), ElementsAre("a", "b", "file"));
}

TEST_F(CheckpointDirectoryTest, ReadsAnyRangeOfAFile) {
  const auto file = OpenModel()->Open("file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*ReadAt(**file, 0, 10), "0123456789");
  EXPECT_EQ(*ReadAt(**file, 3, 4), "3456");
  EXPECT_EQ(*ReadAt(**file, 10, 0), "");
}

TEST_F(CheckpointDirectoryTest, NamesFileExpectedAndFoundWhenAFileIsShort) {
  const auto file = OpenModel()->Open("file");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(ReadAt(**file, 8, 4).status(),
            absl::DataLossError("file: truncated: expected 4 bytes at byte 8, found 2"));
  EXPECT_EQ(ReadAt(**file, 100, 1).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointDirectoryTest, IdentityChangesWithTheFile) {
  const auto directory = OpenModel();
  const auto file = directory->Open("file");
  const FileIdentity before = *(*file)->Identify();
  EXPECT_EQ(before.bytes, 10);
  EXPECT_EQ(*(*directory->Open("file"))->Identify(), before);
  TruncateFile(root() / "model/file", 1);
  EXPECT_NE(*(*file)->Identify(), before);
  fs::remove(root() / "model/file");
  WriteFile(root() / "model/file", "0123456789");
  EXPECT_NE(*(*directory->Open("file"))->Identify(), before);
}

TEST_F(CheckpointDirectoryTest, OpensOnlyPlainFileNames) {
  const auto directory = OpenModel();
  for (const absl::string_view name :
       {absl::string_view("../model/file"), absl::string_view("/etc/passwd"), absl::string_view(""),
        absl::string_view("."), absl::string_view(".."), absl::string_view("a/b"),
        absl::string_view("file\0", 5), absl::string_view("fi\nle"), absl::string_view("\xFF")}) {
    EXPECT_EQ(directory->Open(name).status().code(), kInvalidArgument) << name;
  }
  EXPECT_EQ(directory->Open("nothing").status(),
            absl::NotFoundError("nothing: No such file or directory"));
}

TEST_F(CheckpointDirectoryTest, OpensOnlyRegularFilesAndNeverWaits) {
  const fs::path model = root() / "model";
  fs::create_directories(model / "directory");
  ASSERT_EQ(mkfifo((model / "fifo").c_str(), 0600), 0);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  (model / "socket").string().copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const auto directory = OpenModel();
  for (const char* name : {"directory", "fifo", "socket"}) {
    EXPECT_EQ(directory->Open(name).status().code(), kInvalidArgument) << name;
  }
  close(fd);
  const auto devices = OpenCheckpointDirectory("/", "/dev");
  EXPECT_EQ((*devices)->Open("null").status(),
            absl::InvalidArgumentError("null: expected a regular file, found a device"));
}

TEST_F(CheckpointDirectoryTest, FollowsTheLinksOfTheHubCacheAndNoOthers) {
  WriteFile(scratch_.path() / "secret", "secret");
  fs::create_directories(root() / "blobs");
  WriteFile(root() / "blobs/hash", "blob");
  fs::create_symlink("../blobs/hash", root() / "model/config.json");
  fs::create_symlink("../../secret", root() / "model/out");
  fs::create_symlink(scratch_.path() / "secret", root() / "model/absolute");
  const auto directory = OpenModel();
  EXPECT_EQ(*ReadAt(**directory->Open("config.json"), 0, 4), "blob");
  for (const char* name : {"out", "absolute"}) {
    EXPECT_EQ(directory->Open(name).status(),
              absl::InvalidArgumentError(absl::StrCat(name, ": leads out of its root")));
  }
}

TEST_F(CheckpointDirectoryTest, RefusesDirectoriesOutsideTheRoot) {
  fs::create_directories(scratch_.path() / "elsewhere");
  fs::create_directories(scratch_.path() / "root2/model");
  fs::create_symlink("../elsewhere", root() / "link");
  for (const std::string& path :
       {std::string("../elsewhere"), std::string("link"), std::string("model/../../elsewhere"),
        (scratch_.path() / "elsewhere").string(), (scratch_.path() / "root2/model").string(),
        (root() / "../elsewhere").string(), std::string("/"), std::string("model/file"),
        std::string(""), std::string("a\0b", 3)}) {
    EXPECT_EQ(StatusOfPath(path).code(), kInvalidArgument) << path;
  }
  EXPECT_EQ(StatusOfPath("nothing").code(), kNotFound);
}

TEST_F(CheckpointDirectoryTest, TakesAbsolutePathsUnderEveryNameOfTheRoot) {
  fs::create_directory_symlink(root(), scratch_.path() / "alias");
  const std::string alias = (scratch_.path() / "alias").string();
  for (const std::string& path :
       {alias + "/model", alias + "//model/", root().string() + "/model"}) {
    EXPECT_TRUE(OpenCheckpointDirectory(alias, path).ok()) << path;
    EXPECT_TRUE(OpenCheckpointDirectory(alias + "/", path).ok()) << path;
  }
  EXPECT_TRUE(OpenCheckpointDirectory(root().string(), root().string()).ok());
  EXPECT_EQ((*OpenCheckpointDirectory(alias, "model"))->name(), "model");
}

TEST_F(CheckpointDirectoryTest, OpensAnythingBeneathSlash) {
  fs::create_directory_symlink(root() / "model", scratch_.path() / "absolute_link");
  for (const fs::path& path : {root() / "model", scratch_.path() / "absolute_link"}) {
    const auto directory = OpenCheckpointDirectory("/", path.string());
    ASSERT_TRUE(directory.ok()) << directory.status();
    EXPECT_EQ(*ReadAt(**(*directory)->Open("file"), 0, 3), "012");
  }
}

TEST_F(CheckpointDirectoryTest, NeverTellsPathsOfTheServer) {
  for (const char* path : {"nothing", "../out", "model/file", "/etc"}) {
    EXPECT_THAT(std::string(StatusOfPath(path).message()),
                Not(HasSubstr(scratch_.path().string())));
  }
}

class ResolveSourceTest : public CheckpointDirectoryTest {
 protected:
  ResolveSourceTest() {
    fs::create_directories(second() / "other");
    const fs::path repo = root() / "models--org--name";
    fs::create_directories(repo / "snapshots/c0ffee");
    fs::create_directories(repo / "refs");
    fs::create_directories(repo / "blobs");
    WriteFile(repo / "refs/main", "c0ffee\n");
    WriteFile(repo / "blobs/h", "{}");
    fs::create_symlink("../../blobs/h", repo / "snapshots/c0ffee/config.json");
    fs::create_directories(second() / "hub/models--gpt2/snapshots/beef");
  }

  fs::path second() const { return scratch_.path() / "second"; }

  absl::StatusOr<std::shared_ptr<const CheckpointDirectory>> Resolve(
      const std::string& source) const {
    return ResolveSource({root().string(), second().string()}, source);
  }
};

TEST_F(ResolveSourceTest, LooksInEachRootInTurn) {
  EXPECT_TRUE(Resolve("model").ok());
  EXPECT_TRUE(Resolve("other").ok());
  EXPECT_TRUE(Resolve((second() / "other").string()).ok());
  EXPECT_EQ((*Resolve("other"))->name(), "other");
}

TEST_F(ResolveSourceTest, FindsModelsInTheHubCache) {
  for (const char* source :
       {"hf:org/name", "hf:org/name@main", "hf:org/name@c0ffee", "hf:gpt2@beef"}) {
    const auto directory = Resolve(source);
    ASSERT_TRUE(directory.ok()) << directory.status();
    EXPECT_EQ((*directory)->name(), source);
  }
  EXPECT_EQ(*ReadAt(**(*Resolve("hf:org/name"))->Open("config.json"), 0, 2), "{}");
}

TEST_F(ResolveSourceTest, SaysWhatIsNotThere) {
  for (const std::string& source :
       {std::string("nothing"), std::string("hf:org/nothing"), std::string("hf:org/name@dead"),
        (root() / "nothing").string(), (second() / "nothing").string()}) {
    const absl::Status status = Resolve(source).status();
    EXPECT_EQ(status.code(), kNotFound) << status;
    EXPECT_EQ(DetailsOf(status).field, "source");
  }
  EXPECT_EQ(Resolve("nothing").status().message(),
            "\"nothing\": not found beneath the model roots");
  EXPECT_EQ(ResolveSource({}, "x").status().code(), kNotFound);
}

TEST_F(ResolveSourceTest, RefusesWhatIsNoSource) {
  for (const std::string& source :
       {std::string(""), std::string("mo\0del", 6), std::string("mo\ndel"), std::string("\x1b[2J"),
        std::string("\xFF"), std::string(5000, 'a'), std::string("../second/other"),
        std::string("/etc"), std::string("hf:"), std::string("hf:a/b/c"), std::string("hf:../x"),
        std::string("hf:org/.."), std::string("hf:org/na--me"), std::string("hf:org/name@"),
        std::string("hf:org/name@../x"), std::string("hf:org/name@.."), std::string("hf:/name")}) {
    const absl::Status status = Resolve(source).status();
    EXPECT_EQ(status.code(), kInvalidArgument) << status;
    EXPECT_EQ(DetailsOf(status).field, "source");
  }
}

TEST_F(ResolveSourceTest, RefusesReferencesThatLeadOut) {
  WriteFile(root() / "models--org--name/refs/evil", "../../../../second/other");
  const absl::Status status = Resolve("hf:org/name@evil").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
}

TEST_F(ResolveSourceTest, LeavesNoDescriptorOpen) {
  const auto open_count = [] {
    int count = 0;
    DIR* const descriptors = opendir("/proc/self/fd");
    while (readdir(descriptors) != nullptr) {
      ++count;
    }
    closedir(descriptors);
    return count;
  };
  const int before = open_count();
  for (const char* source : {"model", "nothing", "../x", "hf:org/name", "hf:org/none"}) {
    const auto directory = Resolve(source);
    if (directory.ok()) {
      (void)(*directory)->List();
      (void)(*directory)->Open("file");
      (void)(*directory)->Open("nothing");
    }
  }
  EXPECT_EQ(open_count(), before);
}

}  // namespace
}  // namespace nibble
