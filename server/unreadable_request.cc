#include "server/unreadable_request.h"

#include <google/protobuf/descriptor.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/grpc_status.h"

namespace nibble {
namespace {

using grpc::experimental::InterceptionHookPoints;

// "/nibble.v1.ModelService/GetModel" is a method of a service that we know. Any other gets gRPC's
// UNIMPLEMENTED, which says what it is.
bool IsKnown(absl::string_view method) {
  const std::string name = absl::StrReplaceAll(absl::StripPrefix(method, "/"), {{"/", "."}});
  return google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name) != nullptr;
}

class UnreadableRequest final : public grpc::experimental::Interceptor {
 public:
  explicit UnreadableRequest(const char* method) : method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
          status.error_message().empty() && IsKnown(method_)) {
        methods->ModifySendStatus(ToGrpcStatus(absl::InvalidArgumentError(
            absl::StrCat("the request: expected a message of ", method_, " whose text is UTF-8"))));
      }
    }
    methods->Proceed();
  }

 private:
  const char* const method_;  // gRPC's own, for as long as the server lives.
};

}  // namespace

grpc::experimental::Interceptor* UnreadableRequests::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new UnreadableRequest(info->method());  // Deleted by gRPC with the call.
}

}  // namespace nibble
