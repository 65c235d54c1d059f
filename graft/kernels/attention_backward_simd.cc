#include "graft/kernels/attention_table.h"
namespace graft { AttentionBackward attention_backward_simd() noexcept { return nullptr; } }
