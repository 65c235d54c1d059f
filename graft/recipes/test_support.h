#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft::test {

using Values = std::vector<float>;

// A call of one kernel through the registry: what a recipe must agree with, bit for bit.
class Call {
 public:
  Call(Context& context, std::string_view kernel) : context_(context), kernel_(*find_kernel(kernel)) {}
  template <typename T>
  Call& in(std::string_view name, const std::vector<T>& values, std::vector<int64_t> shape = {}) {
    if (shape.empty()) shape = {static_cast<int64_t>(values.size())};
    KernelTensor& t = call_.add_input(name, dtype_of<T>(), std::move(shape));
    std::copy(values.begin(), values.end(), t.data.template as<T>().begin());
    return *this;
  }
  Call& set(std::string_view name, std::string_view value) {
    call_.set_parameter(name, value);
    return *this;
  }
  template <typename T = float>
  std::vector<T> out(std::string_view name) {
    context_.reserve(kernel_.prepare(call_));
    kernel_.run(context_, call_);
    const KernelTensor& t = call_.outputs().at(std::string(name));
    const auto values = t.data.template as<T>();
    return {values.begin(), values.begin() + t.size()};
  }

 private:
  Context& context_;
  const KernelInfo& kernel_;
  KernelCall call_;
};

inline Values random(int64_t n, uint64_t seed, double scale = 1) { return random_values<float>(n, seed, scale); }

}  // namespace graft::test
