// A minimal reader of safetensors files, for tests of the layer below the real one. It trusts its
// files, which are part of this repository.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"

namespace nibble {

// tests/data, wherever the tests run: from $NIBBLE_TEST_DATA, else where it was at build time.
inline std::string TestDataPath(const std::string& name) {
  const char* const root = std::getenv("NIBBLE_TEST_DATA");
  return std::string(root != nullptr ? root : NIBBLE_TEST_DATA) + "/" + name;
}

class GoldenTensors {
 public:
  struct Tensor {
    std::string dtype;
    std::vector<int64_t> shape;
    std::span<const std::byte> bytes;

    template <typename T>
    std::vector<T> As() const {
      std::vector<T> values(bytes.size() / sizeof(T));
      std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
      return values;
    }
  };

  explicit GoldenTensors(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    file_.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    uint64_t header_bytes = 0;
    if (file_.size() < sizeof(header_bytes)) {
      throw std::runtime_error("cannot read " + path);
    }
    std::memcpy(&header_bytes, file_.data(), sizeof(header_bytes));
    const std::string header = file_.substr(8, header_bytes);
    const std::span<const std::byte> data =
        std::as_bytes(std::span<const char>(file_)).subspan(8 + header_bytes);
    const nlohmann::json entries = nlohmann::json::parse(header);
    for (const auto& [name, entry] : entries.items()) {
      if (name != "__metadata__") {
        const auto begin = entry.at("data_offsets").at(0).get<size_t>();
        const auto end = entry.at("data_offsets").at(1).get<size_t>();
        tensors_[name] = {entry.at("dtype").get<std::string>(),
                          entry.at("shape").get<std::vector<int64_t>>(),
                          data.subspan(begin, end - begin)};
      }
    }
  }
  GoldenTensors(const GoldenTensors&) = delete;
  GoldenTensors& operator=(const GoldenTensors&) = delete;

  bool Has(const std::string& name) const { return tensors_.count(name) != 0; }
  const Tensor& at(const std::string& name) const { return tensors_.at(name); }
  const std::map<std::string, Tensor>& all() const { return tensors_; }

 private:
  std::string file_;
  std::map<std::string, Tensor> tensors_;
};

}  // namespace nibble
