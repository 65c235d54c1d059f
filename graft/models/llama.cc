#include "graft/models/decoder.h"

namespace graft {

// Llama 2 and 3 (arXiv:2307.09288, 2407.21783): no biases unless the config says so; Llama 3.1 scales the rotary frequencies.
// What differs stands in ModelConfig (biases, qk_norm, windows, rope); names and order of the layers are the common ones.
extern const Family kLlama;
const Family kLlama = {"llama", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
