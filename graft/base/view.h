#pragma once

#include <array>
#include <cassert>
#include <cstdint>
#include <span>
#include <type_traits>

namespace graft {

// A pointer with extents and strides (in elements), row-major unless said otherwise; the words of std::mdspan.
template <typename T, int Rank>
class View {
 public:
  View() = default;
  // clang-format off: version 14 joins a requires clause with what it constrains
  template <typename... Sizes>
  requires(sizeof...(Sizes) == Rank) explicit View(T* data, Sizes... sizes)
      : data_(data), extents_{static_cast<int64_t>(sizes)...} {
    int64_t stride = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      strides_[i] = stride;
      stride *= extents_[i];
    }
  }
  // clang-format on
  View(T* data, std::array<int64_t, Rank> extents, std::array<int64_t, Rank> strides)
      : data_(data), extents_(extents), strides_(strides) {}
  // clang-format off
  operator View<const T, Rank>() const
    requires(!std::is_const_v<T>)
  {
    return View<const T, Rank>(data_, extents_, strides_);
  }
  // clang-format on

  T* data() const { return data_; }
  int64_t extent(int i) const { return extents_[i]; }
  int64_t stride(int i) const { return strides_[i]; }
  const std::array<int64_t, Rank>& extents() const { return extents_; }
  const std::array<int64_t, Rank>& strides() const { return strides_; }
  int64_t size() const {
    int64_t n = 1;
    for (int64_t e : extents_) n *= e;
    return n;
  }
  bool contiguous() const {
    int64_t stride = 1;
    for (int i = Rank - 1; i >= 0; --i) {
      if (extents_[i] != 1 && strides_[i] != stride) return false;
      stride *= extents_[i];
    }
    return true;
  }
  template <typename... Indices>
  T& operator()(Indices... indices) const {
    static_assert(sizeof...(Indices) == Rank);
    const std::array<int64_t, Rank> at = {static_cast<int64_t>(indices)...};
    int64_t offset = 0;
    for (int i = 0; i < Rank; ++i) offset += at[i] * strides_[i];
    return data_[offset];
  }
  T* row(int64_t i) const { return data_ + i * strides_[0]; }

 private:
  T* data_ = nullptr;
  std::array<int64_t, Rank> extents_{};
  std::array<int64_t, Rank> strides_{};
};

}  // namespace graft
