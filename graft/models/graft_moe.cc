#include "graft/models/decoder.h"

namespace graft {

// graft's own family, to train from nothing: Mixtral's config keys, Qwen3-MoE's names of tensors; a shared expert is added as it is.
// What differs stands in ModelConfig; names and order of the layers are the common ones.
extern const Family kGraftMoe;
const Family kGraftMoe = {"graft_moe", decoder_tensors, decoder_modules, build_decoder};

}  // namespace graft
