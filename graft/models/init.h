#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "graft/kernels/context.h"

namespace graft {

struct InitConfig {
  std::string config;     // config.json of any family
  std::string out;        // folder to create
  std::string tokenizer;  // folder whose tokenizer files are copied; may be empty
  std::string init;  // range: N(0, initializer_range^2); fan_in: N(0, 2 / in); empty: fan_in for graft_moe, else range
  uint64_t seed = 0;
  bool overwrite = false;
  std::function<void()> progress = {};  // called between tensors; what it throws ends it
};

// A model folder with random weights, stored in the config's torch_dtype or dtype (else f32): matrices normal, norms 1, biases 0. Element i of a tensor
// is named by (seed, tensor, i). Returns the number of parameters.
int64_t init_model(Context& context, const InitConfig& config);

}  // namespace graft
