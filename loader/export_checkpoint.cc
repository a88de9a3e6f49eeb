#include "loader/export_checkpoint.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_details.h"
#include "loader/open_beneath.h"
#include "loader/printable.h"

namespace nibble {
namespace {

constexpr size_t kPathBytesMax = 4096;  // PATH_MAX of Linux.

// A tokenizer of 256 000 tokens with its merges takes 35 MB.
constexpr int64_t kCopiedBytesMax = int64_t{128} << 20;
constexpr size_t kCopyBufferBytes = 1 << 20;

// What transformers reads beside config and weights to use a text model.
bool IsCopied(absl::string_view file_name) {
  constexpr absl::string_view kNames[] = {"tokenizer.model",
                                          "vocab.json",
                                          "vocab.txt",
                                          "merges.txt",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "spiece.model",
                                          "chat_template.jinja",
                                          "chat_template.json",
                                          "generation_config.json"};
  return std::find(std::begin(kNames), std::end(kNames), file_name) != std::end(kNames) ||
         (absl::StartsWith(file_name, "tokenizer") && absl::EndsWith(file_name, ".json"));
}

// Copies one file. What goes wrong with the source is `source_failure`, and nothing is written.
absl::Status CopyFile(const CheckpointDirectory& source, const std::string& file_name,
                      NewDirectory& target, ExportSummary& summary, absl::Status& source_failure) {
  const auto file = source.Open(file_name);
  const absl::StatusOr<FileIdentity> identity =
      file.ok() ? (*file)->Identify() : absl::StatusOr<FileIdentity>(file.status());
  source_failure = identity.status();
  if (source_failure.ok() && identity->bytes > kCopiedBytesMax) {
    source_failure = absl::UnimplementedError(absl::StrCat(
        file_name, ": expected at most ", kCopiedBytesMax, " bytes, found ", identity->bytes));
  }
  if (!source_failure.ok()) {
    return absl::OkStatus();
  }
  absl::StatusOr<NewFile> copy = target.Create(file_name);
  if (!copy.ok()) {
    return copy.status();
  }
  std::vector<std::byte> buffer(std::min(kCopyBufferBytes, static_cast<size_t>(identity->bytes)));
  for (int64_t offset = 0; offset < identity->bytes;) {
    const auto bytes = std::span(buffer).first(
        std::min(buffer.size(), static_cast<size_t>(identity->bytes - offset)));
    absl::Status status = (*file)->Read(offset, bytes);
    if (status.ok()) {
      status = copy->Append(std::span<const std::byte>(bytes));
    }
    if (!status.ok()) {
      return status;
    }
    offset += std::ssize(bytes);
  }
  summary.files.push_back(file_name);
  summary.bytes += identity->bytes;
  return copy->Close();
}

absl::Status CopyTokenizer(const CheckpointDirectory& source, NewDirectory& target,
                           const ExportObserver& observer, ExportSummary& summary) {
  const absl::StatusOr<std::vector<std::string>> files = source.List();
  // A directory that was removed lists as an empty one to whoever holds it open.
  if (!files.ok() || !std::binary_search(files->begin(), files->end(), "config.json")) {
    summary.warnings.push_back(
        absl::StrCat("the tokenizer's files are not copied: ",
                     files.ok() ? "the source is gone" : std::string(files.status().message())));
    return absl::OkStatus();
  }
  for (const std::string& file_name : *files) {
    if (!IsCopied(file_name)) {
      continue;
    }
    if (observer.cancelled()) {
      return absl::CancelledError("the export was cancelled");
    }
    absl::Status source_failure;
    absl::Status status = CopyFile(source, file_name, target, summary, source_failure);
    if (!status.ok()) {
      return status;
    }
    if (!source_failure.ok()) {
      summary.warnings.push_back(absl::StrCat("not copied: ", source_failure.message()));
    }
  }
  return absl::OkStatus();
}

// A path cut at its last slash.
struct SplitPath {
  std::string parent;  // "." if it has no slash.
  std::string name;
};

SplitPath Split(std::string path) {
  while (absl::EndsWith(path, "/")) {
    path.pop_back();
  }
  const size_t slash = path.rfind('/');
  return slash == path.npos ? SplitPath{".", std::move(path)}
                            : SplitPath{path.substr(0, slash), path.substr(slash + 1)};
}

// A null pointer if the path lies beneath another root.
absl::StatusOr<std::unique_ptr<NewDirectory>> ResolveBeneath(const std::string& root,
                                                             absl::string_view path) {
  const std::string what = Printable(path);
  const FileDescriptor root_fd(open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root_fd.valid()) {
    return ErrnoStatus(errno, absl::StrCat(what, ": the export root"));
  }
  const bool root_is_slash = IsSlash(root_fd.get());
  const std::optional<std::string> below = PathBelow(root, root_is_slash, path);
  if (!below.has_value()) {
    return std::unique_ptr<NewDirectory>();
  }
  SplitPath split = Split(*below);
  if (!IsPlainFileName(split.name)) {
    return BadField("directory",
                    absl::StrCat(what, ": expected a directory beneath the export root"));
  }
  absl::StatusOr<FileDescriptor> parent =
      OpenBeneath(root_fd.get(), root_is_slash, split.parent, O_RDONLY | O_DIRECTORY,
                  absl::StrCat(what, ": the directory above it"));
  if (!parent.ok()) {
    return parent.status();
  }
  return std::make_unique<NewDirectory>(*std::move(parent), std::move(split.name),
                                        std::string(path));
}

}  // namespace

absl::StatusOr<std::unique_ptr<NewDirectory>> ResolveExportDirectory(
    const std::vector<std::string>& roots, absl::string_view path) {
  if (roots.empty()) {
    ErrorDetails details;
    details.reason = "NO_EXPORT_ROOT";
    details.remedies = {"start the daemon with --export-root DIR"};
    return WithDetails(
        absl::FailedPreconditionError("exports are off: the daemon has no --export-root"), details);
  }
  if (path.empty() || path[0] != '/' || path.size() > kPathBytesMax || !IsUtf8(path) ||
      HasControlCharacters(path)) {
    return BadField("directory", absl::StrCat("expected an absolute path of the daemon's machine, ",
                                              "found ", Printable(path)));
  }
  for (const std::string& root : roots) {
    absl::StatusOr<std::unique_ptr<NewDirectory>> target = ResolveBeneath(root, path);
    if (!target.ok() || *target != nullptr) {
      return target;
    }
  }
  return BadField("directory", absl::StrCat(Printable(path), ": lies beneath no --export-root"));
}

absl::StatusOr<ExportSummary> ExportCheckpoint(Device& device, const Weights& weights,
                                               const CheckpointOrigin& origin, NewDirectory& target,
                                               ExportObserver& observer) {
  absl::StatusOr<ExportPlan> plan =
      MakeExportPlan(weights.plan(), origin.config, origin.config_json);
  if (!plan.ok()) {
    return plan.status();
  }
  ExportSummary summary;
  summary.warnings = std::move(plan->warnings);
  absl::Status status = target.Make();
  if (status.ok()) {
    status = target.CheckSpace(plan->disk_bytes_max);
  }
  if (status.ok()) {
    status = WriteCheckpoint(device, weights, origin.config, *plan, target, observer, summary);
  }
  if (status.ok()) {
    status = CopyTokenizer(*origin.directory, target, observer, summary);
  }
  // The last moment at which it can still be as if nothing had happened.
  if (status.ok() && observer.cancelled()) {
    status = absl::CancelledError("the export was cancelled");
  }
  if (status.ok()) {
    status = target.Keep();
  }
  if (!status.ok()) {
    return status;
  }
  return summary;
}

}  // namespace nibble
