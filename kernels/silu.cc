#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/silu.cc"

#include "kernels/silu.h"

#include <cmath>

#include "hwy/foreach_target.h"  // Must come before highway.h.
#include "hwy/highway.h"
// After highway.h, and for each target.
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

void GateAllBySilu(const float* gate, const float* value, int64_t count, float* target) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, 1.0f);
  const auto largest = hn::Set(d, 104.0f);  // Where the exponential is infinite.
  for (; i + lanes <= count; i += lanes) {
    const auto x = hn::LoadU(d, gate + i);
    const auto exponential = hn::Exp(d, hn::Min(hn::Neg(x), largest));
    const auto gated = hn::Div(x, hn::Add(one, exponential));
    hn::StoreU(hn::Mul(gated, hn::LoadU(d, value + i)), d, target + i);
  }
#endif
  for (; i < count; ++i) {
    target[i] = gate[i] / (1 + std::exp(-gate[i])) * value[i];
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace nibble
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble {

HWY_EXPORT(GateAllBySilu);

void GateBySilu(const float* gate, const float* value, int64_t count, float* target) {
  HWY_DYNAMIC_DISPATCH(GateAllBySilu)(gate, value, count, target);
}

}  // namespace nibble
#endif  // HWY_ONCE
