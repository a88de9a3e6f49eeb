#include "loader/checkpoint_writer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/exporting.h"
#include "tests/support/faulty_device.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Shape = std::vector<int64_t>;

constexpr char kQuery[] = "model.layers.1.self_attn.q_proj.weight";

std::vector<std::byte> Bytes(const GoldenTensors::Tensor& tensor) {
  return {tensor.bytes.begin(), tensor.bytes.end()};
}

class CheckpointWriterTest : public testing::Test {
 protected:
  std::filesystem::path source() const { return root_.path() / "source"; }
  std::filesystem::path target() const { return root_.path() / "target"; }

  // Writes the checkpoint with shards as small as `limits` says.
  absl::Status Write(LoadedModel& model, Device& device, const ShardLimits& limits,
                     ExportObserver& observer) {
    const absl::StatusOr<ExportPlan> plan =
        MakeExportPlan(model.plan(), model.origin().config, model.origin().config_json, limits);
    EXPECT_TRUE(plan.ok()) << plan.status();
    NewDirectory directory(target().string());
    ExportSummary summary;
    absl::Status status = directory.Make();
    status.Update(WriteCheckpoint(device, model.weights(), model.origin().config, *plan, directory,
                                  observer, summary));
    return status.ok() ? directory.Keep() : status;
  }

  ScratchDirectory root_;
};

TEST_F(CheckpointWriterTest, WritesWhatBitsandbytesWouldForEachTensor) {
  const TinyCheckpoint llama = TinyLlama();
  llama.Write(source());
  LoadedModel model(source());
  model.Export(target());
  const CheckpointTensors written(target());
  const CheckpointTensors stored(source());
  size_t expected_count = 0;
  for (const PlannedTensor& tensor : model.plan().tensors) {
    SCOPED_TRACE(tensor.name);
    const GoldenTensors::Tensor& original = stored.at(tensor.name);
    PartBytes expected = ExpectedPart(tensor, original.bytes);
    const GoldenTensors::Tensor& data = written.at(tensor.name);
    EXPECT_TRUE(Bytes(data) == expected[Plane::kData]);
    expected_count += tensor.quantized() ? 4 : 1;
    if (!tensor.quantized()) {
      EXPECT_EQ(data.dtype, original.dtype);
      EXPECT_EQ(data.shape, original.shape);
      continue;
    }
    EXPECT_EQ(data.dtype, "U8");
    EXPECT_EQ(data.shape, (Shape{std::ssize(expected[Plane::kData]), 1}));
    EXPECT_TRUE(Bytes(written.at(tensor.name + ".absmax")) == expected[Plane::kScales]);
  }
  EXPECT_EQ(written.all().size(), expected_count);
  EXPECT_EQ(written.Text(absl::StrCat(kQuery, ".quant_state.bitsandbytes__nf4")),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 64]})");
}

TEST_F(CheckpointWriterTest, KeepsTypesAndBlockSizesOfTheLoad) {
  TinyLlamaShape shape;
  shape.dtype = Dtype::kF32;
  TinyLlama(shape).Write(source());
  QuantizationSpec spec;
  spec.format = Format::kFp4;
  spec.block_size = 128;
  LoadedModel model(source(), spec);
  model.Export(target());
  const CheckpointTensors written(target());
  EXPECT_EQ(written.Text(absl::StrCat(kQuery, ".quant_state.bitsandbytes__fp4")),
            R"({"quant_type": "fp4", "blocksize": 128, "dtype": "float32", "shape": [64, 64]})");
  EXPECT_EQ(written.at(absl::StrCat(kQuery, ".absmax")).shape, Shape{64 * 64 / 128});
  EXPECT_EQ(written.at("model.norm.weight").dtype, "F32");
}

TEST_F(CheckpointWriterTest, CutsShardsThatTheIndexNames) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  NullExportObserver observer;
  ShardLimits limits;
  limits.data_bytes_max = 20'000;
  ASSERT_EQ(Write(model, model.device(), limits, observer), absl::OkStatus());
  const CheckpointTensors written(target());
  const nlohmann::json index = ReadJson(target() / "model.safetensors.index.json");
  const auto map = index.at("weight_map").get<std::map<std::string, std::string>>();
  EXPECT_EQ(map, written.shards());
  EXPECT_GT(FileNames(target()).size(), 4U);
  int64_t total_bytes = 0;
  for (const auto& [name, tensor] : written.all()) {
    total_bytes += std::ssize(tensor.bytes);
    // Side tensors lie beside what they belong to.
    const size_t weight = name.find(".weight.");
    if (weight != std::string::npos) {
      EXPECT_EQ(map.at(name), map.at(name.substr(0, weight + 7)));
    }
  }
  EXPECT_EQ(index.at("metadata").at("total_size"), total_bytes);
  // nibble itself finds every shard.
  EXPECT_TRUE(std::filesystem::exists(target() / map.at("model.norm.weight")));
}

