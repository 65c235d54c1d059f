#include "graft/kernels/pointwise_loss_ref_inl.h"

namespace graft {

const PointwiseLossTable& pointwise_loss_ref() noexcept { return kTable; }

}  // namespace graft
