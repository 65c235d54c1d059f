#include "graft/base/error.h"
#include "graft/models/decoder.h"

namespace graft {

extern const Family kLlama, kMistral, kQwen2, kQwen3, kMixtral, kQwen3Moe, kQwen2Moe, kGraftMoe;

namespace {

// Explicit: a static initializer would vanish from a static library.
const Family* const kFamilies[] = {&kLlama, &kMistral, &kQwen2, &kQwen3, &kMixtral, &kQwen3Moe, &kQwen2Moe, &kGraftMoe};

}  // namespace

std::vector<std::string_view> supported_model_types() {
  std::vector<std::string_view> names;
  for (const Family* family : kFamilies) names.push_back(family->model_type);
  return names;
}

const Family& family_of(const ModelConfig& config) {
  for (const Family* family : kFamilies) {
    if (family->model_type == config.model_type) return *family;
  }
  fail("{}: model_type is '{}', known are {}", config.where, printable(config.model_type),
       fmt::join(supported_model_types(), ", "));
}

}  // namespace graft
