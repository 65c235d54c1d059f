#pragma once

#include <string>

#include "graft/base/json.h"

namespace graft {

// What a path is, from headers only: a model folder, an adapter (folder or file), a checkpoint, a .safetensors.
//   {"kind": "model" | "adapter" | "checkpoint" | "safetensors", "family", "parameters", "tensors": [{"name", "dtype",
//   "shape"}],
//    "bytes", "dtypes": {"BF16": tensors}, "files", "odd": ["what a person should look at", …], …}
// model: "config" (the sizes); adapter: "layout", "rank", "alpha", "scale" (the commonest), "targets", "modules"
// [{"module", "rank", "alpha", "scale", "in", "out"}], "base_model", "use_dora", "use_rslora"; checkpoint: "step" and
// what it holds. Error only where nothing can be read.
Json inspect_path(const std::string& path);

}  // namespace graft
