#include "server/request_messages.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gtest/gtest.h"
#include "kernels/error_details.h"

namespace nibble {
namespace {

v1::LoadModelRequest Load() {
  v1::LoadModelRequest message;
  message.set_model("tiny");
  message.set_source("models/tiny");
  return message;
}

TEST(RequestMessagesTest, AnEmptyQuantizationIsTheDefault) {
  const absl::StatusOr<LoadRequest> request = ParseLoad(Load(), "host");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "tiny");
  EXPECT_EQ(request->source, "models/tiny");
  EXPECT_EQ(request->quantization, QuantizationSpec());
  EXPECT_EQ(request->quantization.block_size, 64);
  EXPECT_EQ(request->serving, ServingSpec());
  EXPECT_FALSE(request->detach);
}

TEST(RequestMessagesTest, TakesOverEveryField) {
  v1::LoadModelRequest message = Load();
  message.set_device("cuda:0");
  message.set_when_full(v1::REFUSE);
  message.set_pinned(true);
  message.set_detach(true);
  message.set_request_id("abc");
  v1::Quantization& quantization = *message.mutable_quantization();
  quantization.set_format(v1::FP4);
  quantization.set_block_size(128);
  quantization.add_keep("*.q_proj.*");
  quantization.add_quantize("lm_head.*");
  quantization.set_min_quantized_ratio(0.5);
  quantization.set_allow_non_finite(true);
  v1::Serving& serving = *message.mutable_serving();
  serving.set_max_context_tokens(4096);
  serving.set_max_sequences(8);
  serving.set_kv_cache_bytes(1 << 20);
  serving.set_kv_cache_dtype(v1::BF16);
  serving.set_prefill_chunk_tokens(256);
  serving.set_weights_only(true);
  serving.set_state_snapshots(3);
  const absl::StatusOr<LoadRequest> request = ParseLoad(message, "cuda:0");
  ASSERT_TRUE(request.ok()) << request.status();
  QuantizationSpec expected;
  expected.format = Format::kFp4;
  expected.block_size = 128;
  expected.keep = {"*.q_proj.*"};
  expected.quantize = {"lm_head.*"};
  expected.min_quantized_ratio = 0.5;
  expected.allow_non_finite = true;
  EXPECT_EQ(request->quantization, expected);
  EXPECT_EQ(request->serving, (ServingSpec{4096, 8, 1 << 20, KvCacheType::kBf16, 256, true, 3}));
  EXPECT_TRUE(request->pinned);
  EXPECT_TRUE(request->detach);
  EXPECT_EQ(request->request_id, "abc");
}

struct BadRequestCase {
  const char* field;
  absl::StatusCode code;
  std::function<void(v1::LoadModelRequest&)> spoil;
};

TEST(RequestMessagesTest, NamesEachFieldThatIsWrong) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kNotYet = absl::StatusCode::kUnimplemented;
  constexpr uint64_t kHuge = uint64_t{1} << 63;
  using Message = v1::LoadModelRequest;
  const BadRequestCase cases[] = {
      {"device", kInvalid, [](Message& m) { m.set_device("cuda:1"); }},
      {"when_full", kNotYet, [](Message& m) { m.set_when_full(v1::WAIT); }},
      {"when_full", kNotYet, [](Message& m) { m.set_when_full(v1::EVICT_IDLE); }},
      {"when_full", kInvalid, [](Message& m) { m.set_when_full(static_cast<v1::WhenFull>(99)); }},
      {"keep_alive", kNotYet, [](Message& m) { m.mutable_keep_alive(); }},
      {"quantization.format", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_format(static_cast<v1::WeightFormat>(9)); }},
      {"quantization.block_size", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_block_size(48); }},
      {"quantization.block_size", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_block_size(kHuge); }},
      {"quantization.min_quantized_ratio", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_min_quantized_ratio(-0.1); }},
      {"quantization.min_quantized_ratio", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_min_quantized_ratio(std::nan("")); }},
      {"quantization.keep", kInvalid, [](Message& m) { m.mutable_quantization()->add_keep(""); }},
      {"quantization.positive_scales", kInvalid,
       [](Message& m) { m.mutable_quantization()->set_positive_scales(true); }},
      {"serving.max_context_tokens", kInvalid,
       [](Message& m) { m.mutable_serving()->set_max_context_tokens(kHuge); }},
      {"serving.kv_cache_bytes", kInvalid,
       [](Message& m) { m.mutable_serving()->set_kv_cache_bytes(kHuge - 1); }},
      {"serving.kv_cache_dtype", kInvalid,
       [](Message& m) {
         m.mutable_serving()->set_kv_cache_dtype(static_cast<v1::KvCacheDtype>(9));
       }},
  };
  for (const BadRequestCase& bad : cases) {
    v1::LoadModelRequest message = Load();
    bad.spoil(message);
    const absl::Status status = ParseLoad(message, "cuda:0").status();
    EXPECT_EQ(status.code(), bad.code) << bad.field << ": " << status;
    EXPECT_EQ(DetailsOf(status).field, bad.field) << status;
  }
}

TEST(RequestMessagesTest, BoundsTheDrainTimeout) {
  v1::UnloadModelRequest message;
  EXPECT_EQ(*ParseDrainTimeout(message), absl::Seconds(30));
  message.mutable_drain_timeout()->set_seconds(2);
  message.mutable_drain_timeout()->set_nanos(500'000'000);
  EXPECT_EQ(*ParseDrainTimeout(message), absl::Milliseconds(2500));
  for (const int64_t seconds : {int64_t{-1}, int64_t{90'000}, INT64_MAX, INT64_MIN}) {
    message.mutable_drain_timeout()->set_seconds(seconds);
    EXPECT_EQ(DetailsOf(ParseDrainTimeout(message).status()).field, "drain_timeout") << seconds;
  }
}

TEST(RequestMessagesTest, BoundsTheRateOfAWatch) {
  v1::WatchMemoryRequest message;
  EXPECT_EQ(*ParseWatchInterval(message), absl::Milliseconds(100));
  message.set_max_rate(100);
  EXPECT_EQ(*ParseWatchInterval(message), absl::Milliseconds(10));
  for (const double rate : {-1.0, 100.5, 1e-300, std::nan(""), HUGE_VAL}) {
    message.set_max_rate(rate);
    EXPECT_EQ(DetailsOf(ParseWatchInterval(message).status()).field, "max_rate") << rate;
  }
}

TEST(RequestMessagesTest, TakesNoBudgetThatTheDeviceCannotHold) {
  v1::SetBudgetRequest message;
  message.set_budget_bytes(1000);
  EXPECT_EQ(*ParseBudget(message, "host", 1000), 1000);
  for (const uint64_t bytes : {uint64_t{0}, uint64_t{1001}, ~uint64_t{0}}) {
    message.set_budget_bytes(bytes);
    EXPECT_EQ(DetailsOf(ParseBudget(message, "host", 1000).status()).field, "budget_bytes");
  }
  message.set_device("cuda:0");
  EXPECT_EQ(DetailsOf(ParseBudget(message, "host", 1000).status()).field, "device");
}

}  // namespace
}  // namespace nibble
