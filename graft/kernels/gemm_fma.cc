// The scalar reference with the fused multiply-add instruction where the CPU has one (cmake/graft.cmake sets the flag).
#define GRAFT_REF fma
#include "graft/kernels/gemm_ref_inl.h"
