// The launchers of the CUDA kernels on elements: what cuda_ops.cc calls and the .cu files
// implement. They check nothing but the launch; shapes have been checked by CheckArgs(). Contract:
// ops.h.

#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/block_format.h"
#include "kernels/error_sums.h"
#include "kernels/f8_format.h"

namespace nibble {

struct BlockQuantizeLaunch {
  Codebook codebook;
  FloatType source_type;
  int block_size;
  int64_t element_count;       // n
  const void* source;          // source_type [n], aligned to its type
  uint8_t* codes;              // [(n + 1) / 2]
  float* scales;               // [ceil(n / block_size)]
  uint64_t* first_non_finite;  // [1], or null: not wanted
};

struct BlockDequantizeLaunch {
  Codebook codebook;
  FloatType target_type;
  int block_size;
  int64_t element_count;  // n
  const uint8_t* codes;   // [(n + 1) / 2]
  const float* scales;    // [ceil(n / block_size)]
  void* target;           // target_type [n], aligned to its type
};

struct FindNonFiniteLaunch {
  FloatType source_type;
  int64_t element_count;       // n
  const void* source;          // source_type [n], aligned to its type
  uint64_t* first_non_finite;  // [1]
};

struct ExpandF8Launch {
  F8Range range;
  const uint8_t* source;  // [n]
  const void* scales;     // scale_type [scale_row_count, scale_columns], aligned to its type
  float* target;          // [n]
};

struct MeasureErrorLaunch {
  Codebook codebook;
  FloatType source_type;
  int block_size;
  int64_t element_count;  // n
  const void* source;     // source_type [n], aligned to its type
  const uint8_t* codes;   // [(n + 1) / 2]
  const float* scales;    // [ceil(n / block_size)]
  ErrorSums* sums;        // [ErrorChunkCount(n)]
};

cudaError_t LaunchBlockQuantize(const BlockQuantizeLaunch& launch, cudaStream_t stream);
// Improves on the codes and scales that LaunchBlockQuantize() wrote before on the same stream; the
// cell is not touched. `search` is not kNone.
cudaError_t LaunchScaleSearch(const BlockQuantizeLaunch& launch, ScaleSearch search,
                              cudaStream_t stream);
cudaError_t LaunchBlockDequantize(const BlockDequantizeLaunch& launch, cudaStream_t stream);
cudaError_t LaunchFindNonFinite(const FindNonFiniteLaunch& launch, cudaStream_t stream);
cudaError_t LaunchExpandF8(const ExpandF8Launch& launch, cudaStream_t stream);
cudaError_t LaunchMeasureError(const MeasureErrorLaunch& launch, cudaStream_t stream);

// Touch every kernel of a file, which loads its module onto the current GPU. The scale search
// copies its tables there too.
cudaError_t LoadBlockQuantize();
cudaError_t LoadScaleSearch();
cudaError_t LoadBlockDequantize();
cudaError_t LoadFindNonFinite();
cudaError_t LoadExpandF8();
cudaError_t LoadMeasureError();

}  // namespace nibble
