// Answers taken apart, in pieces of every size. Expected values are those of the formats' own
// documentation: the model cards of Hermes 2 Pro, Qwen2.5, Qwen3 and Qwen3-Coder, and Meta's
// prompt formats of Llama 3.1 and 3.2.

#include "server/engine/text/answer_parser.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {

bool operator==(const ToolCall& left, const ToolCall& right) {
  return left.name == right.name && left.arguments == right.arguments;
}
void PrintTo(const ToolCall& call, std::ostream* out) { *out << call.name << call.arguments; }

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

AnswerFormat Format(CallForm calls, bool has_reasoning = false, bool begins_in_reasoning = false) {
  AnswerFormat format;
  format.calls = calls;
  format.has_reasoning = has_reasoning;
  format.begins_in_reasoning = begins_in_reasoning;
  return format;
}

void Add(AnswerPiece piece, AnswerPiece& whole) {
  whole.reasoning += piece.reasoning;
  whole.content += piece.content;
  std::move(piece.calls.begin(), piece.calls.end(), std::back_inserter(whole.calls));
}

AnswerPiece InPieces(const AnswerFormat& format, const std::string& text, size_t piece_bytes) {
  AnswerParser parser(format);
  AnswerPiece whole;
  for (size_t first = 0; first < text.size(); first += piece_bytes) {
    Add(parser.Append(text.substr(first, piece_bytes)), whole);
  }
  Add(parser.Finish(), whole);
  return whole;
}

// What it is in pieces of any size.
AnswerPiece Parse(const AnswerFormat& format, const std::string& text) {
  AnswerPiece whole = InPieces(format, text, text.size() + 1);
  for (size_t piece_bytes = 1; piece_bytes < std::min<size_t>(text.size(), 40); ++piece_bytes) {
    const AnswerPiece other = InPieces(format, text, piece_bytes);
    EXPECT_EQ(other.reasoning, whole.reasoning) << piece_bytes;
    EXPECT_EQ(other.content, whole.content) << piece_bytes;
    EXPECT_EQ(other.calls, whole.calls) << piece_bytes;
  }
  return whole;
}

const std::string kHermesCall =
    "<tool_call>\n{\"arguments\": {\"symbol\": \"TSLA\"}, \"name\": \"get_stock_fundamentals\"}\n"
    "</tool_call>";

TEST(AnswerParserTest, ReadsTheCallOfHermes) {
  const AnswerPiece answer = Parse(Format(CallForm::kJson), kHermesCall);
  EXPECT_EQ(answer.content, "");
  EXPECT_THAT(answer.calls,
              ElementsAre(ToolCall{"get_stock_fundamentals", R"({"symbol": "TSLA"})"}));
}

TEST(AnswerParserTest, ReadsSeveralCallsOfQwenAfterText) {
  const AnswerPiece answer = Parse(Format(CallForm::kJson), R"(I look it up.
<tool_call>
{"name": "get_current_temperature", "arguments": {"location": "San Francisco, CA, USA"}}
</tool_call>
<tool_call>
{"name": "get_temperature_date", "arguments": {"location": "San Francisco, CA, USA", "date": "2024-10-01"}}
</tool_call>)");
  EXPECT_EQ(answer.content, "I look it up.");
  EXPECT_THAT(
      answer.calls,
      ElementsAre(ToolCall{"get_current_temperature", R"({"location": "San Francisco, CA, USA"})"},
                  ToolCall{"get_temperature_date",
                           R"({"location": "San Francisco, CA, USA", "date": "2024-10-01"})"}));
}

TEST(AnswerParserTest, KeepsTextAfterACallAndSpaceWithinContent) {
  const AnswerPiece answer = Parse(Format(CallForm::kJson), "One\n" + kHermesCall + "\n\n two \n");
  EXPECT_EQ(answer.content, "One\n\n\n two");
  EXPECT_EQ(answer.calls.size(), 1u);
}

