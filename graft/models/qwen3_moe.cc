#include "graft/models/decoder.h"

namespace graft {

// Qwen3-MoE (arXiv:2505.09388): Qwen3 with experts in most layers; norm_topk_prob says whether the chosen weights are divided by their sum.
// What differs stands in ModelConfig; names and order of the layers are the common ones.
extern const Family kQwen3Moe;
const Family kQwen3Moe = {"qwen3_moe", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
