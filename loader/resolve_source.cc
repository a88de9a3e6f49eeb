// Where a model's source lies: the ResolveSource of checkpoint_directory.h.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/error_details.h"
#include "loader/checkpoint_directory.h"
#include "loader/printable.h"

namespace nibble {
namespace {

using DirectoryOr = absl::StatusOr<std::shared_ptr<const CheckpointDirectory>>;

constexpr absl::string_view kHubScheme = "hf:";
constexpr size_t kSourceTextBytesMax = 4096;  // PATH_MAX of Linux.
constexpr size_t kHubNameBytesMax = 96;       // The hub's own limit for each part of a name.
constexpr int64_t kCommitBytesMax = 256;      // A reference holds a commit: 40 hexadecimal digits.

// A model of the hub, in the words of its cache.
struct HubModel {
  std::string folder;    // "models--org--name".
  std::string revision;  // A branch, a tag or a commit.
};

bool IsHubName(absl::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  };
  return !name.empty() && name.size() <= kHubNameBytesMax && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), allowed) && !absl::StrContains(name, "..") &&
         !absl::StrContains(name, "--");
}

absl::StatusOr<HubModel> ParseHubSource(absl::string_view source) {
  absl::string_view rest = absl::StripPrefix(source, kHubScheme);
  HubModel model = {.folder = "models", .revision = "main"};
  if (const size_t at = rest.find('@'); at != rest.npos) {
    model.revision = std::string(rest.substr(at + 1));
    rest = rest.substr(0, at);
  }
  const std::vector<std::string> parts = absl::StrSplit(rest, '/');
  const bool named = parts.size() <= 2 && std::all_of(parts.begin(), parts.end(), IsHubName);
  if (!named || !IsPlainFileName(model.revision)) {
    return BadField("source", absl::StrCat("expected hf:org/name or hf:org/name@revision, found ",
                                           Printable(source)));
  }
  for (const std::string& part : parts) {
    absl::StrAppend(&model.folder, "--", part);
  }
  return model;
}

// The commit that a branch or tag of the cached model in `folder` stands for.
absl::StatusOr<std::string> ReadReference(const std::string& root, const std::string& folder,
                                          const std::string& revision) {
  const DirectoryOr references = OpenCheckpointDirectory(root, folder + "/refs");
  if (!references.ok()) {
    return references.status();
  }
  const auto file = (*references)->Open(revision);
  if (!file.ok()) {
    return file.status();
  }
  const absl::StatusOr<FileIdentity> identity = (*file)->Identify();
  if (!identity.ok()) {
    return identity.status();
  }
  std::string commit(static_cast<size_t>(std::min(identity->bytes, kCommitBytesMax)), ' ');
  if (absl::Status read = (*file)->Read(0, std::as_writable_bytes(std::span(commit))); !read.ok()) {
    return read;
  }
  absl::StripTrailingAsciiWhitespace(&commit);
  if (!IsPlainFileName(commit)) {
    return absl::DataLossError(
        absl::StrCat("refs/", revision, ": expected a commit, found ", Printable(commit)));
  }
  return commit;
}

DirectoryOr FindHubModel(const std::string& root, const HubModel& model, absl::string_view source) {
  DirectoryOr directory = absl::NotFoundError("no cache");
  for (const char* cache : {"", "hub/"}) {
    const std::string folder = cache + model.folder;
    absl::StatusOr<std::string> commit = ReadReference(root, folder, model.revision);
    if (!commit.ok() && !absl::IsNotFound(commit.status())) {
      return commit.status();
    }
    // What is no branch or tag may be a commit.
    directory = OpenCheckpointDirectory(
        root, absl::StrCat(folder, "/snapshots/", commit.ok() ? *commit : model.revision), source);
    if (!absl::IsNotFound(directory.status())) {
      break;
    }
  }
  return directory;
}

// Looks in every root; if there is none, says what went wrong in the first where it was more than
// "not there".
template <typename Find>
DirectoryOr FindInRoots(const std::vector<std::string>& roots, absl::string_view source,
                        const Find& find) {
  absl::Status failure;
  bool not_found = roots.empty();
  for (const std::string& root : roots) {
    DirectoryOr directory = find(root);
    if (directory.ok()) {
      return directory;
    }
    not_found = not_found || absl::IsNotFound(directory.status());
    if (failure.ok() && !absl::IsNotFound(directory.status())) {
      failure = directory.status();
    }
  }
  // An absolute path lies outside all roots but its own.
  const bool outside_others =
      absl::StartsWith(source, "/") && not_found && absl::IsInvalidArgument(failure);
  if (failure.ok() || outside_others) {
    failure = absl::NotFoundError(
        absl::StrCat(Printable(source), roots.size() == 1 ? ": not found beneath the model root"
                                                          : ": not found beneath the model roots"));
  }
  ErrorDetails details;
  details.field = "source";
  details.resource = std::string(source);
  return WithDetails(failure, details);
}

}  // namespace

DirectoryOr ResolveSource(const std::vector<std::string>& roots, absl::string_view source) {
  if (source.empty() || source.size() > kSourceTextBytesMax || !IsUtf8(source) ||
      HasControlCharacters(source)) {
    return BadField("source",
                    absl::StrCat("expected a path or hf:org/name of 1 to ", kSourceTextBytesMax,
                                 " bytes without control characters, found ", Printable(source)));
  }
  if (!absl::StartsWith(source, kHubScheme)) {
    return FindInRoots(roots, source, [source](const std::string& root) {
      return OpenCheckpointDirectory(root, source);
    });
  }
  const absl::StatusOr<HubModel> model = ParseHubSource(source);
  if (!model.ok()) {
    return model.status();
  }
  return FindInRoots(roots, source, [&model, source](const std::string& root) {
    return FindHubModel(root, *model, source);
  });
}

}  // namespace nibble
