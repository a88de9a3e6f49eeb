#include "server/command_line/plan_table.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/command_line/byte_size.h"
#include "server/command_line/text_table.h"

namespace nibble {
namespace {

using Align = TextTable::Align;

int64_t Signed(uint64_t bytes) { return static_cast<int64_t>(bytes); }

std::string ExactBytes(uint64_t bytes) {
  return absl::StrCat(FormatExact(Signed(bytes)), " bytes");
}

// "NF4", "FP4/128 DQ" (block size, double quantization); the source's own type if kept; "-" if not
// loaded.
std::string StoredAs(const v1::PlannedTensor& tensor) {
  switch (tensor.format()) {
    case v1::WEIGHT_FORMAT_UNSPECIFIED:
      return "-";
    case v1::AS_STORED:
      return tensor.source_dtype();
    default:
      return absl::StrCat(v1::WeightFormat_Name(tensor.format()),
                          tensor.block_size() == 64 ? "" : absl::StrCat("/", tensor.block_size()),
                          tensor.double_quantized() ? " DQ" : "");
  }
}

// Why a tensor is what it is.
std::string Why(const v1::PlannedTensor& tensor) {
  if (!tensor.reason().empty()) {
    return tensor.reason();
  }
  return tensor.stored_quantized() ? "as in the checkpoint" : "quantized";
}

std::string ErrorText(const v1::PlannedTensor& tensor) {
  return tensor.has_error() ? absl::StrFormat("%.3g", tensor.error().relative_mean_squared_error())
                            : "";
}

std::string LargestErrorText(const v1::PlannedTensor& tensor) {
  return tensor.has_error() ? absl::StrFormat("%.3g", tensor.error().largest_error()) : "";
}

// Sorts what is quantized before what is kept before what is not loaded.
int Rank(const v1::PlannedTensor& tensor) {
  switch (tensor.format()) {
    case v1::WEIGHT_FORMAT_UNSPECIFIED:
      return 2;
    case v1::AS_STORED:
      return 1;
    default:
      return 0;
  }
}

std::string RenderTotals(const v1::Plan& plan) {
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kLeft});
  const auto add = [&](const char* what, uint64_t bytes, const char* why) {
    table.AddRow({what, FormatMemory(Signed(bytes)), ExactBytes(bytes), why});
  };
  table.AddRow({"source", FormatData(Signed(plan.source_bytes())), ExactBytes(plan.source_bytes()),
                "is read"});
  add("weights", plan.weights_bytes(), "");
  add("KV cache", plan.kv_cache_bytes(), "");
  add("workspace", plan.workspace_bytes(), "");
  add("resident", plan.resident_bytes(), "stays on the device");
  add("staging", plan.staging_bytes(), "is given back when loaded");
  add("peak", plan.peak_bytes(), "the most at any moment");
  return absl::StrCat(table.Render("  "), absl::StrFormat("  %.2f %% of the weights in 4 bits\n",
                                                          100 * plan.quantized_ratio()));
}

std::string RenderFit(const v1::Plan& plan) {
  if (plan.budget_bytes() == 0 && plan.fits()) {
    return "";
  }
  std::string text =
      absl::StrCat("budget ", FormatMemory(Signed(plan.budget_bytes())), ", available ",
                   FormatMemory(Signed(plan.available_bytes())), ": ");
  if (plan.fits()) {
    const uint64_t left = plan.available_bytes() - plan.peak_bytes();
    return absl::StrCat("\n", text, "fits, ", FormatMemory(Signed(left)), " to spare\n");
  }
  absl::StrAppend(&text, "does NOT fit, ", FormatMemory(Signed(plan.shortfall_bytes())), " (",
                  ExactBytes(plan.shortfall_bytes()), ") short\n");
  for (const std::string& remedy : plan.remedies()) {
    absl::StrAppend(&text, "  * ", remedy, "\n");
  }
  return absl::StrCat("\n", text);
}

}  // namespace

std::string RenderPlan(const v1::Plan& plan) {
  std::string text = RenderTotals(plan);
  if (!plan.tensors().empty()) {
    absl::StrAppend(&text, "\n", RenderGroups(plan.tensors()));
  }
  absl::StrAppend(&text, RenderFit(plan));
  for (const std::string& warning : plan.warnings()) {
    absl::StrAppend(&text, "warning: ", warning, "\n");
  }
  return text;
}

std::string RenderGroups(const PlannedTensors& tensors) {
  struct Group {
    int64_t count = 0;
    uint64_t source_bytes = 0;
    uint64_t device_bytes = 0;
  };
  std::map<std::tuple<int, std::string, std::string>, Group> groups;
  for (const v1::PlannedTensor& tensor : tensors) {
    Group& group = groups[{Rank(tensor), StoredAs(tensor), Why(tensor)}];
    ++group.count;
    group.source_bytes += tensor.source_bytes();
    group.device_bytes += tensor.device_bytes();
  }
  TextTable table({Align::kLeft, Align::kRight, Align::kRight, Align::kRight, Align::kLeft});
  table.AddRow({"STORED AS", "TENSORS", "SOURCE", "DEVICE", "WHY"});
  for (const auto& [key, group] : groups) {
    const auto& [rank, stored_as, reason] = key;
    table.AddRow({stored_as, FormatExact(group.count), FormatData(Signed(group.source_bytes)),
                  FormatMemory(Signed(group.device_bytes)), reason});
  }
  return table.Render("  ");
}

std::string RenderTensors(const PlannedTensors& tensors) {
  const bool any_error =
      std::any_of(tensors.begin(), tensors.end(),
                  [](const v1::PlannedTensor& tensor) { return tensor.has_error(); });
  std::vector<Align> columns = {Align::kLeft,  Align::kLeft, Align::kLeft,  Align::kLeft,
                                Align::kRight, Align::kLeft, Align::kRight, Align::kLeft};
  std::vector<std::string> head = {"TENSOR", "ROLE",      "SHAPE",  "SOURCE",
                                   "",       "STORED AS", "DEVICE", "WHY"};
  if (any_error) {
    columns.insert(columns.end() - 1, {Align::kRight, Align::kRight});
    head.insert(head.end() - 1, {"REL. MSE", "LARGEST ERROR"});
  }
  TextTable table(columns);
  table.AddRow(head);
  for (const v1::PlannedTensor& tensor : tensors) {
    std::vector<std::string> row = {tensor.name(),
                                    tensor.role(),
                                    absl::StrCat("[", absl::StrJoin(tensor.shape(), ", "), "]"),
                                    tensor.source_dtype(),
                                    FormatData(Signed(tensor.source_bytes())),
                                    StoredAs(tensor),
                                    FormatMemory(Signed(tensor.device_bytes())),
                                    Why(tensor)};
    if (any_error) {
      row.insert(row.end() - 1, {ErrorText(tensor), LargestErrorText(tensor)});
    }
    table.AddRow(row);
  }
  return table.Render();
}

}  // namespace nibble
