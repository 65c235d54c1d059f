#include "graft/kernels/math_ref_inl.h"
#include "graft/kernels/math_table.h"

namespace graft {

const MathTable kMathFma = {exp_chain, log_chain,    exp_chain,          log_chain,
                            pow_chain, sincos_chain, sincos_turns_chain, mul_then_add};

}  // namespace graft
