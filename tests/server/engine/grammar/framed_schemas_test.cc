#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

std::string FramedVerdict(absl::string_view free_until,
                          const std::vector<FramedSchema>& alternatives, absl::string_view text) {
  const auto grammar = CompileFramedSchemas(free_until, alternatives);
  EXPECT_TRUE(grammar.ok()) << grammar.status();
  return grammar.ok() ? Verdict(**grammar, text) : "";
}

TEST(FramedSchemasTest, PutTextsAroundTheValueOfOne) {
  const std::vector<FramedSchema> both = {{"<a>", R"({"const": 1})", "</a>", ""},
                                          {"<ab>", R"({"const": "x"})", "</ab>", ""}};
  EXPECT_EQ(FramedVerdict("", both, "<a>1</a>"), "whole");
  EXPECT_EQ(FramedVerdict("", both, R"(<ab>"x"</ab>)"), "whole");
  EXPECT_EQ(FramedVerdict("", both, "<ab>1"), "refused at 4");
  EXPECT_EQ(FramedVerdict("", both, "<a>1</a"), "open");
  EXPECT_EQ(FramedVerdict("", both, "<a>1</a>x"), "refused at 8");
  EXPECT_EQ(FramedVerdict("", both, "x"), "refused at 0");
}

TEST(FramedSchemasTest, LetAnythingComeBeforeAMark) {
  const std::vector<FramedSchema> one = {{"\n\n", R"({"type": "integer"})", "", ""}};
  EXPECT_EQ(FramedVerdict("</t>", one, "a < b </ </<</t>\n\n7"), "whole");
  EXPECT_EQ(FramedVerdict("</t>", one, "\xff{\"\n</t>\n\n7"), "whole");
  EXPECT_EQ(FramedVerdict("</t>", one, "</t>\n\n7"), "whole") << "or nothing";
  EXPECT_EQ(FramedVerdict("</t>", one, "</t>7"), "refused at 4");
  EXPECT_EQ(FramedVerdict("</t>", one, "thinking"), "open");
  EXPECT_EQ(FramedVerdict("aab", one, "aaab\n\n7"), "whole") << "a mark that begins anew";
}

TEST(FramedSchemasTest, NeedNoTexts) {
  const std::vector<FramedSchema> one = {{"", R"({"type": "object"})", "", ""}};
  EXPECT_EQ(FramedVerdict("", one, R"({"a": 1})"), "whole");
  EXPECT_EQ(FramedVerdict("", one, R"({"a": )"), "open");
  EXPECT_EQ(FramedVerdict("", one, "that"), "refused at 0");
}

TEST(FramedSchemasTest, KeepReferencesWithinTheirSchema) {
  const std::vector<FramedSchema> both = {
      {"a", R"({"$ref": "#/$defs/n", "$defs": {"n": {"const": 1}}})", "", ""},
      {"b", R"({"$ref": "#/$defs/n", "$defs": {"n": {"const": 2}}})", "", ""}};
  EXPECT_EQ(FramedVerdict("", both, "a1"), "whole");
  EXPECT_EQ(FramedVerdict("", both, "b2"), "whole");
  EXPECT_EQ(FramedVerdict("", both, "a2"), "refused at 1");
}

TEST(FramedSchemasTest, NameTheSchemaThatIsWrong) {
  const absl::Status status =
      CompileFramedSchemas("", {{"", "true", "", "one: "}, {"", R"({"not": {}})", "", "two: "}})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(status.message().substr(0, 5), "two: ");
}

}  // namespace
}  // namespace nibble
