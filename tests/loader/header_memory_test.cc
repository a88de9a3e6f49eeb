// Reading a header when the host has no memory for it. An executable of its own, because it
// replaces the allocation function that the reader uses for what a file's length word asks for.

#include <cstdlib>
#include <new>
#include <string>

#include "gtest/gtest.h"
#include "loader/safetensors.h"
#include "tests/support/memory_file.h"

namespace {

bool refuse = false;
size_t asked_bytes = 0;

}  // namespace

void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  asked_bytes = bytes;
  if (refuse) {
    return nullptr;
  }
  return ::operator new[](bytes);
}

namespace nibble {
namespace {

TEST(HeaderMemoryTest, IsAnErrorWhenThereIsNone) {
  const std::string json = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  std::string content(8, '\0');
  content[0] = static_cast<char>(json.size());
  const MemoryFile file("x.safetensors", content + json + "d");
  ASSERT_TRUE(ReadSafetensorsHeader("x.safetensors", file).ok());
  EXPECT_EQ(asked_bytes, json.size());

  refuse = true;
  const auto header = ReadSafetensorsHeader("x.safetensors", file);
  refuse = false;
  EXPECT_EQ(header.status(),
            absl::ResourceExhaustedError("x.safetensors: no memory for a header of 53 bytes"));
  EXPECT_TRUE(ReadSafetensorsHeader("x.safetensors", file).ok());
}

TEST(HeaderMemoryTest, IsNotAskedForBeyondTheFile) {
  asked_bytes = 0;
  std::string content(8, '\0');
  content[3] = 5;  // 80 MiB, within the format's limit.
  EXPECT_FALSE(ReadSafetensorsHeader("x", MemoryFile("x", content + "{}")).ok());
  EXPECT_EQ(asked_bytes, 0u);
}

}  // namespace
}  // namespace nibble