TEST(AnswerParserTest, ReadsTheCallOfQwen3Coder) {
  AnswerFormat format = Format(CallForm::kTagged);
  format.json_parameters = {{"get_weather", {"days", "tags", "exact"}}};
  const AnswerPiece answer = Parse(format, R"(<tool_call>
<function=get_weather>
<parameter=city>
12
</parameter>
<parameter=note>
two
"lines"
</parameter>
<parameter=days>
3
</parameter>
<parameter=tags>
["a", "b"]
</parameter>
<parameter=exact>
yes
</parameter>
</function>
</tool_call>)");
  EXPECT_EQ(answer.content, "");
  EXPECT_THAT(answer.calls,
              ElementsAre(ToolCall{
                  "get_weather",
                  R"({"city": "12", "note": "two\n\"lines\"", "days": 3, "tags": ["a", "b"], )"
                  R"("exact": "yes"})"}))
      << "what the tool takes as text stays text, and so does what is no JSON";
}

TEST(AnswerParserTest, ReadsTheBareCallOfLlama) {
  const std::string call =
      R"({"type": "function", "name": "trending_songs", "parameters": {"n": "10", "genre": "all"}})";
  for (const char* const before : {"", "\n", "<|python_tag|>", "<|python_tag|> "}) {
    const AnswerPiece answer = Parse(Format(CallForm::kBare), before + call);
    EXPECT_EQ(answer.content, "") << before;
    EXPECT_THAT(answer.calls,
                ElementsAre(ToolCall{"trending_songs", R"({"n": "10", "genre": "all"})"}));
  }
}

TEST(AnswerParserTest, ReadsSeveralBareCallsBetweenSemicolons) {
  const std::string calls =
      R"({"name": "search", "parameters": {"query": "a;}{\"b"}}; {"name": "now", "parameters": {}})";
  for (const char* const before : {"", "<|python_tag|>"}) {
    const AnswerPiece answer = Parse(Format(CallForm::kBare), before + calls);
    EXPECT_EQ(answer.content, "");
    EXPECT_THAT(answer.calls,
                ElementsAre(ToolCall{"search", R"({"query": "a;}{\"b"})"}, ToolCall{"now", "{}"}));
  }
  const AnswerPiece after_text =
      Parse(Format(CallForm::kBare), "Let me see.<|python_tag|>" + calls);
  EXPECT_EQ(after_text.content, "Let me see.");
  EXPECT_EQ(after_text.calls.size(), 2u);
}

