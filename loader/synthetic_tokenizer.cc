#include "loader/synthetic_tokenizer.h"

#include "absl/strings/str_cat.h"
#include "loader/synthetic_shapes.h"

namespace nibble {
namespace {

constexpr char kEndToken[] = "<|endoftext|>";

// Byte-level BPE shows a byte as a printable character: itself where it is one, otherwise the next
// of U+0100, U+0101, ... in the order of the bytes.
bool ShowsItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
         (byte >= 0xae && byte <= 0xff);
}

std::string Utf8(int code_point) {
  if (code_point < 0x80) {
    return std::string(1, static_cast<char>(code_point));
  }
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

void AppendVocabulary(std::string& json, int64_t vocabulary_size) {
  int next_shown = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const int shown = ShowsItself(byte) ? byte : next_shown++;
    const bool escaped = shown == '"' || shown == '\\';
    absl::StrAppend(&json, byte == 0 ? "" : ",", "\"", escaped ? "\\" : "", Utf8(shown),
                    "\":", byte);
  }
  absl::StrAppend(&json, ",\"", kEndToken, "\":", kSyntheticEndTokenId);
  for (int64_t id = kSyntheticEndTokenId + 1; id < vocabulary_size; ++id) {
    absl::StrAppend(&json, ",\"<", id, ">\":", id);
  }
}

}  // namespace

std::string SyntheticTokenizerJson(int64_t vocabulary_size) {
  std::string json = absl::StrCat(
      R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":)",
      kSyntheticEndTokenId, R"(,"content":")", kEndToken,
      R"(","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],)",
      R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,)",
      R"("trim_offsets":true,"use_regex":true},"post_processor":null,)",
      R"("decoder":{"type":"ByteLevel",)",
      R"("add_prefix_space":false,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE",)",
      R"("dropout":null,"unk_token":null,"continuing_subword_prefix":null,)",
      R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,)",
      R"("vocab":{)");
  AppendVocabulary(json, vocabulary_size);
  absl::StrAppend(&json, R"(},"merges":[]}})", "\n");
  return json;
}

std::string SyntheticTokenizerConfigJson() {
  return absl::StrCat(R"({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ")", kEndToken,
                      R"(", "clean_up_tokenization_spaces": false})", "\n");
}

}  // namespace nibble
