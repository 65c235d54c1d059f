// The rows of grid_table.h, one text for the scalar reference and for every vector target. No guard and no namespace: it is
// included inside the namespace of grid_ref_inl.h and of grid_simd.cc. They bring `hn`, RowTag and LaneTag with kRowLanes lanes and one,
//   store_past(d, v, to), flush_past()

// (above + below) + (left + right) - 4 x
template <class D, class V = hn::Vec<D>>
HWY_INLINE V laplacian(D d, V above, V below, V left, V right, V x) {
  return hn::MulAdd(hn::Set(d, -4.0f), x, hn::Add(hn::Add(above, below), hn::Add(left, right)));
}

// cell(d, laplacian, x, j) over a row.
template <class Cell>
HWY_INLINE void over_row(const float* above, const float* row, const float* below, float* y, int64_t width,
                         bool periodic, const Cell& cell) {
  const auto value = [=](auto d, int64_t j, int64_t left, int64_t right) HWY_ATTR {
    const auto x = hn::LoadU(d, row + j);
    const auto l = laplacian(d, hn::LoadU(d, above + j), hn::LoadU(d, below + j), hn::LoadU(d, row + left),
                             hn::LoadU(d, row + right), x);
    return cell(d, l, x, j);
  };
  const LaneTag one;
  const RowTag many;
  const int64_t last = width - 1;
  if (periodic) {
    const auto first_cell = value(one, 0, last, width > 1 ? 1 : 0);
    if (last > 0) hn::StoreU(value(one, last, last - 1, 0), one, y + last);
    hn::StoreU(first_cell, one, y);
  } else {
    y[0] = row[0];
    y[last] = row[last];
  }
  if (last - 1 < kRowLanes) {
    for (int64_t j = 1; j < last; ++j) hn::StoreU(value(one, j, j - 1, j + 1), one, y + j);
    return;
  }
  // The last vector overlaps the one before it; it is computed first, as y may be what a cell reads of itself.
  const int64_t tail = last - kRowLanes;
  const auto end = value(many, tail, tail - 1, tail + 1);
  for (int64_t j = 1; j < tail; j += kRowLanes) hn::StoreU(value(many, j, j - 1, j + 1), many, y + j);
  hn::StoreU(end, many, y + tail);
}

void heat(const float* above, const float* row, const float* below, float r, float* y, int64_t width,
          bool periodic) noexcept {
  over_row(above, row, below, y, width, periodic,
           [=](auto d, auto l, auto x, int64_t /*j*/) HWY_ATTR { return hn::MulAdd(hn::Set(d, r), l, x); });
}
void wave(const float* above, const float* row, const float* below, const float* before, float c2, float* y,
          int64_t width, bool periodic) noexcept {
  over_row(above, row, below, y, width, periodic, [=](auto d, auto l, auto x, int64_t j) HWY_ATTR {
    return hn::MulAdd(hn::Set(d, c2), l, hn::MulSub(hn::Set(d, 2.0f), x, hn::LoadU(d, before + j)));
  });
}

template <class D, size_t... I>
HWY_INLINE void stencil_block(D d, const float* const* source, const float* coeffs, int64_t m, float* y, int64_t j,
                              bool past, std::index_sequence<I...> /*vectors*/) {
  hn::Vec<D> sum[] = {((void)I, hn::Zero(d))...};
  for (int64_t k = 0; k < m; ++k) {
    const auto c = hn::Set(d, coeffs[k]);
    const float* from = source[k] + j;
    ((sum[I] = hn::MulAdd(c, hn::LoadU(d, from + static_cast<int64_t>(I) * kRowLanes), sum[I])), ...);
  }
  if (past) {
    ((store_past(d, sum[I], y + j + static_cast<int64_t>(I) * kRowLanes)), ...);
  } else {
    ((hn::StoreU(sum[I], d, y + j + static_cast<int64_t>(I) * kRowLanes)), ...);
  }
}
void stencil(const float* const* source, const float* coeffs, int64_t m, float* y, int64_t n, bool past) noexcept {
  constexpr int64_t kVectors = 4;
  int64_t j = 0;
  if (past) {
    const auto apart = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(float) % kRowLanes);
    const int64_t head = apart == 0 ? 0 : kRowLanes - apart;
    for (; j < n && j < head; ++j) stencil_block(LaneTag(), source, coeffs, m, y, j, false, std::index_sequence<0>());
  }
  for (; j + kVectors * kRowLanes <= n; j += kVectors * kRowLanes) {
    stencil_block(RowTag(), source, coeffs, m, y, j, past, std::make_index_sequence<kVectors>());
  }
  for (; j + kRowLanes <= n; j += kRowLanes) {
    stencil_block(RowTag(), source, coeffs, m, y, j, past, std::index_sequence<0>());
  }
  if (past) flush_past();
  if (j < n && n >= kRowLanes) {  // the last vector overlaps the one before it
    return stencil_block(RowTag(), source, coeffs, m, y, n - kRowLanes, false, std::index_sequence<0>());
  }
  for (; j < n; ++j) stencil_block(LaneTag(), source, coeffs, m, y, j, false, std::index_sequence<0>());
}
