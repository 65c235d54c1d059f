#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace graft {

// Which of several kernels does a job at a shape (spec/kernels.md, section 24: size rules). Their f32 results may differ, so that the choice depends on shape and
// parameters alone and is the same on every machine; a table of times never changes it.
struct AlgorithmShape {
  int64_t size =
      0;  // elements of the main input; of a softmax its row, of attention its keys, of a matrix product its largest dimension
  int64_t count = 0;      // rows (cosine), k (top-k), taps (convolution, FIR)
  double density = 1;     // of a sparse matrix: share of entries that are not zero
  bool real = false;      // FFT of a real signal
  bool momentum = false;  // SGD with momentum
  bool weight_decay = false;
  bool by_value = false;  // clipping by value, not by norm
};

struct AlgorithmChoice {
  std::string_view kernel;  // of the registry, or of two: "dot_batched + map_reduce_square_sum"
  std::string why;          // "1000000 > 32768"
};

struct AlgorithmRule {
  std::string_view operation;  // "sort"
  std::string_view rule;       // in a line
  std::span<const std::string_view> kernels;
  AlgorithmChoice (*choose)(const AlgorithmShape& shape);
};

std::span<const AlgorithmRule> algorithm_rules();
const AlgorithmRule* find_algorithm_rule(std::string_view operation);  // null if there is none
// The rule that a kernel is an answer of; null if there is none.
const AlgorithmRule* algorithm_rule_of(std::string_view kernel);

}  // namespace graft
