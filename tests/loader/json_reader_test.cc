#include "loader/json_reader.h"

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status SkipAll(absl::string_view json, const JsonRules& rules = {}) {
  JsonReader reader(json, rules);
  reader.SkipValue();
  reader.Finish();
  return reader.status();
}

std::string StringOf(absl::string_view json) {
  JsonReader reader(json, {});
  std::string value;
  reader.ReadString(value);
  reader.Finish();
  return reader.status().ok() ? value : std::string(reader.status().message());
}

TEST(JsonReaderTest, AcceptsEveryKindOfValue) {
  for (const char* json :
       {"{}", "[]", " \t\r\n[ ] ", "null", "true", "false", "0", "-0", "-1.5e-3", "1E+2", "\"\"",
        R"({"a":{"b":[1,2,{"c":null}]},"d":"e"})", "[[[]],[]]", "1e-999", "0e999"}) {
    EXPECT_EQ(SkipAll(json), absl::OkStatus()) << json;
  }
}

TEST(JsonReaderTest, ReadsDoublesAsWritten) {
  const auto read = [](absl::string_view json) {
    JsonReader reader(json, {.allow_nan_and_infinity = true});
    double value = -1;
    reader.ReadDouble(value);
    reader.Finish();
    return reader.status().ok() ? absl::StatusOr<double>(value) : reader.status();
  };
  EXPECT_EQ(*read("0.18877258896827698"), 0.18877258896827698);
  EXPECT_EQ(*read(" -12.5e-1"), -1.25);
  EXPECT_EQ(*read("7"), 7);
  EXPECT_EQ(*read("1e-999"), 0);
  for (const char* json :
       {"", "NaN", "Infinity", "-Infinity", "1e999", "null", "\"1\"", "1.", "+1"}) {
    EXPECT_FALSE(read(json).ok()) << json;
  }
}

TEST(JsonReaderTest, RefusesWhatIsNotJson) {
  for (const char* json : {"",           " ",
                           "{",          "[",
                           "[1",         "[1,",
                           "[1,]",       "{\"a\"",
                           "{\"a\":",    "{\"a\":1",
                           "{\"a\":1,}", "{,}",
                           "[,]",        "{a:1}",
                           "{'a':1}",    "{1:1}",
                           "[1 2]",      "{\"a\" 1}",
                           "nul",        "truefalse",
                           "tru",        "01",
                           "+1",         ".5",
                           "1.",         "1e",
                           "1e+",        "-",
                           "--1",        "0x1",
                           "1_000",      "\"",
                           "\"a",        "\"\\x\"",
                           "\"\\u12\"",  "\"\\u12g4\"",
                           "\"\t\"",     "\"\n\"",
                           "{}{}",       "[] x",
                           "// c\n1",    "/**/1",
                           "NaN",        "Infinity",
                           "-Infinity",  "\xEF\xBB\xBF{}",
                           "]",          "}",
                           "[}",         "{]"}) {
    EXPECT_EQ(SkipAll(json).code(), absl::StatusCode::kDataLoss) << json;
  }
}

TEST(JsonReaderTest, RefusesNulBytesOutsideAndInsideStrings) {
  EXPECT_FALSE(SkipAll(absl::string_view("{}\0", 3)).ok());
  EXPECT_FALSE(SkipAll(absl::string_view("\0{}", 3)).ok());
  EXPECT_FALSE(SkipAll(absl::string_view("\"a\0\"", 4)).ok());
}

TEST(JsonReaderTest, RefusesNumbersBeyondDoubles) {
  EXPECT_FALSE(SkipAll("1e309").ok());
  EXPECT_FALSE(SkipAll("-1e309").ok());
  EXPECT_FALSE(SkipAll(std::string(400, '9')).ok());
  EXPECT_TRUE(SkipAll("1e308").ok());
  EXPECT_TRUE(SkipAll(std::string(300, '9')).ok());
}

TEST(JsonReaderTest, TakesPythonsConstantsOnlyWhereAllowed) {
  const JsonRules python = {.allow_nan_and_infinity = true};
  EXPECT_TRUE(SkipAll("[NaN, Infinity, -Infinity]", python).ok());
  EXPECT_FALSE(SkipAll("[nan]", python).ok());
  EXPECT_FALSE(SkipAll("[Inf]", python).ok());
  EXPECT_FALSE(SkipAll("[NaNx]", python).ok());
}

