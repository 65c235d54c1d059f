#include "graft/kernels/algorithm.h"

#include <fmt/format.h>

#include <algorithm>

namespace graft {
namespace {

using Shape = AlgorithmShape;
using Choice = AlgorithmChoice;

std::string compared(int64_t value, std::string_view sign, int64_t bound) {
  return fmt::format("{} {} {}", value, sign, bound);
}

bool power_of(int64_t base, int64_t n) {
  if (n < 1) return false;
  while (n % base == 0) n /= base;
  return n == 1;
}

constexpr std::string_view kNorm[] = {"reduce_l2", "map_reduce_square_sum"};
Choice norm(const Shape& s) {
  return s.size > 100000 ? Choice{kNorm[0], compared(s.size, ">", 100000)}
                         : Choice{kNorm[1], compared(s.size, "<=", 100000)};
}

constexpr std::string_view kCosine[] = {"cosine_similarity", "dot_batched"};
Choice cosine(const Shape& s) {
  return s.count > 1000 ? Choice{kCosine[0], compared(s.count, "rows >", 1000)}
                        : Choice{kCosine[1], compared(s.count, "rows <=", 1000)};
}

constexpr std::string_view kTopk[] = {"topk_select", "sort_bitonic_kv"};
Choice topk(const Shape& s) {
  return 10 * s.count < s.size ? Choice{kTopk[0], fmt::format("k / N = {} / {} < 0.1", s.count, s.size)}
                               : Choice{kTopk[1], fmt::format("k / N = {} / {} >= 0.1", s.count, s.size)};
}

constexpr std::string_view kSort[] = {"sort_bitonic", "sort_radix"};
Choice sort(const Shape& s) {
  if (s.size > 32768) return {kSort[1], compared(s.size, ">", 32768)};
  return power_of(2, s.size) ? Choice{kSort[0], fmt::format("{} is a power of two up to 32768", s.size)}
                             : Choice{kSort[1], fmt::format("{} is no power of two", s.size)};
}

constexpr std::string_view kMedian[] = {"median_select", "sort_radix"};
Choice median(const Shape& s) {
  return s.size > 8192 ? Choice{kMedian[0], compared(s.size, ">", 8192)}
                       : Choice{kMedian[1], compared(s.size, "<=", 8192)};
}

constexpr std::string_view kSoftmax[] = {"softmax_stable", "softmax_online"};
Choice softmax(const Shape& s) {
  return s.size <= 8192 ? Choice{kSoftmax[0], compared(s.size, "columns <=", 8192)}
                        : Choice{kSoftmax[1], compared(s.size, "columns >", 8192)};
}

constexpr std::string_view kAttention[] = {"attention_sdpa", "attention_flash"};
Choice attention(const Shape& s) {
  return s.size < 2048 ? Choice{kAttention[0], compared(s.size, "keys <", 2048)}
                       : Choice{kAttention[1], compared(s.size, "keys >=", 2048)};
}

constexpr std::string_view kFft[] = {"fft_radix2", "fft_radix4", "fft_real"};
Choice fft(const Shape& s) {
  if (s.real) return {kFft[2], "the signal is real"};
  if (s.size >= 256 && power_of(4, s.size)) return {kFft[1], fmt::format("{} is a power of four from 256 on", s.size)};
  return {kFft[0], fmt::format("{} is no power of four from 256 on", s.size)};
}

constexpr std::string_view kConvolution[] = {"conv1d", "fft_conv1d"};
Choice convolution(const Shape& s) {
  return s.count <= 64 ? Choice{kConvolution[0], compared(s.count, "taps <=", 64)}
                       : Choice{kConvolution[1], compared(s.count, "taps >", 64)};
}
constexpr std::string_view kFir[] = {"fir_filter", "fft_conv1d"};
Choice fir(const Shape& s) {
  return s.count <= 64 ? Choice{kFir[0], compared(s.count, "taps <=", 64)}
                       : Choice{kFir[1], compared(s.count, "taps >", 64)};
}

constexpr std::string_view kAutocorrelation[] = {"autocorrelation"};
Choice autocorrelation(const Shape& s) {
  return {kAutocorrelation[0], s.size <= 1024 ? compared(s.size, "<=", 1024) + ": summed directly"
                                              : compared(s.size, ">", 1024) + ": through the FFT"};
}

constexpr std::string_view kSparse[] = {"spmv_csr", "matvec"};
Choice sparse(const Shape& s) {
  return s.density < 0.05 ? Choice{kSparse[0], fmt::format("density {:.3g} < 0.05", s.density)}
                          : Choice{kSparse[1], fmt::format("density {:.3g} >= 0.05", s.density)};
}

constexpr std::string_view kMatmul[] = {"matmul_batched"};
Choice matmul(const Shape&) { return {kMatmul[0], "graft's own at every size: it calls no vendor BLAS"}; }

constexpr std::string_view kClip[] = {"grad_clip_value", "grad_clip_norm"};
Choice clip(const Shape& s) {
  return s.by_value ? Choice{kClip[0], "by value: one pass"} : Choice{kClip[1], "by norm: two passes"};
}

constexpr std::string_view kSgd[] = {"opt_sgd", "opt_sgd_momentum"};
Choice sgd(const Shape& s) { return s.momentum ? Choice{kSgd[1], "momentum > 0"} : Choice{kSgd[0], "no momentum"}; }
constexpr std::string_view kAdam[] = {"opt_adam", "opt_adamw"};
Choice adam(const Shape& s) {
  return s.weight_decay ? Choice{kAdam[1], "weight decay > 0"} : Choice{kAdam[0], "no weight decay"};
}

constexpr AlgorithmRule kRules[] = {
    {"vector_norm", "N > 100,000: reduce_l2, else the root of map_reduce_square_sum", kNorm, norm},
    {"cosine", "more than 1,000 rows: cosine_similarity, else dot_batched and norms", kCosine, cosine},
    {"topk", "k / N < 0.1: topk_select, else a full sort", kTopk, topk},
    {"sort", "a power of two up to 32,768: sort_bitonic, else sort_radix", kSort, sort},
    {"median", "N > 8,192: median_select, else a sort", kMedian, median},
    {"softmax", "rows up to 8,192: softmax_stable, longer: softmax_online", kSoftmax, softmax},
    {"attention", "fewer than 2,048 keys: attention_sdpa, else attention_flash", kAttention, attention},
    {"fft", "real: fft_real; a power of four from 256 on: fft_radix4; else fft_radix2", kFft, fft},
    {"convolution", "up to 64 taps: conv1d, else fft_conv1d", kConvolution, convolution},
    {"fir", "up to 64 taps: fir_filter, else fft_conv1d", kFir, fir},
    {"autocorrelation", "N up to 1,024: directly, else through the FFT", kAutocorrelation, autocorrelation},
    {"sparse_matvec", "density < 5 %: spmv_csr, else matvec", kSparse, sparse},
    {"matmul", "matmul_batched at every size", kMatmul, matmul},
    {"clip", "by norm: grad_clip_norm, by value: grad_clip_value", kClip, clip},
    {"sgd", "momentum > 0: opt_sgd_momentum, else opt_sgd", kSgd, sgd},
    {"adam", "weight decay > 0: opt_adamw, else opt_adam", kAdam, adam},
};

}  // namespace

std::span<const AlgorithmRule> algorithm_rules() { return kRules; }

const AlgorithmRule* find_algorithm_rule(std::string_view operation) {
  const auto at = std::find_if(std::begin(kRules), std::end(kRules),
                               [&](const AlgorithmRule& r) { return r.operation == operation; });
  return at == std::end(kRules) ? nullptr : at;
}

const AlgorithmRule* algorithm_rule_of(std::string_view kernel) {
  const auto at = std::find_if(std::begin(kRules), std::end(kRules), [&](const AlgorithmRule& r) {
    return std::find(r.kernels.begin(), r.kernels.end(), kernel) != r.kernels.end();
  });
  return at == std::end(kRules) ? nullptr : at;
}

}  // namespace graft
