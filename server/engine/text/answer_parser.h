// Takes an answer apart while it comes: reasoning, content, calls of tools.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/engine/text/answer_format.h"
#include "server/engine/text/tool_call.h"

namespace nibble {

inline constexpr size_t kToolCallsMax = 128;  // Of one answer; more are content.
inline constexpr size_t kToolCallBytesMax = 256
                                            << 10;  // Of one call's text; longer ones are content.

// In the order in which they are told: what is reasoning, then content, then calls.
struct AnswerPiece {
  std::string reasoning;
  std::string content;
  std::vector<ToolCall> calls;

  bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
};

//          <think>             </think>             <tool_call>           </tool_call>
//   start ─────────► reasoning ─────────► content ───────────────► call ────────────────► content
//     └── anything else ──────────────────────►│    <|python_tag|>       or not one: content
//     └── { where calls are bare ──────────────────────────────────► bare calls ──► the end
//
// A marker is never told in part. A call is told whole, once it is known to be one: what looks like
// one and is broken, incomplete or beyond a limit is content, with its markers, and nothing is ever
// lost but white space next to a marker. The first </tool_call> ends a call, also within a string
// of its JSON. Bare calls are calls only if nothing else follows, so they are told at the end.
//
// Cost: linear in the text. Belongs to one thread.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerFormat format);

  // `text` is whole characters. Returns: what is certain now and was not before.
  AnswerPiece Append(absl::string_view text);

  // Returns: the rest.
  AnswerPiece Finish();

  // The answer has its one call, and nothing after it counts.
  bool done() const { return done_; }

 private:
  enum class State { kStart, kReasoning, kContent, kCall, kBare };

  bool Advance(AnswerPiece& piece);
  bool AdvanceStart();
  bool AdvanceReasoning(AnswerPiece& piece);
  bool AdvanceContent(AnswerPiece& piece);
  bool AdvanceCall(AnswerPiece& piece);
  bool AdvanceBare(AnswerPiece& piece);
  bool ScanObject(char c);
  void AddContent(absl::string_view text, AnswerPiece& piece);
  void AddCall(ToolCall call, AnswerPiece& piece);
  bool GiveUpCall(size_t bytes, AnswerPiece& piece);

  const AnswerFormat format_;
  const absl::string_view call_begin_;  // Empty: there are no calls.
  State state_;
  std::string text_;    // Not decided yet. From the marker on in kCall and kBare.
  size_t scanned_ = 0;  // Of text_, in kCall and kBare.
  std::string space_;   // Told only if content comes after it.
  bool has_reasoned_ = false;
  bool has_told_reasoning_ = false;
  bool has_content_ = false;
  size_t call_count_ = 0;
  bool done_ = false;

  // Of kBare.
  std::vector<ToolCall> bare_calls_;
  size_t object_begin_ = 0;
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool expects_object_ = true;
};

}  // namespace nibble
