// The scalar reference without the fused multiply-add instruction.
#define GRAFT_REF ref
#include "graft/kernels/gemm_ref_inl.h"
