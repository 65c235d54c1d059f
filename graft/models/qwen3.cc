#include "graft/models/decoder.h"

namespace graft {

// Qwen3 (arXiv:2505.09388): RMSNorm over each head of q and k before rotation, explicit head_dim, no biases.
// What differs stands in ModelConfig (biases, qk_norm, windows, rope); names and order of the layers are the common ones.
extern const Family kQwen3;
const Family kQwen3 = {"qwen3", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
