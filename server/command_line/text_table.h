// Columns of text, as `ps`, `memory` and `plan` print them.

#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

// Rows of cells, aligned when rendered. Columns of figures are set flush right.
class TextTable {
 public:
  enum class Align { kLeft, kRight };

  // One alignment for each column.
  explicit TextTable(std::vector<Align> columns) : columns_(std::move(columns)) {}

  // Missing cells are empty. Requires: no more cells than columns.
  void AddRow(std::vector<std::string> cells);

  // Lines that end with a newline, without trailing blanks, each after `indent`.
  std::string Render(absl::string_view indent = "") const;

 private:
  std::vector<Align> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Breaks `text` at blanks into lines of at most `columns` characters; a longer word has a line to
// itself. Each line after the first begins with `indent` blanks. Newlines in the text stay.
std::string WrapText(absl::string_view text, size_t columns, size_t indent);

}  // namespace nibble
