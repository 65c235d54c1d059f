#pragma once

// The order of row and vector sums (design: "the order of arithmetic is part of an op's contract"), scalar. Internal to
// each file that includes it (ref.h).
//
// A vector is cut into blocks of 4,096. Inside a block element j goes to lane j mod 64, ascending, from +0; the lanes
// are added as a tree: +32, +16 … +1. The block sums form a new vector that is summed the same way, until one number is
// left.

#include <algorithm>
#include <cstdint>
#include <limits>

namespace graft {
namespace {

constexpr int64_t kSumLanes = 64, kSumBlock = 4096;

template <typename T>
T add_lanes(T* lanes) noexcept {  // overwrites them
  for (int64_t width = kSumLanes / 2; width >= 1; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

// step(lane, j) returns the lane with term j in it.
template <typename T, typename Step>
T sum_block(int64_t begin, int64_t end, Step&& step) noexcept {
  T lanes[kSumLanes] = {};
  for (int64_t j = begin; j < end; ++j) lanes[(j - begin) % kSumLanes] = step(lanes[(j - begin) % kSumLanes], j);
  return add_lanes(lanes);
}

// Folds block sums as they come: level k holds the lanes of the vector of sums of level k - 1.
template <typename T>
class BlockSums {
 public:
  void add(T sum) noexcept {
    for (Level& level : levels_) {
      level.lanes[level.count % kSumLanes] += sum;
      if (++level.count < kSumBlock) return;
      sum = level.take();
    }
  }
  T finish() noexcept {
    T sum = 0;
    for (int i = 0; i < kLevels; ++i) {
      if (i > 0 && has_carry_) levels_[i].lanes[levels_[i].count++ % kSumLanes] += sum;
      has_carry_ = levels_[i].count > 0;
      if (has_carry_) sum = levels_[i].take();
    }
    return sum;
  }

 private:
  static constexpr int kLevels = 3;  // 4,096^4 elements
  struct Level {
    T lanes[kSumLanes] = {};
    int64_t count = 0;
    T take() noexcept {
      const T sum = add_lanes(lanes);
      std::fill(lanes, lanes + kSumLanes, T{0});
      count = 0;
      return sum;
    }
  };
  Level levels_[kLevels];
  bool has_carry_ = false;
};

template <typename T, typename Step>
T sum_vector(int64_t size, Step&& step) noexcept {
  if (size <= kSumBlock) return sum_block<T>(0, size, step);
  BlockSums<T> sums;
  for (int64_t begin = 0; begin < size; begin += kSumBlock) {
    sums.add(sum_block<T>(begin, std::min(begin + kSumBlock, size), step));
  }
  return sums.finish();
}

// The larger of two; NaN if either is: what no Min or Max instruction promises.
template <typename T>
T max_or_nan(T m, T x) noexcept {
  return x > m || x != x ? x : m;
}

// Maximum of x[begin … end), lanes and tree as above from -infinity.
template <typename T>
T max_block(const T* x, int64_t begin, int64_t end) noexcept {
  T lanes[kSumLanes];
  std::fill(lanes, lanes + kSumLanes, -std::numeric_limits<T>::infinity());
  for (int64_t j = begin; j < end; ++j) {
    lanes[(j - begin) % kSumLanes] = max_or_nan(lanes[(j - begin) % kSumLanes], x[j]);
  }
  for (int64_t width = kSumLanes / 2; width >= 1; width /= 2) {
    for (int64_t i = 0; i < width; ++i) lanes[i] = max_or_nan(lanes[i], lanes[i + width]);
  }
  return lanes[0];
}

}  // namespace
}  // namespace graft
