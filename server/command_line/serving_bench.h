// A model that answers in this process, for benchmarks: asked at the engine, over gRPC and over
// HTTP, with the same requests.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace nibble {

// What is asked for, of each of so many at a time.
struct ServingWork {
  int64_t sequences = 32;  // At most.
  int64_t prompt_tokens = 16;
  int64_t answer_tokens = 32;  // At most kGenerationQueueMax: nobody reads while they are made.
};

// Belongs to one thread.
class ServingBench {
 public:
  // Loads `source` as NF4 within a budget of exactly its peak, with room for all sequences at once,
  // and opens both ports on loopback.
  //
  // Errors: those of loading; what the model's engine says.
  static absl::StatusOr<std::unique_ptr<ServingBench>> Load(const std::string& source,
                                                            const std::string& device,
                                                            const ServingWork& work);
  ~ServingBench();

  // Asks for `sequences` answers at once and waits for all tokens. Prompts are never repeated, so
  // none is in the cache. Returns: from the first request to the last token.
  //
  // Errors: those of the answers; INTERNAL if one has another number of tokens.
  absl::StatusOr<absl::Duration> TimeEngine(int64_t sequences);
  absl::StatusOr<absl::Duration> TimeGrpc(int64_t sequences);
  absl::StatusOr<absl::Duration> TimeHttp(int64_t sequences);

  std::string device_description() const;

 private:
  struct Parts;
  explicit ServingBench(std::unique_ptr<Parts> parts);

  const std::unique_ptr<Parts> parts_;
};

}  // namespace nibble
