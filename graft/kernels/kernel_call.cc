#include "graft/kernels/kernel_call.h"

#include <charconv>

namespace graft {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 34;

// The number that `text` is, all of it.
template <typename N>
N parse(std::string_view name, const std::string& text, std::string_view wanted) {
  N value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  GRAFT_CHECK(error == std::errc() && end == text.data() + text.size(), "parameter '{}' is '{}', expected {}", name,
              printable(text, 40), wanted);
  return value;
}

}  // namespace

KernelTensor::KernelTensor(DType type, std::vector<int64_t> dims) : dtype(type), shape(std::move(dims)) {
  int64_t n = 1;
  for (const int64_t d : shape) {
    GRAFT_CHECK(d >= 0 && (d == 0 || n <= kMaxElements / d), "a tensor of more than {} elements", kMaxElements);
    n *= d;
  }
  data = Buffer(std::max<size_t>(bytes(), 1));
}

int64_t KernelTensor::size() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

KernelTensor& KernelCall::add_input(std::string_view name, DType dtype, std::vector<int64_t> shape) {
  return inputs_[std::string(name)] = KernelTensor(dtype, std::move(shape));
}

void KernelCall::set_parameter(std::string_view name, std::string_view text) {
  parameters_[std::string(name)] = std::string(text);
}

double KernelCall::real(std::string_view name, double otherwise) const {
  const auto at = parameters_.find(name);
  return at == parameters_.end() ? otherwise : parse<double>(name, at->second, "a number");
}
int64_t KernelCall::integer(std::string_view name, int64_t otherwise) const {
  const auto at = parameters_.find(name);
  return at == parameters_.end() ? otherwise : parse<int64_t>(name, at->second, "an integer");
}
uint64_t KernelCall::natural(std::string_view name, uint64_t otherwise) const {
  const auto at = parameters_.find(name);
  return at == parameters_.end() ? otherwise : parse<uint64_t>(name, at->second, "an integer from 0 to 2^64 - 1");
}
bool KernelCall::flag(std::string_view name, bool otherwise) const {
  const std::string text = word(name, otherwise ? "true" : "false");
  GRAFT_CHECK(text == "true" || text == "false", "parameter '{}' is '{}', expected true or false", name,
              printable(text, 40));
  return text == "true";
}
std::string KernelCall::word(std::string_view name, std::string_view otherwise) const {
  const auto at = parameters_.find(name);
  return at == parameters_.end() ? std::string(otherwise) : at->second;
}

KernelTensor& KernelCall::make(std::string_view name, DType dtype, std::vector<int64_t> shape) {
  return outputs_[std::string(name)] = KernelTensor(dtype, std::move(shape));
}

void KernelCall::set_length(std::string_view name, int64_t length) { outputs_.find(name)->second.shape[0] = length; }

const KernelTensor& KernelCall::find(std::string_view name) const {
  const auto at = inputs_.find(name);
  GRAFT_CHECK(at != inputs_.end(), "input '{}' is missing", name);
  return at->second;
}

const KernelTensor& KernelCall::input(std::string_view name, DType dtype) const {
  const KernelTensor& t = find(name);
  GRAFT_CHECK(t.dtype == dtype, "input '{}' is {}, expected {}", name, dtype_name(t.dtype), dtype_name(dtype));
  return t;
}

KernelTensor& KernelCall::output(std::string_view name, DType dtype) {
  const auto at = outputs_.find(name);
  GRAFT_CHECK(at != outputs_.end() && at->second.dtype == dtype, "output '{}' of type {} was not made", name,
              dtype_name(dtype));
  return at->second;
}

void KernelCall::require_rank(std::string_view name, const KernelTensor& tensor, int rank) {
  GRAFT_CHECK(static_cast<int>(tensor.shape.size()) == rank, "input '{}' has {} dimensions, expected {}", name,
              tensor.shape.size(), rank);
}

}  // namespace graft
