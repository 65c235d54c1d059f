#include "graft/models/decoder.h"

namespace graft {

// Mixtral (arXiv:2401.04088): every layer has experts; the chosen weights are divided by their sum.
// What differs stands in ModelConfig; names and order of the layers are the common ones.
extern const Family kMixtral;
const Family kMixtral = {"mixtral", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
