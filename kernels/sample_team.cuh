// A row's CTAs, which add and compare over all of their threads through each other's shared memory.

#pragma once

#include <cooperative_groups.h>

#include <cstdint>

#include "kernels/step_rows.cuh"

namespace nibble {

inline constexpr int kTeamThreads = 512;
inline constexpr int kTeamWarps = kTeamThreads / kWarpThreads;
inline constexpr int kTeamCtasMax = 8;  // Of a cluster.

// What the warps of a CTA tell the others. Two of them in turn, so that a CTA may write the next
// one while others still read the last.
struct TeamShared {
  uint64_t warps[2][kTeamWarps];
};

// The CTAs of a cluster, or one CTA without a cluster before Hopper. Every thread calls the same
// functions in the same order; each returns the same in every thread.
class Team {
 public:
  __device__ explicit Team(TeamShared& shared)
      : shared_(shared), size_(static_cast<int>(gridDim.z)), rank_(static_cast<int>(blockIdx.z)) {}

  __device__ int size() const { return size_; }
  __device__ int rank() const { return rank_; }
  __device__ int warp() const { return static_cast<int>(threadIdx.x) / kWarpThreads; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % kWarpThreads; }

  // What a thread of the team wrote before, to its own shared memory or to the device's, is seen.
  __device__ void Sync() const {
#if __CUDA_ARCH__ >= 900
    if (size_ > 1) {
      cooperative_groups::this_cluster().sync();
      return;
    }
#endif
    __syncthreads();
  }

  // In an order that is always the same.
  __device__ double Sum(double value) {
#pragma unroll
    for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
      value += __shfl_xor_sync(kAllLanes, value, distance);
    }
    Tell(static_cast<uint64_t>(__double_as_longlong(value)));
    double sum = 0;
    for (int cta = 0; cta < size_; ++cta) {
      // A lane a warp, and again a tree: lanes 16 to 31 repeat the others.
      double part = AsDouble(Heard(cta, lane() % kTeamWarps));
#pragma unroll
      for (int distance = kTeamWarps / 2; distance > 0; distance /= 2) {
        part += __shfl_xor_sync(kAllLanes, part, distance);
      }
      sum += part;
    }
    return sum;
  }

  __device__ uint64_t Max(uint64_t value) {
    value = WarpMax(value);
    Tell(value);
    for (int cta = 0; cta < size_; ++cta) {
      value = max(value, Heard(cta, lane() % kTeamWarps));
    }
    return WarpMax(value);
  }

  // Of all threads, one after the other, the one in whose share `target` lies, a share being
  // `value`: true in that thread, with what is left of the target. None if the target is not below
  // the sum of all.
  __device__ bool Find(double value, double target, double& left) {
    double sum = value;
#pragma unroll
    for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
    Tell(static_cast<uint64_t>(__double_as_longlong(sum)));
    double before = 0;
    for (int place = 0; place < size_ * kTeamWarps; ++place) {
      const double next = before + AsDouble(Heard(place / kTeamWarps, place % kTeamWarps));
      if (target < next) {
        return place == rank_ * kTeamWarps + warp() && FindLane(value, target - before, left);
      }
      before = next;
    }
    return false;
  }

 private:
  static_assert(kTeamWarps <= kWarpThreads, "a lane a warp");

  __device__ static double AsDouble(uint64_t bits) {
    return __longlong_as_double(static_cast<long long>(bits));
  }

  __device__ static uint64_t WarpMax(uint64_t value) {
#pragma unroll
    for (int distance = kWarpThreads / 2; distance > 0; distance /= 2) {
      value = max(value, __shfl_xor_sync(kAllLanes, value, distance));
    }
    return value;
  }

  // Publishes a warp's number, and waits for those of all others.
  __device__ void Tell(uint64_t value) {
    turn_ ^= 1;
    if (lane() == 0) {
      shared_.warps[turn_][warp()] = value;
    }
    Sync();
  }

  __device__ uint64_t Heard(int cta, int warp) const {
    uint64_t* place = &shared_.warps[turn_][warp];
#if __CUDA_ARCH__ >= 900
    if (size_ > 1) {
      place = cooperative_groups::this_cluster().map_shared_rank(place, cta);
    }
#endif
    return *place;
  }

  // Within the warp. Rounding may leave the target beyond its lanes: the last that has a share.
  __device__ bool FindLane(double value, double target, double& left) const {
    double before = 0;
    int found = -1;
    for (int other = 0; other < kWarpThreads; ++other) {
      const double share = __shfl_sync(kAllLanes, value, other);
      if (share > 0 && (found < 0 || target >= before)) {
        found = other;
        left = target - before;
      }
      before += share;
    }
    return found == lane();
  }

  TeamShared& shared_;
  const int size_;
  const int rank_;
  int turn_ = 0;
};

}  // namespace nibble
