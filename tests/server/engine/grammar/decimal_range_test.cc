#include "server/engine/grammar/decimal_range.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "tests/server/engine/grammar/grammar_reader.h"

namespace nibble {
namespace {

TEST(DecimalRangeTest, ReadsEverySpelling) {
  const auto read = [](absl::string_view text) {
    const auto decimal = ReadDecimal(text);
    return decimal ? absl::StrCat(decimal->is_negative ? "-" : "", decimal->whole, "|",
                                  decimal->fraction)
                   : "none";
  };
  EXPECT_EQ(read("0"), "0|");
  EXPECT_EQ(read("-0.0"), "0|");
  EXPECT_EQ(read("-12.50"), "-12|5");
  EXPECT_EQ(read("1e3"), "1000|");
  EXPECT_EQ(read("-1.25e-5"), "-0|0000125");
  EXPECT_EQ(read("1.25E+1"), "12|5");
  EXPECT_EQ(read("0.1"), "0|1");
  EXPECT_EQ(read("1e18"), "none");
  EXPECT_EQ(read("1e-18"), "none");
  EXPECT_EQ(read("1e999"), "none");
}

// All numbers of up to two digits before and behind the point, against comparing doubles. The
// bounds have as many digits, so the doubles nearest to equal decimals are equal.
TEST(DecimalRangeTest, AgreesWithComparingNumbers) {
  const double bounds[] = {-20, -12.5, -1, -0.05, 0, 0.25, 1, 9.99, 10, 12.5, 99};
  for (const double least : bounds) {
    for (const double most : bounds) {
      for (const bool is_included : {true, false}) {
        const nlohmann::json schema = {{"type", "number"},
                                       {is_included ? "minimum" : "exclusiveMinimum", least},
                                       {is_included ? "maximum" : "exclusiveMaximum", most}};
        const auto grammar = CompileJsonSchema(schema.dump());
        if (!(least < most || (least == most && is_included))) {
          EXPECT_FALSE(grammar.ok()) << schema;
          continue;
        }
        ASSERT_TRUE(grammar.ok()) << grammar.status() << schema;
        GrammarRun run(**grammar);
        for (int hundredths = -2100; hundredths <= 10100; ++hundredths) {
          const double value = hundredths / 100.0;
          const bool holds =
              is_included ? value >= least && value <= most : value > least && value < most;
          const std::string text = absl::StrFormat("%.2f", value);
          ASSERT_EQ(Verdict(run, text) == "whole", holds) << schema << " " << text;
          if (hundredths % 100 == 0) {
            ASSERT_EQ(Verdict(run, absl::StrCat(hundredths / 100)) == "whole", holds)
                << schema << " " << value;
          }
        }
      }
    }
  }
}

TEST(DecimalRangeTest, OneBoundIsEnough) {
  const char* schema = R"({"type":"number","minimum":0})";
  EXPECT_EQ(Verdict(schema, "999999999999999999.12345678901234567"), "whole");
  EXPECT_EQ(Verdict(schema, "0.0"), "whole");
  EXPECT_EQ(Verdict(schema, "-"), "refused at 0");
  EXPECT_EQ(Verdict(schema, "1e"), "refused at 1");
  EXPECT_EQ(Verdict(schema, "01"), "refused at 1");
  EXPECT_EQ(Verdict(R"({"type":"number","exclusiveMaximum":0})", "-0.5"), "whole");
  EXPECT_EQ(Verdict(R"({"type":"number","exclusiveMaximum":0})", "0"), "refused at 0");
  EXPECT_EQ(Verdict(R"({"type":"number","exclusiveMinimum":1,"minimum":1,"maximum":2})", "1"),
            "open");
  EXPECT_EQ(Verdict(R"({"type":"number","minimum":-1e-05})", "-0.00001"), "whole");
  EXPECT_EQ(Verdict(R"({"type":"number","minimum":-1e-05})", "-0.00002"), "refused at 7");
}

}  // namespace
}  // namespace nibble
