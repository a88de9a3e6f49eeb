#include "server/command_line/text_table.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

TEST(TextTableTest, AlignsColumnsByCharacters) {
  TextTable table({TextTable::Align::kLeft, TextTable::Align::kRight, TextTable::Align::kLeft});
  table.AddRow({"NAME", "BYTES", "WHY"});
  table.AddRow({"modèle", "7"});
  table.AddRow({"m", "1234567", "kept"});
  EXPECT_EQ(table.Render("  "),
            "  NAME      BYTES  WHY\n"
            "  modèle        7\n"
            "  m       1234567  kept\n");
}

TEST(TextTableTest, WrapsAtBlanksOnly) {
  EXPECT_EQ(WrapText("one two three", 7, 2), "one two\n  three");
  EXPECT_EQ(WrapText("extraordinary it is", 5, 0), "extraordinary\nit is");
  EXPECT_EQ(WrapText("a\n\nb", 10, 2), "a\n\n  b");
  EXPECT_EQ(WrapText("", 10, 2), "");
}

}  // namespace
}  // namespace nibble