TEST(JsonReaderTest, UnescapesStrings) {
  EXPECT_EQ(StringOf(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(StringOf(R"("\u0041\u00e9\u20AC")"), "A\xC3\xA9\xE2\x82\xAC");
  EXPECT_EQ(StringOf(R"("\ud83d\uDE00")"), "\xF0\x9F\x98\x80");
  EXPECT_EQ(StringOf(R"("a\u0000b")"), std::string("a\0b", 3));
}

TEST(JsonReaderTest, RefusesLoneSurrogates) {
  for (const char* json : {R"("\ud800")", R"("\ud800x")", R"("\ud800\n")", R"("\ud800\u0041")",
                           R"("\udc00")", R"("\udc00\ud800")", R"("\ud800\ud800")"}) {
    EXPECT_THAT(StringOf(json), HasSubstr("at byte")) << json;
  }
}

TEST(JsonReaderTest, RefusesInvalidUtf8Anywhere) {
  for (const char* text : {"\xFF", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                           "\xF0\x80\x80\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\x80"}) {
    EXPECT_FALSE(SkipAll(absl::StrCat("\"", text, "\"")).ok());
    EXPECT_FALSE(SkipAll(absl::StrCat("{}", text)).ok());
  }
  EXPECT_TRUE(SkipAll("\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \xF4\x8F\xBF\xBF\"").ok());
}

TEST(JsonReaderTest, LimitsTheDepth) {
  const JsonRules rules = {.depth_max = 3};
  EXPECT_TRUE(SkipAll("[[[]]]", rules).ok());
  EXPECT_TRUE(SkipAll("[[[]],[[]]]", rules).ok());
  EXPECT_THAT(SkipAll("[[[[]]]]", rules).message(), HasSubstr("nested more than 3 deep"));
  EXPECT_FALSE(SkipAll(R"({"a":[{"b":{}}]})", rules).ok());
  EXPECT_FALSE(SkipAll(std::string(1'000'000, '['), rules).ok());
}

TEST(JsonReaderTest, ReadsOnlyPlainDigitsAsUnsigned) {
  const auto read = [](absl::string_view json) {
    JsonReader reader(json, {});
    uint64_t value = 0;
    return reader.ReadUnsigned(value) && reader.Finish() ? absl::StrCat(value) : "refused";
  };
  EXPECT_EQ(read("0"), "0");
  EXPECT_EQ(read("18446744073709551615"), "18446744073709551615");
  for (const char* json : {"18446744073709551616", "-1", "-0", "1.0", "1e0", "1E3", "\"1\"", "01",
                           "", "null", "[1]", "1x", "99999999999999999999999999"}) {
    EXPECT_EQ(read(json), "refused") << json;
  }
}

TEST(JsonReaderTest, WalksMembersAndElements) {
  JsonReader reader(R"({"a":[1,2,3],"b":{"x":true},"a":[]})", {});
  std::vector<std::string> seen;
  std::string key;
  reader.EnterObject();
  while (reader.NextMember(key)) {
    seen.push_back(key);
    if (reader.Peek() != JsonReader::Kind::kArray) {
      reader.SkipValue();
      continue;
    }
    reader.EnterArray();
    uint64_t number = 0;
    while (reader.NextElement()) {
      reader.ReadUnsigned(number);
      seen.push_back(absl::StrCat(number));
    }
  }
  EXPECT_TRUE(reader.Finish());
  EXPECT_THAT(seen, ElementsAre("a", "1", "2", "3", "b", "a"));
}

TEST(JsonReaderTest, KeepsTheFirstErrorAndSaysWhere) {
  JsonReader reader("[1, x, ]", {});
  reader.EnterArray();
  uint64_t number = 0;
  while (reader.NextElement()) {
    reader.ReadUnsigned(number);
  }
  EXPECT_FALSE(reader.SkipValue());
  EXPECT_FALSE(reader.Finish());
  EXPECT_EQ(reader.status().message(), "at byte 4: expected an unsigned integer, found \"x, ]\"");
}

}  // namespace
}  // namespace nibble
