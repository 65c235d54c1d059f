#pragma once

namespace graft {

// A loss over all elements or rows, summed in f64 and rounded once.
struct LossValue {
  float sum, mean;
};

}  // namespace graft
