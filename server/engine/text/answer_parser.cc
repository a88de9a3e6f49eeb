#include "server/engine/text/answer_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

absl::string_view View(const std::string& text) { return text; }

// Bytes at the end of `text` that may be the beginning of `marker`.
size_t BegunBytes(absl::string_view text, absl::string_view marker) {
  for (size_t size = std::min(marker.size() - 1, text.size()); size > 0; --size) {
    if (absl::EndsWith(text, marker.substr(0, size))) {
      return size;
    }
  }
  return 0;
}

absl::string_view BeginOf(CallForm form) {
  switch (form) {
    case CallForm::kNone:
      return "";
    case CallForm::kJson:
    case CallForm::kTagged:
      return kCallBegin;
    case CallForm::kBare:
      return kBareCallBegin;
  }
  return "";
}

}  // namespace

AnswerParser::AnswerParser(AnswerFormat format)
    : format_(std::move(format)),
      call_begin_(BeginOf(format_.calls)),
      state_(format_.begins_in_reasoning ? State::kReasoning : State::kStart),
      has_reasoned_(format_.begins_in_reasoning) {}

AnswerPiece AnswerParser::Append(absl::string_view text) {
  AnswerPiece piece;
  if (!done_) {
    text_.append(text.data(), text.size());
    while (!done_ && Advance(piece)) {
    }
  }
  return piece;
}

AnswerPiece AnswerParser::Finish() {
  AnswerPiece piece;
  if (done_) {
    return piece;
  }
  if (state_ == State::kReasoning) {
    piece.reasoning = std::exchange(text_, "");
    return piece;
  }
  if (state_ == State::kBare && depth_ == 0 && !bare_calls_.empty()) {
    for (ToolCall& call : bare_calls_) {
      AddCall(std::move(call), piece);
    }
    return piece;
  }
  AddContent(std::exchange(text_, ""), piece);
  if (call_count_ == 0 && (has_content_ || !has_reasoned_)) {
    piece.content += std::exchange(space_, "");
  }
  return piece;
}

// Returns: whether the state has changed, so that what is left is to be looked at again.
bool AnswerParser::Advance(AnswerPiece& piece) {
  switch (state_) {
    case State::kStart:
      return AdvanceStart();
    case State::kReasoning:
      return AdvanceReasoning(piece);
    case State::kContent:
      return AdvanceContent(piece);
    case State::kCall:
      return AdvanceCall(piece);
    case State::kBare:
      return AdvanceBare(piece);
  }
  return false;
}

bool AnswerParser::AdvanceStart() {
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(text_);
  if (text.empty()) {
    return false;
  }
  if (format_.has_reasoning && !has_reasoned_) {
    if (absl::StartsWith(text, kReasoningBegin)) {
      text_.erase(0, text_.size() - text.size() + kReasoningBegin.size());
      has_reasoned_ = true;
      state_ = State::kReasoning;
      return true;
    }
    if (absl::StartsWith(kReasoningBegin, text)) {
      return false;
    }
  }
  if (format_.calls == CallForm::kBare && text.front() == '{') {
    scanned_ = 0;
    state_ = State::kBare;
    return true;
  }
  state_ = State::kContent;
  return true;
}

bool AnswerParser::AdvanceReasoning(AnswerPiece& piece) {
  if (!has_told_reasoning_) {
    text_.erase(0, text_.size() - absl::StripLeadingAsciiWhitespace(text_).size());
  }
  const size_t end = View(text_).find(kReasoningEnd);
  const bool is_over = end != std::string::npos;
  const absl::string_view sure =
      View(text_).substr(0, is_over ? end : text_.size() - BegunBytes(text_, kReasoningEnd));
  // White space at its end belongs to the marker.
  const absl::string_view told = absl::StripTrailingAsciiWhitespace(sure);
  absl::StrAppend(&piece.reasoning, told);
  has_told_reasoning_ = has_told_reasoning_ || !told.empty();
  text_.erase(0, is_over ? end + kReasoningEnd.size() : told.size());
  state_ = is_over ? State::kStart : State::kReasoning;
  return is_over;
}

