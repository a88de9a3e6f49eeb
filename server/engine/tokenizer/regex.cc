#include "server/engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "loader/printable.h"
#include "server/engine/tokenizer/regex_syntax.h"

namespace nibble {
namespace {

constexpr size_t kStackBytesAtFirst = 32 << 10;

// \C could leave a match in the middle of a character.
constexpr uint32_t kCompileOptions =
    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_UTF_CHECK;

std::string ErrorText(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

struct StepCounter {
  int64_t left = 0;
  size_t start = 0;     // Where the match that is tried begins.
  size_t position = 0;  // Where the last callout found the search.
};

// Called after each quantifier and at each group: charges the characters walked since the last
// call, in either direction, so that no loop of the expression runs uncounted.
int CountSteps(pcre2_callout_block* block, void* data) {
  auto& steps = *static_cast<StepCounter*>(data);
  if (block->start_match != steps.start) {
    steps.start = block->start_match;
    steps.position = steps.start;
  }
  const size_t position = block->current_position;
  const size_t walked =
      position > steps.position ? position - steps.position : steps.position - position;
  steps.position = position;
  steps.left -= 1 + static_cast<int64_t>(walked);
  return steps.left >= 0 ? 0 : PCRE2_ERROR_CALLOUT;
}

}  // namespace

void Regex::Free::operator()(void* code) const { pcre2_code_free(static_cast<pcre2_code*>(code)); }

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  const auto refuse = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat("the regular expression ", Printable(pattern),
                                                    ": ", status.message()));
  };
  const auto translated = ToPcre2Syntax(pattern);
  if (!translated.ok()) {
    return refuse(translated.status());
  }
  pcre2_compile_context* const context = pcre2_compile_context_create(nullptr);
  Check(context != nullptr, "memory for a compile context");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* const code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    kCompileOptions, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == nullptr) {
    return refuse(absl::InvalidArgumentError(ErrorText(error)));
  }
  // Where the system forbids code made at run time, PCRE2 interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(std::string(pattern), code);
}

struct RegexScratch::Parts {
  pcre2_match_data* match = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kStackBytesAtFirst, kRegexStackBytesMax, nullptr);
  StepCounter steps;
};

RegexScratch::RegexScratch() : parts_(std::make_unique<Parts>()) {
  Check(parts_->match != nullptr && parts_->context != nullptr, "memory for a match");
  pcre2_set_match_limit(parts_->context, kRegexMatchesMax);
  pcre2_set_depth_limit(parts_->context, kRegexDepthMax);
  pcre2_set_heap_limit(parts_->context, kRegexHeapKiBMax);
  pcre2_set_callout(parts_->context, CountSteps, &parts_->steps);
  pcre2_jit_stack_assign(parts_->context, nullptr, parts_->stack);
}

RegexScratch::~RegexScratch() {
  pcre2_jit_stack_free(parts_->stack);
  pcre2_match_context_free(parts_->context);
  pcre2_match_data_free(parts_->match);
}

void RegexScratch::Refill(size_t bytes) {
  parts_->steps.left = kRegexStepsBase + kRegexStepsPerByteMax * static_cast<int64_t>(bytes);
}

absl::StatusOr<bool> RegexScratch::Find(const Regex& regex, absl::string_view text, size_t begin,
                                        Span& match) {
  const auto* const code = static_cast<const pcre2_code*>(regex.code_.get());
  const auto run = [&](uint32_t options) {
    parts_->steps.start = begin;
    parts_->steps.position = begin;
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), begin,
                       PCRE2_NO_UTF_CHECK | options, parts_->match, parts_->context);
  };
  int result = run(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
    result = run(PCRE2_NO_JIT);
  }
  if (result == PCRE2_ERROR_NOMATCH) {
    return false;
  }
  if (result < 0) {
    const std::string reason =
        result == PCRE2_ERROR_CALLOUT
            ? absl::StrCat("more than ", kRegexStepsPerByteMax, " steps a byte")
            : ErrorText(result);
    return absl::ResourceExhaustedError(absl::StrCat("the regular expression ",
                                                     Printable(regex.pattern()), " on ",
                                                     text.size(), " bytes of text: ", reason));
  }
  const PCRE2_SIZE* const offsets = pcre2_get_ovector_pointer(parts_->match);
  match = {.begin = offsets[0], .end = offsets[1]};
  // \K within a look-ahead could put the beginning behind the end.
  if (match.begin > match.end || match.begin < begin) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression ", Printable(regex.pattern()), " matches backwards"));
  }
  return true;
}

}  // namespace nibble
