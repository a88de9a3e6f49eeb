#include "server/model_service.h"

#include "gmock/gmock.h"
#include "tests/server/front_fixture.h"

namespace nibble {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ModelServiceTest : public FrontFixture {
 protected:
  ModelServiceTest() { Start(); }

  void AwaitState(const std::string& model, v1::ModelState state) {
    grpc::ClientContext context;
    const auto watch = models_->WatchModels(&context, {});
    v1::WatchModelsResponse response;
    while (watch->Read(&response)) {
      for (const v1::Model& entry : response.models()) {
        if (entry.model() == model && entry.state() == state) {
          context.TryCancel();
          return;
        }
      }
    }
    FAIL() << "the watch ended";
  }

  // Until nothing is loaded or loading.
  void AwaitNoModels() {
    grpc::ClientContext context;
    const auto watch = models_->WatchModels(&context, {});
    v1::WatchModelsResponse response;
    while (watch->Read(&response)) {
      if (response.models().empty()) {
        context.TryCancel();
        return;
      }
    }
    FAIL() << "the watch ended";
  }
};

TEST_F(ModelServiceTest, LoadBringsPlanThenProgressThenTheModel) {
  std::vector<v1::LoadModelResponse> responses;
  const grpc::Status status = Load(LoadRequestFor("tiny"), &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_GE(responses.size(), 3u);
  ASSERT_TRUE(responses.front().has_plan());
  const v1::Plan& plan = responses.front().plan();
  EXPECT_TRUE(plan.fits());
  EXPECT_EQ(plan.budget_bytes(), static_cast<uint64_t>(kDeviceBytes));
  EXPECT_EQ(plan.peak_bytes(), plan.resident_bytes() + plan.staging_bytes());
  EXPECT_EQ(plan.tensors_size(), 0) << "streams leave the tensors out";
  for (size_t index = 1; index + 1 < responses.size(); ++index) {
    EXPECT_TRUE(responses[index].has_progress()) << index;
  }
  EXPECT_EQ(responses[responses.size() - 2].progress().read_bytes(), plan.source_bytes());
  ASSERT_TRUE(responses.back().has_model());
  const v1::Model& model = responses.back().model();
  EXPECT_EQ(model.model(), "tiny");
  EXPECT_EQ(model.state(), v1::READY);
  EXPECT_EQ(model.device(), "host");
  EXPECT_EQ(model.peak_bytes(), plan.peak_bytes());
  EXPECT_EQ(model.quantization().format(), v1::NF4);
  EXPECT_EQ(model.quantization().block_size(), 64u);
}

TEST_F(ModelServiceTest, ReportsEveryTensor) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model("tiny");
  v1::GetModelResponse response;
  ASSERT_TRUE(models_->GetModel(&context, request, &response).ok());
  // Embedding, head and last norm; for each of two layers two norms, four attention and three
  // feed-forward weights.
  EXPECT_EQ(response.report().tensors_size(), 3 + 2 * 9);
  int quantized = 0;
  for (const v1::PlannedTensor& tensor : response.report().tensors()) {
    quantized += tensor.format() == v1::NF4 ? 1 : 0;
    EXPECT_NE(tensor.reason().empty(), tensor.format() != v1::NF4) << tensor.name();
  }
  EXPECT_EQ(quantized, 2 * 7);
  EXPECT_EQ(response.model().plan().tensors_size(), 0);
}

TEST_F(ModelServiceTest, UnloadAnswersWithTheBytesThatAreBack) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  const uint64_t held_bytes = GetMemory().devices(0).reserved_bytes();
  ASSERT_GT(held_bytes, 0u);
  v1::UnloadModelResponse response;
  ASSERT_TRUE(Unload("tiny", &response).ok());
  EXPECT_EQ(response.freed_bytes(), held_bytes);
  EXPECT_EQ(GetMemory().devices(0).reserved_bytes(), 0u);
  EXPECT_EQ(GetMemory().devices(0).allocated_bytes(), 0u);
  const grpc::Status again = Unload("tiny", &response);
  EXPECT_EQ(again.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ModelServiceTest, PlanListsTensorsAndLoadsNothing) {
  grpc::ClientContext context;
  v1::PlanModelRequest request;
  request.set_source("tiny");
  v1::PlanModelResponse response;
  const grpc::Status status = models_->PlanModel(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.plan().tensors_size(), 3 + 2 * 9);
  EXPECT_EQ(response.plan().available_bytes(), static_cast<uint64_t>(kDeviceBytes));
  EXPECT_EQ(ListModels().models_size(), 0);
}

TEST_F(ModelServiceTest, CancellingTheOnlyCallerCancelsTheLoad) {
  const std::unique_ptr<LoadCall> call = StartAndBlock(LoadRequestFor("tiny"));
  EXPECT_EQ(ListModels().models(0).state(), v1::LOADING);
  call->context.TryCancel();
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
  AwaitState("tiny", v1::DRAINING);  // The daemon has heard of it.
  device_.gate().Open();
  AwaitNoModels();
  EXPECT_EQ(GetMemory().devices(0).reserved_bytes(), 0u);
}

TEST_F(ModelServiceTest, ADetachedLoadGoesOnWithoutItsCaller) {
  v1::LoadModelRequest request = LoadRequestFor("tiny");
  request.set_detach(true);
  const std::unique_ptr<LoadCall> call = StartAndBlock(request);
  call->context.TryCancel();
  EXPECT_EQ(call->Finish().error_code(), grpc::StatusCode::CANCELLED);
  device_.gate().Open();
  AwaitState("tiny", v1::READY);
}

TEST_F(ModelServiceTest, TwoCallersOfOneLoadBothSeeItToItsEnd) {
  const std::unique_ptr<LoadCall> first = StartAndBlock(LoadRequestFor("tiny"));
  const std::unique_ptr<LoadCall> second = StartLoad(LoadRequestFor("tiny"));
  v1::LoadModelResponse response;
  ASSERT_TRUE(second->reader->Read(&response));
  EXPECT_TRUE(response.has_plan());
  EXPECT_EQ(ListModels().models_size(), 1);
  device_.gate().Open();
  for (LoadCall* const call : {first.get(), second.get()}) {
    std::vector<v1::LoadModelResponse> responses;
    ASSERT_TRUE(call->Finish(&responses).ok());
    EXPECT_EQ(responses.back().model().state(), v1::READY);
  }
}

TEST_F(ModelServiceTest, RefusesAnotherSpecUnderATakenName) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  const grpc::Status status = Load(LoadRequestFor("tiny", "other"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(ModelServiceTest, ARefusalCarriesBothFiguresAndARemedy) {
  ASSERT_TRUE(budget_.SetLimit(1_MiB).ok());
  const grpc::Status status = Load(LoadRequestFor("tiny"));
  ASSERT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto info = FindDetail<google::rpc::ErrorInfo>(status);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->reason(), "BUDGET_EXCEEDED");
  EXPECT_EQ(info->metadata().at("available_bytes"), "1048576");
  EXPECT_GT(std::stoll(info->metadata().at("needed_bytes")), 1048576);
  EXPECT_TRUE(info->metadata().contains("remedy_1"));
  const auto failure = FindDetail<google::rpc::QuotaFailure>(status);
  ASSERT_TRUE(failure.has_value());
  EXPECT_THAT(failure->violations(0).description(), HasSubstr(info->metadata().at("needed_bytes")));
  EXPECT_THAT(failure->violations(0).description(), HasSubstr("1048576"));
  EXPECT_THAT(GetMetrics(), HasSubstr("nibble_checkpoint_read_bytes_total 0\n"));
}

TEST_F(ModelServiceTest, NamesTheFieldOfABadRequest) {
  v1::LoadModelRequest request = LoadRequestFor("tiny");
  request.mutable_quantization()->set_block_size(48);
  EXPECT_EQ(BadFieldOf(Load(request)), "quantization.block_size");
  EXPECT_EQ(BadFieldOf(Load(LoadRequestFor("bad\nname"))), "model");
  EXPECT_EQ(BadFieldOf(Load(LoadRequestFor(std::string(1000, 'x')))), "model");
  EXPECT_EQ(BadFieldOf(Load(LoadRequestFor("tiny", std::string(5000, 'x')))), "source");
  request = LoadRequestFor("tiny");
  request.set_request_id("two\nlines");
  EXPECT_EQ(BadFieldOf(Load(request)), "request_id");
  EXPECT_EQ(log_.str().find("bad\nname"), std::string::npos);
}

TEST_F(ModelServiceTest, SaysWhatIsNotThereYet) {
  v1::LoadModelRequest request = LoadRequestFor("tiny");
  request.set_when_full(v1::WAIT);
  EXPECT_EQ(Load(request).error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ModelServiceTest, ExportsAModelAndEndsWithASummary) {
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  std::vector<v1::ExportModelResponse> responses;
  const std::string directory = (root_.path() / "out").string();
  const grpc::Status status = Export("tiny", directory, &responses);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_FALSE(responses.empty());
  for (const v1::ExportModelResponse& response : responses) {
    EXPECT_LE(response.written_bytes(), response.total_bytes());
    EXPECT_EQ(response.has_summary(), &response == &responses.back());
  }
  const v1::ExportModelResponse& last = responses.back();
  EXPECT_EQ(last.written_bytes(), last.total_bytes());
  EXPECT_EQ(last.summary().directory(), directory);
  EXPECT_THAT(last.summary().files(), ElementsAre("config.json", "model.safetensors"));
  EXPECT_EQ(last.summary().bytes(),
            ReadFile(root_.path() / "out" / "config.json").size() +
                ReadFile(root_.path() / "out" / "model.safetensors").size());
}

TEST_F(ModelServiceTest, SaysWhyItDoesNotExport) {
  EXPECT_EQ(Export("tiny", (root_.path() / "out").string()).error_code(),
            grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  EXPECT_EQ(BadFieldOf(Export("tiny", "/elsewhere")), "directory");
  EXPECT_EQ(BadFieldOf(Export("tiny", "out\nside")), "directory");
  EXPECT_EQ(Export("tiny", (root_.path() / "other").string()).error_code(),
            grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(ModelServiceTest, AWatchFollowsChanges) {
  grpc::ClientContext context;
  const auto watch = models_->WatchModels(&context, {});
  v1::WatchModelsResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.models_size(), 0);
  const uint64_t sequence = response.sequence();
  ASSERT_TRUE(Load(LoadRequestFor("tiny")).ok());
  do {
    ASSERT_TRUE(watch->Read(&response));
    EXPECT_GT(response.sequence(), sequence);
  } while (response.models_size() == 0 || response.models(0).state() != v1::READY);
}

TEST_F(ModelServiceTest, ShutdownTellsLoadsAndWatches) {
  const std::unique_ptr<LoadCall> load = StartAndBlock(LoadRequestFor("tiny"));
  grpc::ClientContext context;
  const auto watch = models_->WatchModels(&context, {});
  v1::WatchModelsResponse response;
  ASSERT_TRUE(watch->Read(&response));
  Stop();
  EXPECT_EQ(load->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  while (watch->Read(&response)) {
  }
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ModelServiceTest, LogsALoadWithItsFiguresAndAFailureWithItsReason) {
  v1::LoadModelRequest request = LoadRequestFor("tiny");
  request.set_request_id("r-1");
  ASSERT_TRUE(Load(request).ok());
  ASSERT_FALSE(Load(LoadRequestFor("none", "nowhere")).ok());
  Stop();  // Nobody writes any more.
  EXPECT_THAT(log_.str(),
              HasSubstr("event=\"load started\" model=tiny source=tiny request_id=r-1"));
  EXPECT_THAT(log_.str(), HasSubstr("event=\"load finished\" model=tiny request_id=r-1 seconds="));
  EXPECT_THAT(log_.str(), HasSubstr("event=\"request failed\" call=LoadModel model=none"));
}

TEST_F(ModelServiceTest, ListsOfOneSequenceAreEqualButForProgress) {
  const std::unique_ptr<LoadCall> call = StartAndBlock(LoadRequestFor("tiny"));
  v1::ListModelsResponse first = ListModels();
  device_.gate().Admit(1);
  device_.gate().AwaitWaiting(1);  // With the next tile; the one before is counted.
  v1::ListModelsResponse second = ListModels();
  EXPECT_EQ(first.sequence(), second.sequence());
  ASSERT_EQ(first.models_size(), 1);
  ASSERT_EQ(second.models_size(), 1);
  EXPECT_LT(first.models(0).progress().read_bytes(), second.models(0).progress().read_bytes());
  first.mutable_models(0)->clear_progress();
  second.mutable_models(0)->clear_progress();
  EXPECT_EQ(first.SerializeAsString(), second.SerializeAsString());
  device_.gate().Open();
  EXPECT_TRUE(call->Finish().ok());
}

}  // namespace
}  // namespace nibble
