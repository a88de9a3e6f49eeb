#include "server/engine/grammar/json_schema.h"

#include <string>
#include <vector>

#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

struct Case {
  const char* schema;
  const char* text;
  const char* verdict;
};

void Check(const std::vector<Case>& cases) {
  for (const auto& [schema, text, verdict] : cases) {
    EXPECT_EQ(Verdict(schema, text), verdict) << schema << "\n" << text;
  }
}

TEST(JsonSchemaTest, AnythingIsAnyJsonValue) {
  Check({
      {"{}", "null", "whole"},
      {"true", R"([1,{"a":[]},"x",true,-0.5e+10])", "whole"},
      {"{}", "{ \"a\": [\n  1,\n\t\t2 ] }", "whole"},
      {"{}", "nul", "open"},
      {"{}", "nulL", "refused at 3"},
      {"{}", "[1,]", "refused at 3"},
      {"{}", R"({"a":1,})", "refused at 7"},
      {"{}", "01", "refused at 1"},
      {"{}", "1.", "open"},
      {"{}", ".5", "refused at 0"},
      {"{}", "+1", "refused at 0"},
      {"{}", "-", "open"},
      {"{}", "NaN", "refused at 0"},
      {"{}", "'a'", "refused at 0"},
      {"{}", "1 ", "refused at 1"},
      {"{}", " 1", "refused at 0"},
      {R"({"type":"object"})", "[", "refused at 0"},
      {R"({"type":"object"})", "{}", "whole"},
      {R"({"type":"array"})", R"([ {"a": []} ])", "whole"},
  });
}

TEST(JsonSchemaTest, WhiteSpaceIsOneSpaceOrOneIndentedLine) {
  const std::string line = "[\n" + std::string(64, ' ');
  Check({
      {"{}", "[ 1, 2 ]", "whole"},
      {"{}", "[  1", "refused at 2"},
      {"{}", "[\n\n1", "refused at 2"},
      {"{}", "[ \n1", "refused at 2"},
      {"{}", "[1 ,2]", "refused at 3"},
      {"{}", R"({"a" :1})", "refused at 4"},
      {"{}", "[\t1]", "refused at 1"},
      {"{}", (line + "1\n]").c_str(), "whole"},
      {"{}", (line + " ").c_str(), "refused at 66"},
  });
}

TEST(JsonSchemaTest, StringsAreUtf8WithEscapes) {
  const char* schema = R"({"type":"string"})";
  Check({
      {schema, R"("\"\\\/\b\f\n\r\t\u00e9\uD83D\uDE00")", "whole"},
      {schema, "\"é€😀\"", "whole"},
      {schema, R"("\ud83dx)", "refused at 7"},
      {schema, R"("\ud83d\u0041)", "refused at 9"},
      {schema, R"("\udc00)", "refused at 4"},
      {schema, R"("\x)", "refused at 2"},
      {schema, "\"\n", "refused at 1"},
      {schema, "\"\x7f\"", "whole"},
      {schema, "\"\xC0\x80", "refused at 1"},     // Overlong.
      {schema, "\"\xE0\x9F", "refused at 2"},     // Overlong.
      {schema, "\"\xED\xA0", "refused at 2"},     // A surrogate.
      {schema, "\"\xF4\x90", "refused at 2"},     // Above U+10FFFF.
      {schema, "\"\xF0\x8F", "refused at 2"},     // Overlong.
      {schema, "\"\xF4\x8F\xBF\xBF\"", "whole"},  // U+10FFFF.
      {schema, "\"\xE2\x82\"", "refused at 3"},   // Cut short.
      {schema, "\"\xff", "refused at 1"},
  });
}

TEST(JsonSchemaTest, LengthsCountCharacters) {
  const char* schema = R"({"type":"string","minLength":2,"maxLength":3})";
  Check({
      {schema, "\"a\"", "refused at 2"},
      {schema, "\"é😀\"", "whole"},
      {schema, R"("\ud83d\ude00b")", "whole"},
      {schema, R"("abc")", "whole"},
      {schema, R"("abcd)", "refused at 4"},
      {R"({"minLength":1})", "\"\"", "refused at 1"},
      {R"({"minLength":1})", "\"abcdefgh\"", "whole"},
      {R"({"type":"string","maxLength":0})", "\"\"", "whole"},
      {R"({"type":"string","pattern":"^[ab]+$","maxLength":2})", "\"ab\"", "whole"},
      {R"({"type":"string","pattern":"^[ab]+$","maxLength":2})", "\"aba", "refused at 3"},
      {R"({"type":"string","pattern":"^[ab]+$","minLength":2})", "\"a\"", "refused at 2"},
  });
}

