#pragma once

#include <string>
#include <vector>

#include "graft/graph/ops.h"

namespace graft {

// What is drawn where dropout is on.
struct Dropout {
  double p = 0;
  bool at_rank = false;  // on the rank activations instead of the input of A
  uint64_t seed = 0;
  Value row_keys;  // u64 [tokens]
};

// What the linear layers of one graph share.
struct LinearContext {
  Compute compute = Compute::kF32;
  Value adapter_offsets;  // i32 [slots + 1], or none: one slot with all rows
  Dropout dropout;
};

// y = x W^T + bias, with the adapters of each slot (LoRA, arXiv:2106.09685) and, with a magnitude, DoRA (arXiv:2402.09353).
struct Linear {
  std::string name;  // "q_proj": names the node and the dropout's random stream
  Value weight, bias;
  std::vector<AdapterPair> adapters;  // per slot; empty without LoRA
  Value magnitude;                    // DoRA, [out, 1]; one slot only
};

// Linear layers that read the same x, their LoRA in one product: one [tokens, out] value each.
std::vector<Value> linears(Graph& g, const LinearContext& context, Value x, const std::vector<Linear>& layers);
// One layer, with `residual` (may be none) added.
Value linear(Graph& g, const LinearContext& context, Value x, const Linear& layer, Value residual = {});

// The LoRA rows h = scaling * x A^T of one layer, for a head whose product is fused with the loss; none without adapters.
Value lora_rows(Graph& g, const LinearContext& context, Value x, const Linear& layer);

}  // namespace graft
