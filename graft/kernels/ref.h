#pragma once

// The scalar reference of a kernel family. Its plain loops stand in NAME_ref_inl.h as templates over float and double
// in an anonymous namespace and are compiled twice: by NAME_ref.cc, and by NAME_fma.cc, which CMake gives the fused
// multiply-add instruction (x86). Both give the same bits; without the instruction std::fma is a slow library call.
// Anonymous namespaces keep the linker from merging the two.

#include "graft/base/cpu.h"

namespace graft {

// The build of the reference that this CPU can run.
template <typename Table>
const Table& pick_reference(const Table& plain, const Table& fma) noexcept {
  return cpu_has_fma() ? fma : plain;
}

}  // namespace graft
