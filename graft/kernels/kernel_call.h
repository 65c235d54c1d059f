#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/dtype.h"
#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "graft/base/view.h"
#include "graft/kernels/context.h"

namespace graft {

// The safetensors type of a C++ element type.
template <typename T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  if constexpr (std::is_same_v<T, f16>) return DType::kF16;
  if constexpr (std::is_same_v<T, int8_t>) return DType::kI8;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::kU8;
  if constexpr (std::is_same_v<T, int32_t>) return DType::kI32;
  if constexpr (std::is_same_v<T, uint32_t>) return DType::kU32;
  if constexpr (std::is_same_v<T, double>) return DType::kF64;
}

// Memory of a tensor: its own, or borrowed and then neither copied nor freed.
class TensorMemory {
 public:
  TensorMemory() = default;
  explicit TensorMemory(Buffer own) : own_(std::move(own)), data_(own_.data()), bytes_(own_.bytes()) {}
  TensorMemory(void* borrowed, size_t bytes) : data_(static_cast<std::byte*>(borrowed)), bytes_(bytes) {}
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  std::span<T> as() const {
    return {reinterpret_cast<T*>(data_), bytes_ / sizeof(T)};
  }

 private:
  Buffer own_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// A tensor: row-major, in 64-byte aligned memory of its own, or in borrowed memory that lies as its type needs.
struct KernelTensor {
  KernelTensor() = default;
  KernelTensor(DType type, std::vector<int64_t> dims);
  KernelTensor(DType type, std::vector<int64_t> dims, void* memory);  // borrowed
  int64_t size() const;                                               // elements
  size_t bytes() const { return static_cast<size_t>(size() * dtype_bits(dtype) / 8); }
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  TensorMemory data;
};

// One call of a kernel of the suite as data: named inputs, parameters and outputs, as a golden file has them
// (oracle/README.md). The registry's rows read and fill it; check, bench and recipes are written against it alone.
class KernelCall {
 public:
  // Inputs and parameters; a second value under a name replaces the first.
  KernelTensor& add_input(std::string_view name, DType dtype, std::vector<int64_t> shape);
  void set_parameter(std::string_view name, std::string_view text);

  // Memory of the caller's, neither copied nor freed. An input is only read, unless the kernel works in place on it.
  void borrow_input(std::string_view name, DType dtype, std::vector<int64_t> shape, const void* memory);
  // An output that the kernel is to write there. KernelInfo::prepare throws Error unless type and shape are what the kernel writes, and
  // where the memory overlaps an input or another output otherwise than KernelInfo::in_place allows.
  void borrow_output(std::string_view name, DType dtype, std::vector<int64_t> shape, void* memory);

  bool has_input(std::string_view name) const { return inputs_.contains(name); }
  // An input of type T, whatever its shape. Throws Error where it is missing or of another type.
  template <typename T>
  std::span<const T> in(std::string_view name) const {
    const KernelTensor& t = input(name, dtype_of<T>());
    return {reinterpret_cast<const T*>(t.data.data()), static_cast<size_t>(t.size())};
  }
  // The same as a view: Error unless it has `Rank` dimensions.
  template <typename T, int Rank>
  View<const T, Rank> in_view(std::string_view name) const {
    const KernelTensor& t = input(name, dtype_of<T>());
    require_rank(name, t, Rank);
    return view_of<const T, Rank>(t);
  }
  const std::vector<int64_t>& in_shape(std::string_view name) const { return find(name).shape; }

  // Parameters, read as what is asked for; the second argument is the default. Error where the text is no such value.
  double real(std::string_view name, double otherwise) const;
  int64_t integer(std::string_view name, int64_t otherwise) const;
  uint64_t natural(std::string_view name, uint64_t otherwise) const;
  bool flag(std::string_view name, bool otherwise) const;
  std::string word(std::string_view name, std::string_view otherwise) const;

  // Outputs. make() allocates (zeroed) or takes what was borrowed, and is called while a call is prepared, after begin(); out() is what a
  // run writes to.
  void begin(std::string_view in_place);
  KernelTensor& make(std::string_view name, DType dtype, std::vector<int64_t> shape);
  template <typename T>
  std::span<T> out(std::string_view name) {
    KernelTensor& t = output(name, dtype_of<T>());
    return {reinterpret_cast<T*>(t.data.data()), static_cast<size_t>(t.size())};
  }
  template <typename T, int Rank>
  View<T, Rank> out_view(std::string_view name) {
    KernelTensor& t = output(name, dtype_of<T>());
    require_rank(name, t, Rank);
    return view_of<T, Rank>(t);
  }
  // Shrinks the first dimension of an output to what a run really wrote (compaction); its memory stays.
  void set_length(std::string_view name, int64_t length);

  const std::map<std::string, KernelTensor, std::less<>>& inputs() const { return inputs_; }
  const std::map<std::string, KernelTensor, std::less<>>& outputs() const { return outputs_; }
  const std::map<std::string, std::string, std::less<>>& parameters() const { return parameters_; }

 private:
  const KernelTensor& find(std::string_view name) const;
  const KernelTensor& input(std::string_view name, DType dtype) const;
  KernelTensor& output(std::string_view name, DType dtype);
  template <typename T, int Rank, typename Tensor>
  static View<T, Rank> view_of(Tensor& t) {
    std::array<int64_t, Rank> extents, strides;
    int64_t stride = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      extents[static_cast<size_t>(i)] = t.shape[static_cast<size_t>(i)];
      strides[static_cast<size_t>(i)] = stride;
      stride *= extents[static_cast<size_t>(i)];
    }
    return View<T, Rank>(reinterpret_cast<T*>(t.data.data()), extents, strides);
  }
  void check_apart(std::string_view name, const KernelTensor& made) const;
  static void require_rank(std::string_view name, const KernelTensor& tensor, int rank);

  std::map<std::string, KernelTensor, std::less<>> inputs_, outputs_;
  struct Borrowed {
    DType dtype;
    std::vector<int64_t> shape;
    void* memory;
  };
  std::map<std::string, Borrowed, std::less<>> borrowed_;  // outputs
  std::string_view in_place_;
  std::map<std::string, std::string, std::less<>> parameters_;
};

}  // namespace graft
