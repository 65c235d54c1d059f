#pragma once

#include <string>

#include "graft/base/dtype.h"
#include "graft/base/json.h"
#include "graft/kernels/context.h"
#include "graft/models/model.h"

namespace graft {

// What a stored tensor becomes under "keep", "f32", "bf16", "f16".
DType saved_dtype(std::string_view save_dtype, DType stored);

// Writes the model's parameters as safetensors into `folder`, converting to `save_dtype`, one tensor in memory at a time.
void save_model_weights(Context& context, const Model& model, const std::string& folder, std::string_view save_dtype,
                        uint64_t shard_bytes = 0);

}  // namespace graft
