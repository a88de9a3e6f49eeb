#include "server/command_line/text_table.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/check.h"

namespace nibble {
namespace {

// Between two columns.
constexpr absl::string_view kGap = "  ";

// Characters rather than bytes, so that a name in UTF-8 does not shift its row.
size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  }));
}

}  // namespace

void TextTable::AddRow(std::vector<std::string> cells) {
  Check(cells.size() <= columns_.size(), "a row has a cell for each column at most");
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string TextTable::Render(absl::string_view indent) const {
  std::vector<size_t> widths(columns_.size(), 0);
  for (const std::vector<std::string>& row : rows_) {
    for (size_t index = 0; index < row.size(); ++index) {
      widths[index] = std::max(widths[index], DisplayWidth(row[index]));
    }
  }
  std::string text;
  for (const std::vector<std::string>& row : rows_) {
    std::string line(indent);
    for (size_t index = 0; index < row.size(); ++index) {
      const std::string blanks(widths[index] - DisplayWidth(row[index]), ' ');
      const bool right = columns_[index] == Align::kRight;
      absl::StrAppend(&line, index == 0 ? "" : kGap, right ? blanks : "", row[index],
                      right ? "" : blanks);
    }
    absl::StrAppend(&text, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return text;
}

std::string WrapText(absl::string_view text, size_t columns, size_t indent) {
  const std::string margin(indent, ' ');
  std::string wrapped;
  for (absl::string_view paragraph : absl::StrSplit(text, '\n')) {
    if (!wrapped.empty()) {
      absl::StrAppend(&wrapped, "\n", paragraph.empty() ? "" : margin);
    }
    size_t column = 0;
    for (absl::string_view word : absl::StrSplit(paragraph, ' ')) {
      if (column > 0 && column + 1 + word.size() > columns) {
        absl::StrAppend(&wrapped, "\n", margin);
        column = 0;
      }
      absl::StrAppend(&wrapped, column > 0 ? " " : "", word);
      column += word.size() + (column > 0 ? 1 : 0);
    }
  }
  return wrapped;
}

}  // namespace nibble