TEST(JsonSchemaTest, IntegersKeepTheirBounds) {
  const char* schema = R"({"type":"integer","minimum":-12,"exclusiveMaximum":105})";
  for (int value = -200; value <= 1100; ++value) {
    const bool holds = value >= -12 && value < 105;
    EXPECT_EQ(Verdict(schema, std::to_string(value)) == "whole", holds) << value;
  }
  Check({
      {R"({"type":"integer"})", "-0", "refused at 1"},
      {R"({"type":"integer"})", "1.", "refused at 1"},
      {R"({"type":"integer"})", "999999999999999999", "whole"},
      {R"({"type":"integer"})", "1000000000000000000", "refused at 18"},
      {R"({"type":"integer","minimum":0})", "-", "refused at 0"},
      {R"({"type":"integer","minimum":1.5})", "1", "open"},
      {R"({"type":"integer","exclusiveMinimum":0})", "0", "refused at 0"},
      {R"({"type":"integer","maximum":-5})", "-4", "open"},
      {R"({"type":"integer","maximum":-5})", "-40", "whole"},
      {R"({"type":"integer","minimum":1024,"maximum":65535})", "65536", "refused at 4"},
  });
}

TEST(JsonSchemaTest, ObjectsWriteTheirPropertiesInOrder) {
  const char* schema = R"({"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"null"},
      "c":{"type":"boolean"}},"required":["a"],"additionalProperties":false})";
  Check({
      {schema, R"({"b":1,"a":null,"c":true})", "whole"},
      {schema, R"({"a":null})", "whole"},
      {schema, R"({"a":null,"c":false})", "whole"},
      {schema, R"({"a":null,"b")", "refused at 11"},
      {schema, R"({"c")", "refused at 2"},
      {schema, R"({"b":1})", "refused at 6"},
      {schema, "{}", "refused at 1"},
      {schema, R"({"a":null,})", "refused at 10"},
      {R"({"type":"object","properties":{"a":{}}})", "{}", "whole"},
      {R"({"type":"object","properties":{"a":{}}})", R"({"b")", "refused at 2"},
      {R"({"type":"object","properties":{"a":false,"b":{}}})", R"({"b":1})", "whole"},
      {R"({"type":"object","properties":{"a":false,"b":{}}})", R"({"a")", "refused at 2"},
      {R"({"type":"object","properties":{"\"\n":{}}})", R"({"\"\n":1})", "whole"},
      {R"({"type":"object","required":["x"]})", R"({"x":1})", "whole"},
  });
}

TEST(JsonSchemaTest, OtherPropertiesAreNotThoseThatAreNamed) {
  const char* schema = R"({"type":"object","properties":{"ab":{"type":"null"}},
      "additionalProperties":{"type":"integer"}})";
  Check({
      {schema, R"({"ab":null,"abc":1,"a":2,"":3})", "whole"},
      {schema, R"({"a":1,"b":2})", "whole"},
      {schema, R"({"ab":1)", "refused at 6"},
      {schema, R"({"a":1,"ab")", "refused at 10"},
      {schema, R"({"\u0061b")", "refused at 6"},
      {schema, R"({"x":null)", "refused at 5"},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", R"({"k":1, "l":2})",
       "whole"},
      {R"({"type":"object","additionalProperties":false})", R"({")", "refused at 1"},
  });
}

TEST(JsonSchemaTest, ArraysCountTheirItems) {
  const char* bounded = R"({"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3})";
  const char* tuple = R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],
      "minItems":2,"maxItems":2})";
  const char* rest =
      R"({"type":"array","prefixItems":[{"type":"null"}],"items":{"type":"boolean"}})";
  Check({
      {bounded, "[1]", "refused at 2"},
      {bounded, "[1,2]", "whole"},
      {bounded, "[1, 2,\n 3\n]", "whole"},
      {bounded, "[1,2,3,", "refused at 6"},
      {bounded, "[]", "refused at 1"},
      {tuple, R"([1,"a"])", "whole"},
      {tuple, R"([1,"a",)", "refused at 6"},
      {tuple, R"(["a")", "refused at 1"},
      {rest, "[]", "whole"},
      {rest, "[null,true,false,true]", "whole"},
      {rest, "[null,null", "refused at 6"},
      {R"({"type":"array","items":false})", "[]", "whole"},
      {R"({"type":"array","items":false})", "[1", "refused at 1"},
      {R"({"type":"array","maxItems":0})", "[]", "whole"},
      {R"({"type":"array","minItems":1})", "[]", "refused at 1"},
      {R"({"type":"array","minItems":1,"items":{}})", "[1,2,3,4]", "whole"},
  });
}

