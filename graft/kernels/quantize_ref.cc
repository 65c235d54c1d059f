#include "graft/kernels/quantize_ref_inl.h"

namespace graft {

const QuantizeTable& quantize_ref() noexcept { return kTable; }

}  // namespace graft
