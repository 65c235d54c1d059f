#include "graft/models/decoder.h"

namespace graft {

// Mistral (arXiv:2310.06825): Llama with a sliding window (v0.1) and a head_dim of its own (Nemo).
// What differs stands in ModelConfig (biases, qk_norm, windows, rope); names and order of the layers are the common ones.
extern const Family kMistral;
const Family kMistral = {"mistral", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
