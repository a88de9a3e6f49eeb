// Out and in again: what bitsandbytes wrote leaves nibble as it came, and what nibble writes it
// reads back without a difference.

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "loader/export_names.h"
#include "tests/support/exporting.h"

namespace nibble {
namespace {

const std::filesystem::path kData = NIBBLE_TEST_DATA;

std::vector<std::string> Directories(const std::string& folder) {
  return FileNames(kData / folder);
}

void ExpectEqualTensors(const CheckpointTensors& found, const CheckpointTensors& expected) {
  for (const auto& [name, tensor] : expected.all()) {
    ASSERT_EQ(found.all().count(name), 1U) << name;
    EXPECT_EQ(found.at(name).dtype, tensor.dtype) << name;
    EXPECT_EQ(found.at(name).shape, tensor.shape) << name;
    EXPECT_TRUE(std::ranges::equal(found.at(name).bytes, tensor.bytes)) << name;
  }
  EXPECT_EQ(found.all().size(), expected.all().size());
}

class GoldenExportTest : public testing::TestWithParam<std::string> {
 protected:
  ScratchDirectory root_;
};

// mixtral_nf4 is in 4 bits only in part; the rest must stay as it is to be equal.
TEST_P(GoldenExportTest, WritesTheTensorsThatBitsandbytesWrote) {
  const std::filesystem::path source = kData / "bnb_checkpoints" / GetParam();
  QuantizationSpec spec;
  spec.keep_unquantized_rest = true;
  LoadedModel model(source, spec);
  model.Export(root_.path() / "out");
  const GoldenTensors written((root_.path() / "out" / "model.safetensors").string());
  const GoldenTensors golden((source / "model.safetensors").string());
  ASSERT_EQ(written.all().size(), golden.all().size());
  for (const auto& [name, tensor] : golden.all()) {
    ASSERT_TRUE(written.Has(name)) << name;
    EXPECT_EQ(written.at(name).dtype, tensor.dtype) << name;
    EXPECT_EQ(written.at(name).shape, tensor.shape) << name;
    // Of quant_state this is every field of the JSON, and how Python writes it.
    EXPECT_TRUE(std::ranges::equal(written.at(name).bytes, tensor.bytes)) << name;
  }
  nlohmann::json config = ReadJson(root_.path() / "out" / "config.json");
  nlohmann::json expected = ReadJson(source / "config.json");
  EXPECT_THAT(config["quantization_config"]["llm_int8_skip_modules"], testing::Contains("lm_head"));
  // transformers writes null and means its own list.
  config["quantization_config"].erase("llm_int8_skip_modules");
  expected["quantization_config"].erase("llm_int8_skip_modules");
  EXPECT_EQ(config, expected);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenExportTest, testing::ValuesIn(Directories("bnb_checkpoints")),
                         [](const auto& info) { return info.param; });

// Planes of every unit of a model, by the name under which it is exported.
std::map<std::string, std::vector<std::vector<std::byte>>> PlanesOf(LoadedModel& model) {
  std::map<std::string, std::vector<std::vector<std::byte>>> planes;
  for (const PlannedTensor& tensor : model.plan().tensors) {
    if (!tensor.loaded) {
      continue;
    }
    for (const ExportUnit& unit : UnitsOf(tensor)) {
      auto& of_unit = planes[ExportedName(model.origin().config, unit)];
      for (int64_t part = 0; part < unit.part_count; ++part) {
        for (const Plane plane : kPlanes) {
          of_unit.push_back(LoadedPlane(model.device(), model.weights(), tensor,
                                        tensor.parts[static_cast<size_t>(unit.first_part + part)],
                                        plane));
        }
      }
    }
  }
  return planes;
}

struct RoundTrip {
  std::string model;
  Format format = Format::kNf4;
  int64_t block_size = 64;
  bool double_quantization = false;
  bool scale_search = false;  // Whose scales may be negative.
};

std::vector<RoundTrip> RoundTrips() {
  std::vector<RoundTrip> all;
  for (const std::string& model : Directories("models")) {
    all.push_back({model});
    all.push_back({.model = model, .double_quantization = true});
  }
  all.push_back({.model = "llama", .scale_search = true});
  all.push_back({"llama", Format::kFp4, 32, false});
  all.push_back({"llama_rows_not_multiple_of_64", Format::kNf4, 4096, true});
  return all;
}

class RoundTripTest : public testing::TestWithParam<RoundTrip> {
 protected:
  ScratchDirectory root_;
};

TEST_P(RoundTripTest, LoadsWhatItWroteIntoEqualPlanesAndWritesItAgain) {
  QuantizationSpec spec;
  spec.format = GetParam().format;
  spec.block_size = GetParam().block_size;
  spec.double_quantization = GetParam().double_quantization;
  spec.scale_search = GetParam().scale_search;
  LoadedModel first(kData / "models" / GetParam().model, spec);
  first.Export(root_.path() / "first");
  // Another format is asked for: what is in 4 bits stays what it is.
  QuantizationSpec other;
  other.format = spec.format == Format::kFp4 ? Format::kNf4 : Format::kFp4;
  LoadedModel second(root_.path() / "first", other);
  EXPECT_TRUE(PlanesOf(second) == PlanesOf(first));
  second.Export(root_.path() / "second");
  ExpectEqualTensors(CheckpointTensors(root_.path() / "second"),
                     CheckpointTensors(root_.path() / "first"));
  EXPECT_EQ(ReadFile(root_.path() / "second" / "config.json"),
            ReadFile(root_.path() / "first" / "config.json"));
}

INSTANTIATE_TEST_SUITE_P(All, RoundTripTest, testing::ValuesIn(RoundTrips()), [](const auto& info) {
  const RoundTrip& trip = info.param;
  return trip.model + "_" + FormatName(trip.format) + std::to_string(trip.block_size) +
         (trip.double_quantization ? "_dq" : "") + (trip.scale_search ? "_search" : "");
});

TEST(ShardedExportTest, IsReadByItsIndex) {
  ScratchDirectory root;
  LoadedModel first(kData / "models" / "qwen3_moe");
  ShardLimits limits;
  limits.data_bytes_max = 20'000;
  const absl::StatusOr<ExportPlan> plan =
      MakeExportPlan(first.plan(), first.origin().config, first.origin().config_json, limits);
  ASSERT_TRUE(plan.ok()) << plan.status();
  NewDirectory directory((root.path() / "out").string());
  NullExportObserver observer;
  ExportSummary summary;
  ASSERT_EQ(directory.Make(), absl::OkStatus());
  ASSERT_EQ(WriteCheckpoint(first.device(), first.weights(), first.origin().config, *plan,
                            directory, observer, summary),
            absl::OkStatus());
  ASSERT_EQ(directory.Keep(), absl::OkStatus());
  ASSERT_GT(summary.files.size(), 5U);
  LoadedModel second(root.path() / "out");
  EXPECT_TRUE(PlanesOf(second) == PlanesOf(first));
}

// Models have such weights where a rank or a count is 0; bitsandbytes has no 4 bits of nothing.
TEST(EmptyMatrixExportTest, IsReadBackAsItWas) {
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  ScratchDirectory root;
  TinyCheckpoint checkpoint;
  checkpoint.Add("model.layers.0.mlp.up_proj.weight", {64, 64}).Add(name, {0, 4});
  checkpoint.Write(root.path() / "source");
  LoadedModel(root.path() / "source").Export(root.path() / "out");
  const absl::StatusOr<Checkpoint> written = OpenForTest(root.path() / "out");
  ASSERT_TRUE(written.ok()) << written.status();
  const auto found = std::find_if(written->tensors.begin(), written->tensors.end(),
                                  [&name](const auto& tensor) { return tensor.name == name; });
  ASSERT_NE(found, written->tensors.end());
  EXPECT_EQ(found->dtype, Dtype::kBf16);
  EXPECT_EQ(found->shape, (std::vector<int64_t>{0, 4}));
  EXPECT_FALSE(found->quantization.has_value());
  EXPECT_EQ(written->tensors.size(), 2U);
}

}  // namespace
}  // namespace nibble
