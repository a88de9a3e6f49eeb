#include "server/command_line/byte_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace nibble {
namespace {

int64_t Bytes(const char* text) { return ParseByteSize(text).value_or(-1); }

TEST(ByteSizeTest, ReadsPowersOfTenAndOfTwo) {
  EXPECT_EQ(Bytes("0"), 0);
  EXPECT_EQ(Bytes("1500"), 1500);
  EXPECT_EQ(Bytes("7B"), 7);
  EXPECT_EQ(Bytes("1kB"), 1000);
  EXPECT_EQ(Bytes("1MB"), 1000000);
  EXPECT_EQ(Bytes("24GB"), 24000000000);
  EXPECT_EQ(Bytes("2TB"), 2000000000000);
  EXPECT_EQ(Bytes("1KiB"), 1024);
  EXPECT_EQ(Bytes("128MiB"), 134217728);
  EXPECT_EQ(Bytes("24GiB"), 25769803776);
  EXPECT_EQ(Bytes("1TiB"), 1099511627776);
}

TEST(ByteSizeTest, ReadsBlanksAndFractions) {
  EXPECT_EQ(Bytes(" 24 GiB "), 25769803776);
  EXPECT_EQ(Bytes("1.5GiB"), 1610612736);
  EXPECT_EQ(Bytes(".5MiB"), 524288);
  EXPECT_EQ(Bytes("0.1GB"), 100000000);
  EXPECT_EQ(Bytes("1.0000000000000000000000001B"), 1) << "a fraction of a byte is dropped";
}

TEST(ByteSizeTest, ReadsTheLargestSizeAndRefusesOneByteMore) {
  EXPECT_EQ(Bytes("9223372036854775807"), INT64_MAX);
  EXPECT_FALSE(ParseByteSize("9223372036854775808").ok());
  EXPECT_FALSE(ParseByteSize("8388608TiB").ok()) << "2^63 bytes";
  EXPECT_EQ(Bytes("8388607.99999999999999999999TiB"), INT64_MAX) << "rounded down";
  EXPECT_FALSE(ParseByteSize("99999999999999999999999999GiB").ok());
}

TEST(ByteSizeTest, RefusesJunkAndSaysWhy) {
  for (const char* junk : {"", " ", "-1", "+1", "GiB", ".", ".GiB", "1 2", "1e9", "0x10", "1Gib",
                           "1gb", "1G", "24 GiBs", "nan", "inf", "90%", "1,5GiB", "1..5GiB"}) {
    EXPECT_FALSE(ParseByteSize(junk).ok()) << junk;
  }
  EXPECT_THAT(ParseByteSize("24gb").status().message(), testing::HasSubstr("unknown unit 'gb'"));
}

TEST(ByteSizeTest, ReadsAShareOfTheDevice) {
  EXPECT_EQ(ParseBudgetSize("90%")->ratio, 0.9);
  EXPECT_EQ(ParseBudgetSize(" 62.5 % ")->ratio, 0.625);
  EXPECT_EQ(ParseBudgetSize("100%")->ratio, 1.0);
  EXPECT_FALSE(ParseBudgetSize("90%")->bytes.has_value());
  EXPECT_EQ(ParseBudgetSize("1kB")->bytes, 1000);
  EXPECT_FALSE(ParseBudgetSize("1kB")->ratio.has_value());
}

TEST(ByteSizeTest, RefusesSharesThatAreNone) {
  for (const char* junk : {"0%", "-5%", "101%", "%", "1e1%", "nan%", "inf%", "50%%", "5 5%", ""}) {
    EXPECT_FALSE(ParseBudgetSize(junk).ok()) << junk;
  }
}

TEST(ByteSizeTest, FormatsForPeople) {
  EXPECT_EQ(FormatMemory(512), "512 B");
  EXPECT_EQ(FormatMemory(1536), "1.50 KiB");
  EXPECT_EQ(FormatMemory(25769803776), "24.00 GiB");
  EXPECT_EQ(FormatData(67520000000), "67.52 GB");
  EXPECT_EQ(FormatExact(0), "0");
  EXPECT_EQ(FormatExact(999), "999");
  EXPECT_EQ(FormatExact(21088567296), "21,088,567,296");
  EXPECT_EQ(FormatExact(-1234), "-1,234");
}

}  // namespace
}  // namespace nibble
