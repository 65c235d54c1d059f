#include "graft/kernels/sort.h"

#include <cassert>

#include "graft/kernels/radix_inl.h"

namespace graft {
namespace {

int64_t length(size_t n) noexcept { return static_cast<int64_t>(n); }

uint64_t pair_of(uint32_t key, uint32_t value) noexcept { return uint64_t{key} << 32 | value; }

// Equal keys lie together: puts [begin, end) in the order of values. Keys go along, as zeros of both signs are equal.
void sort_run(std::span<float> keys, std::span<uint32_t> values, size_t begin, size_t end, uint64_t* scratch) noexcept {
  for (size_t i = begin; i < end; ++i) scratch[i - begin] = pair_of(values[i], std::bit_cast<uint32_t>(keys[i]));
  std::sort(scratch, scratch + (end - begin));
  for (size_t i = begin; i < end; ++i) {
    values[i] = static_cast<uint32_t>(scratch[i - begin] >> 32);
    keys[i] = std::bit_cast<float>(static_cast<uint32_t>(scratch[i - begin]));
  }
}

}  // namespace

ScratchNeed sort_scratch(int64_t n) noexcept { return {.shared = radix_bytes<uint64_t>(n)}; }

void sort_radix(Context& context, std::span<const uint32_t> keys, std::span<uint32_t> sorted) noexcept {
  assert(keys.size() == sorted.size());
  radix_sort<uint32_t>(
      context, length(keys.size()), context.shared<std::byte>(), [in = keys.data()](int64_t i) { return in[i]; },
      [out = sorted.data()](uint32_t place, uint32_t key) { out[place] = key; });
}

void sort_radix(Context& context, std::span<const uint32_t> keys, std::span<const uint32_t> values,
                std::span<uint32_t> sorted_keys, std::span<uint32_t> sorted_values) noexcept {
  assert(keys.size() == values.size() && keys.size() == sorted_keys.size() && keys.size() == sorted_values.size());
  radix_sort<uint64_t>(
      context, length(keys.size()), context.shared<std::byte>(),
      [in = keys.data(), with = values.data()](int64_t i) { return pair_of(in[i], with[i]); },
      [out = sorted_keys.data(), with = sorted_values.data()](uint32_t place, uint64_t item) {
        out[place] = static_cast<uint32_t>(item >> 32);
        with[place] = static_cast<uint32_t>(item);
      });
}

void sort_bitonic(Context& context, std::span<const float> x, std::span<float> y) noexcept {
  assert(x.size() == y.size());
  radix_sort<uint32_t>(
      context, length(x.size()), context.shared<std::byte>(), [in = x.data()](int64_t i) { return ordered_key(in[i]); },
      [out = y.data()](uint32_t place, uint32_t key) { out[place] = float_of_key(key); });
}

void sort_bitonic_kv(Context& context, std::span<const float> keys, std::span<const uint32_t> values,
                     std::span<float> sorted_keys, std::span<uint32_t> sorted_values) noexcept {
  assert(keys.size() == values.size() && keys.size() == sorted_keys.size() && keys.size() == sorted_values.size());
  radix_sort<uint64_t>(
      context, length(keys.size()), context.shared<std::byte>(),
      [in = keys.data(), with = values.data()](int64_t i) { return pair_of(ordered_key(in[i]), with[i]); },
      [out = sorted_keys.data(), with = sorted_values.data()](uint32_t place, uint64_t item) {
        out[place] = float_of_key(static_cast<uint32_t>(item >> 32));
        with[place] = static_cast<uint32_t>(item);
      });
  // Stable so far: only values of equal keys that did not come in order are left.
  const size_t n = keys.size();
  for (size_t i = 1; i < n; ++i) {
    if (sorted_keys[i - 1] < sorted_keys[i]) continue;
    const size_t begin = i - 1;
    const bool nan = sorted_keys[begin] != sorted_keys[begin];
    if (!nan && sorted_keys[i] != sorted_keys[begin]) continue;  // the first NaN
    while (i < n && (nan || sorted_keys[i] == sorted_keys[begin])) ++i;
    sort_run(sorted_keys, sorted_values, begin, i, context.shared<uint64_t>());
  }
}

}  // namespace graft