bool AnswerParser::AdvanceContent(AnswerPiece& piece) {
  const bool looks = !call_begin_.empty() && call_count_ < kToolCallsMax;
  const size_t begin = looks ? View(text_).find(call_begin_) : std::string::npos;
  if (begin != std::string::npos) {
    AddContent(View(text_).substr(0, begin), piece);
    text_.erase(0, begin);
    scanned_ = call_begin_.size();
    state_ = format_.calls == CallForm::kBare ? State::kBare : State::kCall;
    return true;
  }
  const size_t sure = text_.size() - (looks ? BegunBytes(text_, call_begin_) : 0);
  AddContent(View(text_).substr(0, sure), piece);
  text_.erase(0, sure);
  return false;
}

bool AnswerParser::AdvanceCall(AnswerPiece& piece) {
  const size_t end = View(text_).find(kCallEnd, scanned_);
  if (std::min(end, text_.size()) > kToolCallBytesMax) {
    return GiveUpCall(text_.size() - BegunBytes(text_, call_begin_), piece);
  }
  if (end == std::string::npos) {
    scanned_ = std::max(call_begin_.size(), text_.size() - BegunBytes(text_, kCallEnd));
    return false;
  }
  const absl::string_view body = View(text_).substr(call_begin_.size(), end - call_begin_.size());
  std::optional<ToolCall> call = format_.calls == CallForm::kTagged
                                     ? ReadTaggedCall(body, format_.json_parameters)
                                     : ReadJsonCall(body, true);
  if (call.has_value()) {
    text_.erase(0, end + kCallEnd.size());
    state_ = State::kContent;
    AddCall(*std::move(call), piece);
    return true;
  }
  // One that was not ended may stand before one that was.
  const size_t last_begin = View(text_).rfind(call_begin_, end);
  return GiveUpCall(last_begin == 0 ? end + kCallEnd.size() : last_begin, piece);
}

bool AnswerParser::AdvanceBare(AnswerPiece& piece) {
  while (scanned_ < text_.size()) {
    const char c = text_[scanned_++];
    if (depth_ > 0) {
      if (!ScanObject(c)) {
        continue;
      }
      std::optional<ToolCall> call =
          ReadJsonCall(View(text_).substr(object_begin_, scanned_ - object_begin_), false);
      if (!call.has_value() || bare_calls_.size() == kToolCallsMax) {
        return GiveUpCall(scanned_, piece);
      }
      expects_object_ = false;
      if (format_.ends_at_call) {
        AddCall(*std::move(call), piece);
        return false;
      }
      bare_calls_.push_back(*std::move(call));
    } else if (c == '{' && expects_object_) {
      object_begin_ = scanned_ - 1;
      depth_ = 1;
    } else if (c == ';' && !expects_object_) {
      expects_object_ = true;
    } else if (!absl::ascii_isspace(static_cast<unsigned char>(c))) {
      return GiveUpCall(scanned_ - 1, piece);
    }
  }
  return text_.size() > kToolCallBytesMax &&
         GiveUpCall(text_.size() - BegunBytes(text_, call_begin_), piece);
}

// Goes on in an object by one byte. Returns: whether that closed it.
bool AnswerParser::ScanObject(char c) {
  if (in_string_) {
    in_string_ = escaped_ || c != '"';
    escaped_ = !escaped_ && c == '\\';
    return false;
  }
  in_string_ = c == '"';
  depth_ += c == '{' ? 1 : c == '}' ? -1 : 0;
  return depth_ == 0;
}

void AnswerParser::AddContent(absl::string_view text, AnswerPiece& piece) {
  absl::string_view told = absl::StripTrailingAsciiWhitespace(text);
  if (told.empty()) {
    absl::StrAppend(&space_, text);
    return;
  }
  std::string space_after(text.substr(told.size()));
  if (!has_content_ && (has_reasoned_ || call_count_ > 0)) {
    space_.clear();
    told = absl::StripLeadingAsciiWhitespace(told);
  }
  absl::StrAppend(&piece.content, space_, told);
  space_ = std::move(space_after);
  has_content_ = true;
}

void AnswerParser::AddCall(ToolCall call, AnswerPiece& piece) {
  piece.calls.push_back(std::move(call));
  ++call_count_;
  done_ = format_.ends_at_call;
}

// The first `bytes` of what may have been a call are content. Returns: true.
bool AnswerParser::GiveUpCall(size_t bytes, AnswerPiece& piece) {
  AddContent(View(text_).substr(0, bytes), piece);
  text_.erase(0, bytes);
  state_ = State::kContent;
  bare_calls_.clear();
  depth_ = 0;
  in_string_ = false;
  escaped_ = false;
  expects_object_ = true;
  return true;
}

}  // namespace nibble
