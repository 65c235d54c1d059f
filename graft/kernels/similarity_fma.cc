#include "graft/kernels/similarity_ref_inl.h"

namespace graft {

const SimilarityTable& similarity_fma_ref() noexcept { return kTable; }

}  // namespace graft