TEST(AnswerParserTest, LeavesWhatIsNoCallInTheContent) {
  const std::pair<CallForm, const char*> cases[] = {
      {CallForm::kJson, "<tool_call>{\"name\": \"f\", \"arguments\": {</tool_call> and on"},
      {CallForm::kJson, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}"},
      {CallForm::kJson, "<tool_call>{\"arguments\": {}}</tool_call>"},
      {CallForm::kJson, "<tool_call>{\"name\": \"\", \"arguments\": {}}</tool_call>"},
      {CallForm::kJson, "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>"},
      {CallForm::kJson, "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>"},
      {CallForm::kJson, "<tool_call>{\"name\": \"f\"} {}</tool_call>"},
      {CallForm::kJson, "a <tool and a <tool_call"},
      {CallForm::kJson, "<think>not of this model</think>"},
      {CallForm::kJson, "{\"name\": \"f\", \"parameters\": {}}"},
      {CallForm::kTagged, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
      {CallForm::kTagged, "<tool_call><function=f><parameter=a>1</function></tool_call>"},
      {CallForm::kTagged, "<tool_call><function=></function></tool_call>"},
      {CallForm::kTagged, "<tool_call><function=f></function> more</tool_call>"},
      {CallForm::kBare, "<|python_tag|>brave_search.call(query=\"weather\")"},
      {CallForm::kBare, "{\"name\": \"f\", \"parameters\": {}} is what I would call."},
      {CallForm::kBare, "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"param"},
      {CallForm::kBare, "{\"name\": \"f\"}"},
      {CallForm::kBare, "{\"answer\": {\"name\": \"f\", \"parameters\": {}}}"},
      {CallForm::kBare, "I say {\"name\": \"f\", \"parameters\": {}}"},
      {CallForm::kBare, "{x} and <|python"},
      {CallForm::kNone, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
      {CallForm::kNone, "  spaces \n stay \n"},
      {CallForm::kJson, "  spaces \n stay \n"},
  };
  for (const auto& [form, text] : cases) {
    const AnswerPiece answer = Parse(Format(form), text);
    EXPECT_EQ(answer.content, text);
    EXPECT_EQ(answer.reasoning, "") << text;
    EXPECT_THAT(answer.calls, IsEmpty()) << text;
  }
}

TEST(AnswerParserTest, FindsACallBehindOneThatWasNotEnded) {
  const AnswerPiece answer =
      Parse(Format(CallForm::kJson), "<tool_call>{\"name\": \"f\", <tool_call>\n" +
                                         kHermesCall.substr(std::string("<tool_call>\n").size()));
  EXPECT_EQ(answer.content, "<tool_call>{\"name\": \"f\",");
  EXPECT_EQ(answer.calls.size(), 1u);
}

TEST(AnswerParserTest, TakesReasoningFromTheBeginning) {
  const std::string thought = "Okay, <b> and </thin.\n\nSo.";
  const std::string rest = thought + "\n</think>\n\nHello! <think> stays.";
  for (const AnswerPiece& answer : {Parse(Format(CallForm::kNone, true), "<think>\n" + rest),
                                    Parse(Format(CallForm::kNone, true), "\n<think>\n" + rest),
                                    Parse(Format(CallForm::kNone, true, true), rest),
                                    Parse(Format(CallForm::kNone, true, true), "\n" + rest)}) {
    EXPECT_EQ(answer.reasoning, thought);
    EXPECT_EQ(answer.content, "Hello! <think> stays.");
  }
}

TEST(AnswerParserTest, TakesAnAnswerWithoutReasoningAsItIs) {
  for (const char* const text : {"Hello", "  Hello\n", "<thin", "Say <think>", "</think>x", ""}) {
    EXPECT_EQ(Parse(Format(CallForm::kNone, true), text).content, text);
    EXPECT_EQ(Parse(Format(CallForm::kNone, true), text).reasoning, "");
  }
}

TEST(AnswerParserTest, LeavesReasoningThatWasCutOffReasoning) {
  const AnswerPiece answer =
      Parse(Format(CallForm::kJson, true, true), "Maybe " + kHermesCall + " </thi");
  EXPECT_EQ(answer.reasoning, "Maybe " + kHermesCall + " </thi");
  EXPECT_EQ(answer.content, "");
  EXPECT_THAT(answer.calls, IsEmpty()) << "a thought of a call is none";
}

TEST(AnswerParserTest, FindsCallsBehindReasoning) {
  const AnswerPiece hermes =
      Parse(Format(CallForm::kJson, true), "<think>\nHm.\n</think>\n\n" + kHermesCall);
  EXPECT_EQ(hermes.reasoning, "Hm.");
  EXPECT_EQ(hermes.content, "");
  EXPECT_EQ(hermes.calls.size(), 1u);
  const AnswerPiece bare = Parse(Format(CallForm::kBare, true, true),
                                 "Hm.</think>{\"name\": \"f\", \"parameters\": {}}");
  EXPECT_EQ(bare.calls.size(), 1u);
}

TEST(AnswerParserTest, TellsATextAsSoonAsNoMarkerCanReachIt) {
  AnswerParser parser(Format(CallForm::kJson, true));
  EXPECT_TRUE(parser.Append("<thi").empty());
  EXPECT_TRUE(parser.Append("nk>\n").empty());
  EXPECT_EQ(parser.Append("So").reasoning, "So");
  EXPECT_EQ(parser.Append(" it <").reasoning, " it");
  EXPECT_EQ(parser.Append("is").reasoning, " <is");
  EXPECT_TRUE(parser.Append("</think>\n\n").empty());
  EXPECT_EQ(parser.Append("A < b").content, "A < b");
  EXPECT_TRUE(parser.Append("<tool_call>{\"name\": \"f\", \"argu").empty());
  EXPECT_TRUE(parser.Append("ments\": {}}</tool_call").empty());
  EXPECT_THAT(parser.Append(">").calls, ElementsAre(ToolCall{"f", "{}"}));
}

TEST(AnswerParserTest, EndsWithTheFirstCallWhereOneIsAllowed) {
  AnswerFormat format = Format(CallForm::kJson);
  format.ends_at_call = true;
  EXPECT_EQ(Parse(format, kHermesCall + kHermesCall + " more").calls.size(), 1u);
  EXPECT_EQ(Parse(format, kHermesCall + kHermesCall + " more").content, "");
  format.calls = CallForm::kBare;
  const std::string call = R"({"name": "f", "parameters": {}})";
  EXPECT_THAT(Parse(format, call + "; " + call).calls, ElementsAre(ToolCall{"f", "{}"}));
  AnswerParser parser(format);
  EXPECT_FALSE(parser.done());
  EXPECT_EQ(parser.Append(call).calls.size(), 1u) << "at once: nothing may follow";
  EXPECT_TRUE(parser.done());
}

TEST(AnswerParserTest, LimitsCallsAndTheirSize) {
  std::string many;
  for (size_t count = 0; count < kToolCallsMax + 1; ++count) {
    many += kHermesCall;
  }
  const AnswerPiece answer = InPieces(Format(CallForm::kJson), many, 100);
  EXPECT_EQ(answer.calls.size(), kToolCallsMax);
  EXPECT_EQ(answer.content, kHermesCall);
  const auto call = [](size_t bytes) {
    const std::string rest = R"({"name": "f", "arguments": {"a": ""}})";
    return "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"" +
           std::string(bytes - rest.size(), 'x') + "\"}}</tool_call>";
  };
  EXPECT_EQ(InPieces(Format(CallForm::kJson), call(kToolCallBytesMax - 11), 1000).calls.size(), 1u);
  const std::string longer = call(kToolCallBytesMax + 1);
  EXPECT_EQ(InPieces(Format(CallForm::kJson), longer, 1000).content, longer);
}

// Ten seconds would be quadratic.
TEST(AnswerParserTest, TakesLinearTime) {
  for (const char* const unit :
       {"<tool_call>", "<tool_call>{\"", "</tool_call>", "<tool_call></tool_call>", "\n", "{", "<",
        "{\"name\": \"f\", \"parameters\": {}}; ", "<|python_tag|>{"}) {
    std::string text;
    while (text.size() < 1 << 20) {
      text += unit;
    }
    for (const CallForm form : {CallForm::kJson, CallForm::kTagged, CallForm::kBare}) {
      const AnswerPiece answer = InPieces(Format(form, true), text, 1024);
      if (answer.calls.empty()) {
        EXPECT_EQ(answer.content, text);
      }
    }
  }
}

TEST(AnswerFormatTest, GoesByWhatTheTemplateSays) {
  const TemplateJson tools = TemplateJson::parse(
      R"([{"type": "function", "function": {"name": "f", "parameters": {"properties":
          {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {}, "d": {"$ref": "#/x"},
           "e": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
           "g": {"type": ["number", "null"]}}}}}])");
  const std::pair<const char*, CallForm> cases[] = {
      {"within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": <name>",
       CallForm::kJson},
      {"<tool_call>\\n<function=example_function_name>\\n<parameter=example_parameter_1>",
       CallForm::kTagged},
      {"{{- \"<|python_tag|>\" + tool_call.name + \".call(\" }}", CallForm::kBare},
      {"{{- '{\"name\": \"' + tool_call.name + '\", ' }}{{- '\"parameters\": ' }}",
       CallForm::kBare},
      {"{{ message.content }}", CallForm::kNone},
  };
  for (const auto& [source, form] : cases) {
    EXPECT_EQ(FindAnswerFormat(source, "", tools).calls, form) << source;
    EXPECT_EQ(FindAnswerFormat(source, "", TemplateJson()).calls, CallForm::kNone);
    EXPECT_EQ(FindAnswerFormat(source, "", TemplateJson::array()).calls, CallForm::kNone);
    EXPECT_FALSE(FindAnswerFormat(source, "<think>\n", tools).has_reasoning);
  }
  EXPECT_EQ(FindAnswerFormat(cases[1].first, "", tools).json_parameters,
            (JsonParameters{{"f", {"b", "d", "g"}}}));
}

TEST(AnswerFormatTest, SeesWhetherThePromptHasOpenedTheReasoning) {
  const char* const source = "{{ content.split('</think>')[-1] }}<think>\n";
  EXPECT_TRUE(FindAnswerFormat(source, "<|assistant|>\n<think>\n", {}).begins_in_reasoning);
  EXPECT_TRUE(FindAnswerFormat(source, "<|assistant|><think>", {}).begins_in_reasoning);
  for (const char* const prompt : {"<|assistant|>\n", "<think>\n\n</think>\n\n", ""}) {
    const AnswerFormat format = FindAnswerFormat(source, prompt, {});
    EXPECT_TRUE(format.has_reasoning);
    EXPECT_FALSE(format.begins_in_reasoning) << prompt;
  }
}

}  // namespace
}  // namespace nibble
