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

// Error unless a tensor can have this shape.
void check_size(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t d : shape) {
    GRAFT_CHECK(d >= 0 && (d == 0 || n <= kMaxElements / d), "a tensor of more than {} elements", kMaxElements);
    n *= d;
  }
}

// Whether the words of `in_place`, "output=input" each, hold this pair.
bool allows(std::string_view in_place, std::string_view output, std::string_view input) {
  while (!in_place.empty()) {
    const size_t end = std::min(in_place.find(' '), in_place.size());
    const std::string_view word = in_place.substr(0, end);
    if (word.size() == output.size() + 1 + input.size() && word.starts_with(output) && word[output.size()] == '=' &&
        word.ends_with(input))
      return true;
    in_place.remove_prefix(std::min(end + 1, in_place.size()));
  }
  return false;
}

bool overlap(const KernelTensor& a, const KernelTensor& b) {
  const auto from = [](const KernelTensor& t) { return reinterpret_cast<uintptr_t>(t.data.data()); };
  return a.bytes() > 0 && b.bytes() > 0 && from(a) < from(b) + b.bytes() && from(b) < from(a) + a.bytes();
}

}  // namespace

KernelTensor::KernelTensor(DType type, std::vector<int64_t> dims) : dtype(type), shape(std::move(dims)) {
  check_size(shape);
  data = TensorMemory(Buffer(std::max<size_t>(bytes(), 1)));
}

KernelTensor::KernelTensor(DType type, std::vector<int64_t> dims, void* memory) : dtype(type), shape(std::move(dims)) {
  check_size(shape);
  GRAFT_CHECK(memory != nullptr || bytes() == 0, "no memory for a tensor of {} bytes", bytes());
  const size_t width =
      std::max<size_t>(static_cast<size_t>(dtype_bits(dtype)) / 8, 1);  // two 4-bit values stand in a byte
  GRAFT_CHECK(reinterpret_cast<uintptr_t>(memory) % width == 0, "memory at {} for {}, expected a multiple of {} bytes",
              memory, dtype_name(dtype), width);
  data = TensorMemory(memory, bytes());
}

int64_t KernelTensor::size() const {
  int64_t n = 1;
  for (const int64_t d : shape) n *= d;
  return n;
}

KernelTensor& KernelCall::add_input(std::string_view name, DType dtype, std::vector<int64_t> shape) {
  return inputs_[std::string(name)] = KernelTensor(dtype, std::move(shape));
}

void KernelCall::borrow_input(std::string_view name, DType dtype, std::vector<int64_t> shape, const void* memory) {
  inputs_[std::string(name)] = KernelTensor(dtype, std::move(shape), const_cast<void*>(memory));
}

void KernelCall::borrow_output(std::string_view name, DType dtype, std::vector<int64_t> shape, void* memory) {
  borrowed_[std::string(name)] = {dtype, std::move(shape), memory};
}

void KernelCall::begin(std::string_view in_place) {
  in_place_ = in_place;
  outputs_.clear();
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
  const auto given = borrowed_.find(name);
  if (given == borrowed_.end()) return outputs_[std::string(name)] = KernelTensor(dtype, std::move(shape));
  const Borrowed& b = given->second;
  GRAFT_CHECK(b.dtype == dtype && b.shape == shape, "output '{}' is {} [{}], expected {} [{}]", name,
              dtype_name(b.dtype), fmt::join(b.shape, ", "), dtype_name(dtype), fmt::join(shape, ", "));
  KernelTensor made(dtype, std::move(shape), b.memory);
  check_apart(name, made);
  return outputs_[std::string(name)] = std::move(made);
}

void KernelCall::check_apart(std::string_view name, const KernelTensor& made) const {
  for (const auto& [input, t] : inputs_) {
    if (!overlap(made, t)) continue;
    const bool may_be = allows(in_place_, name, input);
    GRAFT_CHECK(may_be && made.data.data() == t.data.data(), "output '{}' overlaps input '{}', expected {}", name,
                input, may_be ? "both to begin at one address, or to lie apart" : "them to lie apart");
  }
  for (const auto& [other, t] : outputs_)
    GRAFT_CHECK(!overlap(made, t), "outputs '{}' and '{}' overlap, expected them to lie apart", name, other);
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
