#include "graft/models/decoder.h"

namespace graft {

// Qwen2 and Qwen2.5 (arXiv:2412.15115): biases on q, k, v; tied head up to 3B.
// What differs stands in ModelConfig (biases, qk_norm, windows, rope); names and order of the layers are the common ones.
extern const Family kQwen2;
const Family kQwen2 = {"qwen2", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