TEST_F(CheckpointWriterTest, BoundsHeadersWhateverTheNumberOfTensors) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  NullExportObserver observer;
  ShardLimits limits;
  limits.header_bytes_max = 4096;
  ASSERT_EQ(Write(model, model.device(), limits, observer), absl::OkStatus());
  for (const std::string& name : FileNames(target())) {
    if (name.ends_with(".safetensors")) {
      uint64_t header_bytes = 0;
      std::memcpy(&header_bytes, ReadFile(target() / name).data(), sizeof(header_bytes));
      EXPECT_LE(header_bytes, 4096U) << name;
    }
  }
}

// Puts the pieces together again.
class PieceObserver : public NullExportObserver {
 public:
  void OnPiece(const ExportedPiece& piece) override {
    std::string& tensor = tensors_[std::string(piece.tensor_name)];
    EXPECT_EQ(piece.tensor_offset, std::ssize(tensor)) << piece.tensor_name;
    EXPECT_EQ(piece.tensor_offset % kExportPieceBytes, 0);
    EXPECT_LE(std::ssize(piece.bytes), kExportPieceBytes);
    tensor.append(reinterpret_cast<const char*>(piece.bytes.data()), piece.bytes.size());
    places_.emplace_back(
        piece.file_name, piece.file_offset,
        std::string(reinterpret_cast<const char*>(piece.bytes.data()), piece.bytes.size()));
  }

  std::map<std::string, std::string> tensors_;
  std::vector<std::tuple<std::string, int64_t, std::string>> places_;
};

TEST_F(CheckpointWriterTest, ShowsEachPieceOfEachTensorWithItsPlace) {
  // Larger than the buffer, and no multiple of a piece.
  TinyCheckpoint checkpoint = TinyLlama();
  checkpoint.Add("model.layers.0.self_attn.extra", {4100, 1027}, Dtype::kBf16);
  checkpoint.Write(source());
  LoadedModel model(source());
  PieceObserver observer;
  ASSERT_TRUE(model.Export(target(), observer).ok());
  const CheckpointTensors written(target());
  ASSERT_EQ(observer.tensors_.size(), written.all().size());
  for (const auto& [name, bytes] : observer.tensors_) {
    EXPECT_TRUE(written.at(name).As<char>() == std::vector<char>(bytes.begin(), bytes.end()))
        << name;
  }
  const std::string file = ReadFile(target() / "model.safetensors");
  for (const auto& [name, offset, bytes] : observer.places_) {
    ASSERT_EQ(name, "model.safetensors");
    EXPECT_EQ(file.compare(static_cast<size_t>(offset), bytes.size(), bytes), 0);
  }
}

class CountingObserver : public NullExportObserver {
 public:
  explicit CountingObserver(int cancel_after) : cancel_after_(cancel_after) {}
  void OnProgress(int64_t written_bytes, int64_t plane_bytes) override {
    EXPECT_GE(written_bytes, written_bytes_);
    written_bytes_ = written_bytes;
    plane_bytes_ = plane_bytes;
    ++calls_;
  }
  bool cancelled() const override { return calls_ >= cancel_after_; }

  const int cancel_after_;
  int calls_ = 0;
  int64_t written_bytes_ = 0;
  int64_t plane_bytes_ = 0;
};

TEST_F(CheckpointWriterTest, TellsProgressUpToTheWeightsBytes) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  CountingObserver observer(INT32_MAX);
  ASSERT_TRUE(model.Export(target(), observer).ok());
  int64_t bytes = 0;
  for (const PlannedTensor& tensor : model.plan().tensors) {
    bytes += tensor.device_bytes;  // Plain scales: nothing beside the planes.
  }
  EXPECT_EQ(observer.written_bytes_, bytes);
  EXPECT_EQ(observer.plane_bytes_, bytes);
}

TEST_F(CheckpointWriterTest, LeavesNothingWhenCancelledAtAnyMoment) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  CountingObserver whole(INT32_MAX);
  ASSERT_TRUE(model.Export(target(), whole).ok());
  std::filesystem::remove_all(target());
  for (int moment = 0; moment <= whole.calls_; moment += 7) {
    CountingObserver observer(moment);
    EXPECT_TRUE(absl::IsCancelled(model.Export(target(), observer).status())) << moment;
    EXPECT_THAT(FileNames(root_.path()), ElementsAre("source"));
  }
}

TEST_F(CheckpointWriterTest, LeavesNothingWhenAnyCallOfTheDeviceFails) {
  TinyLlama().Write(source());
  LoadedModel model(source());
  FaultyDevice faulty(model.device());
  NullExportObserver observer;
  int64_t call = 1;
  for (;; ++call) {
    faulty.FailCall(call);
    const auto target_directory =
        ResolveExportDirectory({root_.path().string()}, target().string());
    ASSERT_TRUE(target_directory.ok());
    const absl::Status status =
        ExportCheckpoint(faulty, model.weights(), model.origin(), **target_directory, observer)
            .status();
    if (!faulty.has_failed()) {
      EXPECT_EQ(status, absl::OkStatus());
      break;
    }
    EXPECT_FALSE(status.ok()) << faulty.failed_call();
    EXPECT_EQ(faulty.live_objects(), 0);
    EXPECT_EQ(model.device().host_bytes(), 0);
  }
  EXPECT_GT(call, 20) << "each tensor is copied";
  EXPECT_TRUE(std::filesystem::exists(target() / "model.safetensors"));
}

}  // namespace
}  // namespace nibble