TEST(JsonSchemaTest, EnumsAndConstantsAreWrittenPlainly) {
  Check({
      {R"({"enum":["red","green",1,null,2.5]})", "\"green\"", "whole"},
      {R"({"enum":["red","green",1,null,2.5]})", "2.5", "whole"},
      {R"({"enum":["red","green",1,null,2.5]})", "\"re\"", "refused at 3"},
      {R"({"enum":["a",1,null],"type":"string"})", "1", "refused at 0"},
      {R"({"const":{"a":[1,"x\n"]}})", R"({"a": [1, "x\n"]})", "whole"},
      {R"({"const":{"a":[1,"x"]}})", R"({"a":[2)", "refused at 6"},
      {R"({"enum":["a","ab","abc"]})", "\"ab\"", "whole"},
      {R"({"const":"é\"\u0001"})", R"("é\"\u0001")", "whole"},
  });
}

TEST(JsonSchemaTest, AlternativesMayBeginAlike) {
  const char* schema = R"({"anyOf":[
      {"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind","x"]},
      {"type":"object","properties":{"kind":{"const":"ab"},"y":{"$ref":"#/$defs/Y"}},"required":["kind","y"]},
      {"type":"string"}],"$defs":{"Y":{"type":["string","null"]}}})";
  Check({
      {schema, R"({"kind":"a","x":1})", "whole"},
      {schema, R"({"kind":"ab","y":null})", "whole"},
      {schema, R"({"kind":"ab","x")", "refused at 14"},
      {schema, "\"text\"", "whole"},
      {schema, "1", "refused at 0"},
      {R"({"properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
       R"({"a":1})", "whole"},
      {R"({"properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
       R"({"b":[]})", "whole"},
      {R"({"properties":{"a":{"type":"integer"}},"anyOf":[{"required":["a"]},{"required":["b"]}]})",
       R"({})", "refused at 1"},
  });
}

TEST(JsonSchemaTest, AllOfJoinsWhatItsPartsSay) {
  const char* joined = R"({"allOf":[{"$ref":"#/$defs/A"},{"properties":{"b":{"type":"null"}},
      "required":["b"]}],"$defs":{"A":{"type":"object","properties":{"a":{"type":"integer"}},
      "required":["a"]}}})";
  const char* closed = R"({"allOf":[{"properties":{"a":{}},"additionalProperties":false},
      {"properties":{"b":{}}}],"type":"object"})";
  Check({
      {joined, R"({"a":1,"b":null})", "whole"},
      {joined, R"({"a":1})", "refused at 6"},
      {closed, R"({"a":1})", "whole"},
      {closed, R"({"b")", "refused at 2"},
      {R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5},{"minimum":4}]})", "3",
       "refused at 0"},
      {R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5},{"minimum":4}]})", "4", "whole"},
      {R"({"allOf":[{"type":["number","null"]}],"type":"integer"})", "1.", "refused at 1"},
      {R"({"$ref":"#/$defs/S","maxLength":1,"$defs":{"S":{"type":"string"}}})", R"("ab)",
       "refused at 2"},
  });
}

TEST(JsonSchemaTest, ReferencesMayRecur) {
  const char* tree = R"({"$ref":"#/$defs/Node","$defs":{"Node":{"type":"object","properties":{
      "value":{"type":"integer"},"children":{"type":"array","items":{"$ref":"#/$defs/Node"}}},
      "required":["value","children"]}}})";
  const char* list =
      R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
      "required":["next"]})";
  Check({
      {tree, R"({"value":1,"children":[{"value":2,"children":[]},{"value":3,"children":[]}]})",
       "whole"},
      {tree, R"({"value":1,"children":[1)", "refused at 23"},
      {list, R"({"next":{"next":{"next":null}}})", "whole"},
      {list, R"({"next":{"next":1)", "refused at 16"},
      {R"({"properties":{"a/b":{"$ref":"#/definitions/x~1y~0%20z"}},"required":["a/b"],
        "definitions":{"x/y~ z":{"const":1}}})",
       R"({"a/b":1})", "whole"},
  });
}

TEST(JsonSchemaTest, ValuesNeverGrowSoDeepThatTheyCannotEnd) {
  const auto grammar = Compiled("{}");
  std::string text(1000, '[');
  ASSERT_EQ(Verdict(*grammar, text), "refused at 128");
  text.resize(128);
  EXPECT_EQ(Verdict(*grammar, text + std::string(128, ']')), "whole");

  // A member that must be there takes a level: the last list must end without it.
  const char* list =
      R"({"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
      "required":["next"]})";
  std::string nested;
  int depth = 0;
  while (depth < 1000 && Verdict(list, nested + "{\"next\":") == "open") {
    nested += "{\"next\":";
    ++depth;
  }
  EXPECT_EQ(depth, 129);
  EXPECT_EQ(Verdict(list, nested + "null" + std::string(129, '}')), "whole");
}

}  // namespace
}  // namespace nibble
