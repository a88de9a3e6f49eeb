#include "loader/python_json.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "gtest/gtest.h"

namespace nibble {
namespace {

std::string Quoted(const std::string& text) {
  std::string json;
  AppendJsonString(json, text);
  return json;
}

// Expected values are what Python 3.11 prints for repr(float) and json.dumps(float).
TEST(PythonJsonTest, WritesNumbersAsPythonDoes) {
  EXPECT_EQ(PythonNumber(0.0), "0.0");
  EXPECT_EQ(PythonNumber(-0.0), "-0.0");
  EXPECT_EQ(PythonNumber(1.0), "1.0");
  EXPECT_EQ(PythonNumber(-12.5), "-12.5");
  EXPECT_EQ(PythonNumber(0.1), "0.1");
  EXPECT_EQ(PythonNumber(100.0), "100.0");
  EXPECT_EQ(PythonNumber(1234567.0), "1234567.0");
  EXPECT_EQ(PythonNumber(0.0001), "0.0001");
  EXPECT_EQ(PythonNumber(0.00012345), "0.00012345");
  EXPECT_EQ(PythonNumber(0.00001), "1e-05");
  EXPECT_EQ(PythonNumber(0.000012345), "1.2345e-05");
  EXPECT_EQ(PythonNumber(1e15), "1000000000000000.0");
  EXPECT_EQ(PythonNumber(1e16), "1e+16");
  EXPECT_EQ(PythonNumber(1.5e100), "1.5e+100");
  EXPECT_EQ(PythonNumber(5e-324), "5e-324");
}

// The offsets of a checkpoint that bitsandbytes wrote (tests/data/bnb_checkpoints).
TEST(PythonJsonTest, WritesFloatsAsTheDoublesThatHoldThem) {
  EXPECT_EQ(PythonNumber(0.18877258896827698f), "0.18877258896827698");
  EXPECT_EQ(PythonNumber(0.241973876953125f), "0.241973876953125");
}

TEST(PythonJsonTest, HasPythonsWordsForWhatJsonCannotSay) {
  EXPECT_EQ(PythonNumber(std::numeric_limits<double>::quiet_NaN()), "NaN");
  EXPECT_EQ(PythonNumber(std::numeric_limits<double>::infinity()), "Infinity");
  EXPECT_EQ(PythonNumber(-std::numeric_limits<double>::infinity()), "-Infinity");
}

TEST(PythonJsonTest, GivesEveryNumberBack) {
  uint32_t state = 1;
  for (int i = 0; i < 10'000; ++i) {
    state = state * 1664525 + 1013904223;
    float value = 0;
    std::memcpy(&value, &state, sizeof(value));
    if (std::isfinite(value)) {
      EXPECT_EQ(std::stod(PythonNumber(value)), static_cast<double>(value)) << value;
    }
  }
}

TEST(PythonJsonTest, EscapesStrings) {
  EXPECT_EQ(Quoted("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(Quoted("tab\tnewline\n"), R"("tab\u0009newline\u000a")");
  EXPECT_EQ(Quoted("\xC3\xA9"), "\"\xC3\xA9\"");
}

}  // namespace
}  // namespace nibble
