// The dtypes of safetensors.h.

#include <array>
#include <optional>

#include "loader/safetensors.h"

namespace nibble {
namespace {

struct DtypeInfo {
  absl::string_view name;
  int bits;
};

constexpr std::array<DtypeInfo, 22> kDtypes = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};
static_assert(kDtypes[static_cast<size_t>(Dtype::kU64)].name == "U64", "a row for each dtype");

}  // namespace

int DtypeBits(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].bits; }

absl::string_view DtypeName(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)].name; }

std::optional<Dtype> ParseDtype(absl::string_view name) {
  for (size_t i = 0; i < kDtypes.size(); ++i) {
    if (kDtypes[i].name == name) {
      return static_cast<Dtype>(i);
    }
  }
  return std::nullopt;
}

std::optional<FloatType> AsFloatType(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF32:
      return FloatType::kF32;
    case Dtype::kF16:
      return FloatType::kF16;
    case Dtype::kBf16:
      return FloatType::kBf16;
    default:
      return std::nullopt;
  }
}

Dtype DtypeOf(FloatType type) {
  switch (type) {
    case FloatType::kF32:
      return Dtype::kF32;
    case FloatType::kF16:
      return Dtype::kF16;
    case FloatType::kBf16:
      return Dtype::kBf16;
  }
  return Dtype::kF32;
}

std::optional<F8Type> AsF8Type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kF8E4M3:
      return F8Type::kE4M3;
    case Dtype::kF8E5M2:
      return F8Type::kE5M2;
    default:
      return std::nullopt;
  }
}

}  // namespace nibble
