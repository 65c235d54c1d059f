#include "graft/models/decoder.h"

namespace graft {

// Qwen1.5-MoE and Qwen2-MoE (arXiv:2407.10671): experts, and a shared expert behind a sigmoid gate.
// What differs stands in ModelConfig; names and order of the layers are the common ones.
extern const Family kQwen2Moe;
const Family kQwen2Moe = {"qwen2_moe", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
