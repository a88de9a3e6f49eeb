#include "server/engine/chat/run.h"

#include "absl/strings/str_cat.h"

namespace nibble::jinja {

bool Run::FailSteps() {
  FailWith(absl::ResourceExhaustedError(
      absl::StrCat("chat template, line ", line_, ": takes more than ", kStepsMax, " steps")));
  return false;
}

bool Run::MayMake(int64_t bytes) {
  if (bytes <= kValueBytesMax - bytes_) {
    return status_.ok();
  }
  FailWith(absl::ResourceExhaustedError(absl::StrCat(
      "chat template, line ", line_, ": its values take more than ", kValueBytesMax, " bytes")));
  return false;
}

void Run::Fail(absl::string_view message) {
  if (status_.ok()) {
    FailWith(
        absl::InvalidArgumentError(absl::StrCat("chat template, line ", line_, ": ", message)));
  }
}

void Run::FailWith(absl::Status status) {
  if (status_.ok()) {
    status_ = std::move(status);
  }
}

void Output::Append(absl::string_view text) {
  if (run_.failed() || !run_.StepBytes(text.size())) {
    return;
  }
  if (static_cast<int64_t>(text_.size() + text.size()) > kOutputBytesMax) {
    run_.FailWith(absl::ResourceExhaustedError(absl::StrCat(
        "chat template, line ", run_.line(), ": prints more than ", kOutputBytesMax, " bytes")));
    return;
  }
  const auto bytes = static_cast<int64_t>(text.size());
  if (run_.MayMake(bytes)) {
    charge_.Add(bytes);
    absl::StrAppend(&text_, text);
  }
}

DepthGuard::DepthGuard(Run& run, int& depth) : depth_(depth) {
  if (++depth_ > kEvaluationDepthMax) {
    run.FailWith(absl::ResourceExhaustedError(
        absl::StrCat("chat template, line ", run.line(), ": nests more than ", kEvaluationDepthMax,
                     " levels of expressions, blocks and macros")));
  }
}

}  // namespace nibble::jinja
