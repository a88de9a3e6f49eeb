#include "loader/open_beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/support/tiny_checkpoint.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

// root/
//   dir/file          "inside"
//   dir/sub/
//   links/...         made by the tests
// outside             "outside"
class OpenBeneathTest : public ::testing::TestWithParam<Resolver> {
 protected:
  OpenBeneathTest() {
    fs::create_directories(root() / "dir/sub");
    fs::create_directories(root() / "links");
    WriteFile(root() / "dir/file", "inside");
    WriteFile(scratch_.path() / "outside", "outside");
    root_fd_ = FileDescriptor(open(root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }

  fs::path root() const { return scratch_.path() / "root"; }

  void Link(const std::string& target, const std::string& name) const {
    fs::create_symlink(target, root() / name);
  }

  // What the file holds, or the code of the error.
  std::string Read(const std::string& path) const {
    const auto fd = OpenBeneath(root_fd_.get(), false, path, O_RDONLY, path, GetParam());
    if (!fd.ok()) {
      return std::string(absl::StatusCodeToString(fd.status().code()));
    }
    char text[16] = {};
    EXPECT_GE(read(fd->get(), text, sizeof(text)), 0);
    return text;
  }

  ScratchDirectory scratch_;
  FileDescriptor root_fd_;
};

INSTANTIATE_TEST_SUITE_P(Resolvers, OpenBeneathTest,
                         ::testing::Values(Resolver::kKernelOrWalk, Resolver::kWalk),
                         [](const auto& info) {
                           return info.param == Resolver::kWalk ? "Walk" : "Kernel";
                         });

TEST_P(OpenBeneathTest, OpensPathsBeneathTheRoot) {
  for (const char* path : {"dir/file", "./dir//file", "dir/sub/../file", "dir/../dir/file"}) {
    EXPECT_EQ(Read(path), "inside") << path;
  }
}

TEST_P(OpenBeneathTest, RefusesPathsThatLeadOut) {
  for (const char* path :
       {"..", "../outside", "dir/../../outside", "dir/sub/../../../root/dir/file"}) {
    EXPECT_EQ(Read(path), "INVALID_ARGUMENT") << path;
  }
}

TEST_P(OpenBeneathTest, FollowsRelativeLinksThatStayBeneath) {
  Link("../dir/file", "links/file");
  Link("../dir", "links/dir");
  Link("dir/sub/../file", "links/../through");
  Link("file", "links/chain");
  EXPECT_EQ(Read("links/file"), "inside");
  EXPECT_EQ(Read("links/dir/file"), "inside");
  EXPECT_EQ(Read("links/dir/sub/../file"), "inside");
  EXPECT_EQ(Read("through"), "inside");
  EXPECT_EQ(Read("links/chain"), "inside");
}

TEST_P(OpenBeneathTest, RefusesLinksThatLeadOut) {
  Link("../../outside", "links/relative");
  Link((scratch_.path() / "outside").string(), "links/absolute");
  Link((root() / "dir/file").string(), "links/absolute_inside");
  Link("../..", "links/directory");
  for (const char* path :
       {"links/relative", "links/absolute", "links/absolute_inside", "links/directory/outside"}) {
    EXPECT_EQ(Read(path), "INVALID_ARGUMENT") << path;
  }
}

TEST_P(OpenBeneathTest, RefusesLinksInACircleAndWithoutEnd) {
  Link("b", "a");
  Link("a", "b");
  EXPECT_EQ(Read("a"), "INVALID_ARGUMENT");
  for (int i = 0; i < 60; ++i) {
    Link("l" + std::to_string(i + 1), "l" + std::to_string(i));
  }
  Link("dir/file", "l60");
  EXPECT_EQ(Read("l30"), "inside");
  EXPECT_EQ(Read("l0"), "INVALID_ARGUMENT");
}

TEST_P(OpenBeneathTest, RefusesProcsMagicLinks) {
  const FileDescriptor slash(open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto fd =
      OpenBeneath(slash.get(), false, "self/root/etc/passwd", O_RDONLY, "x", GetParam());
  EXPECT_FALSE(fd.ok());
}

TEST_P(OpenBeneathTest, SaysWhatIsMissingOrNoDirectory) {
  Link("nowhere", "dangling");
  EXPECT_EQ(Read("nothing"), "NOT_FOUND");
  EXPECT_EQ(Read("dir/nothing/file"), "NOT_FOUND");
  EXPECT_EQ(Read("dangling"), "NOT_FOUND");
  EXPECT_EQ(Read("dir/file/x"), "INVALID_ARGUMENT");
}

TEST_P(OpenBeneathTest, FollowsAnyLinkBeneathSlash) {
  Link((root() / "dir/file").string(), "links/absolute");
  const FileDescriptor slash(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::string path = (root() / "links/absolute").string().substr(1);
  EXPECT_TRUE(OpenBeneath(slash.get(), true, path, O_RDONLY, path, GetParam()).ok());
  EXPECT_FALSE(OpenBeneath(slash.get(), false, path, O_RDONLY, path, GetParam()).ok());
}

TEST_P(OpenBeneathTest, GivesDescriptorsThatCloseOnExec) {
  for (const char* path : {"dir/file", "dir", "."}) {
    const auto fd = OpenBeneath(root_fd_.get(), false, path, O_RDONLY, path, GetParam());
    ASSERT_TRUE(fd.ok()) << fd.status();
    EXPECT_EQ(fcntl(fd->get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC) << path;
  }
}

TEST(ErrnoStatusTest, SpeaksInTheCodesOfClients) {
  EXPECT_EQ(ErrnoStatus(ENOENT, "x").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(EACCES, "x").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoStatus(ELOOP, "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ErrnoStatus(EMFILE, "x").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoStatus(EIO, "x"), absl::InternalError("x: Input/output error"));
}

}  // namespace
}  // namespace nibble
