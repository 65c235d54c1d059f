// The rows of linear algebra (linalg.h) in the registry.

#include <algorithm>
#include <cmath>

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/linalg.h"

namespace graft {
namespace {

template <typename T, size_t kRank>
View<T, static_cast<int>(kRank)> output_view(std::span<T> x, std::array<int64_t, kRank> extents) {
  std::array<int64_t, kRank> strides;
  int64_t stride = 1;
  for (size_t i = kRank; i-- > 0;) {
    strides[i] = stride;
    stride *= extents[i];
  }
  return View<T, static_cast<int>(kRank)>(x.data(), extents, strides);
}

// ---- matmul_batched

ScratchNeed prepare_matmul(KernelCall& call) {
  const auto a = call.in_view<float, 3>("a"), b = call.in_view<float, 3>("b");
  GRAFT_CHECK(a.extent(0) == b.extent(0) && a.extent(2) == b.extent(1),
              "inputs 'a' [{}] and 'b' [{}] do not multiply, expected [B, M, K] and [B, K, N]",
              fmt::join(a.extents(), ", "), fmt::join(b.extents(), ", "));
  call.make("c", DType::kF32, {a.extent(0), a.extent(1), b.extent(2)});
  return matmul_batched_scratch(a.extent(1), a.extent(2), b.extent(2));
}
void run_matmul(Context& context, KernelCall& call) {
  const auto a = call.in_view<float, 3>("a"), b = call.in_view<float, 3>("b");
  matmul_batched(context, a, b, output_view(call.out<float>("c"), std::array{a.extent(0), a.extent(1), b.extent(2)}));
}
double matmul_bytes(const KernelCall& call) {
  const auto &a = call.in_shape("a"), &b = call.in_shape("b");
  return 4 *
         (length_of(call, "a") + length_of(call, "b") + static_cast<double>(a[0]) * static_cast<double>(a[1] * b[2]));
}
double matmul_flops(const KernelCall& call) {
  return 2 * length_of(call, "a") * static_cast<double>(call.in_shape("b")[2]);
}
void example_matmul(KernelCall& call, int64_t size, uint64_t seed) {
  if (size == 1000000 || size == 10000000) {
    const int64_t batch = size == 1000000 ? 1 : 64;
    add_uniform(call, "a", {batch, 128, 128}, seed);
    add_uniform(call, "b", {batch, 128, 128}, seed);
    return;
  }
  const auto side = std::max<int64_t>(1, static_cast<int64_t>(std::sqrt(static_cast<double>(size) / 3)));
  const int64_t summed = size == 20001 ? 1024 : side + 5;  // blocks of K, and rows that meet in few sets of a cache
  add_uniform(call, "a", {3, side, summed}, seed);
  add_uniform(call, "b", {3, summed, side + 2}, seed);
}

// ---- matvec

ScratchNeed prepare_matvec(KernelCall& call) {
  const auto a = call.in_view<float, 2>("a");
  call.in_view<float, 1>("x");
  GRAFT_CHECK(call.in_shape("x")[0] == a.extent(1), "input 'x' has {} elements, expected {}, the columns of 'a'",
              call.in_shape("x")[0], a.extent(1));
  call.make("y", DType::kF32, {a.extent(0)});
  return {};
}
void run_matvec(Context& context, KernelCall& call) {
  matvec(context, call.in_view<float, 2>("a"), call.in<float>("x"), call.out<float>("y"));
}
template <int kPer>
double per_entry(const KernelCall& call) {
  return kPer * length_of(call, "a");
}
void example_matvec(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t columns = size == 1000000    ? 1024
                          : size == 10000000 ? 4096
                          : size == 20001    ? 5000
                                             : std::min<int64_t>(size, 77);
  add_uniform(call, "a", {size >= 1000000 ? columns : size / columns, columns}, seed);
  add_uniform(call, "x", {columns}, seed);
}

// ---- spmv_csr

ScratchNeed prepare_spmv(KernelCall& call) {
  const auto values = call.in<float>("values");
  const auto columns = call.in<uint32_t>("col_idx"), rows = call.in<uint32_t>("row_ptr");
  const auto x = call.in<float>("x");
  GRAFT_CHECK(values.size() == columns.size(), "input 'values' has {} elements and 'col_idx' {}, expected as many",
              values.size(), columns.size());
  GRAFT_CHECK(!rows.empty() && rows.front() == 0 && rows.back() == values.size(),
              "input 'row_ptr' must begin with 0 and end with {}, the number of values", values.size());
  GRAFT_CHECK(std::is_sorted(rows.begin(), rows.end()), "input 'row_ptr' falls, expected ascending");
  GRAFT_CHECK(x.size() <= size_t{1} << 31, "input 'x' has {} elements, expected 2^31 at most", x.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    GRAFT_CHECK(columns[i] < x.size(), "input 'col_idx' is {} at {}, expected below {}, the length of 'x'", columns[i],
                i, x.size());
  }
  call.make("y", DType::kF32, {static_cast<int64_t>(rows.size()) - 1});
  return {};
}
void run_spmv(Context& context, KernelCall& call) {
  spmv_csr(context, {call.in<float>("values"), call.in<uint32_t>("col_idx"), call.in<uint32_t>("row_ptr")},
           call.in<float>("x"), call.out<float>("y"));
}
double spmv_bytes(const KernelCall& call) {
  return 8 * length_of(call, "values") + 8 * length_of(call, "row_ptr") - 4 + 4 * length_of(call, "x");
}
double spmv_flops(const KernelCall& call) { return 2 * length_of(call, "values"); }
void example_spmv(KernelCall& call, int64_t size, uint64_t seed) {
  const bool bench = size == 1000000 || size == 10000000;
  const int64_t rows = size == 1000000 ? 4096 : size == 10000000 ? 10000 : size / 20 + 1;
  const int64_t per_row = size == 1000000 ? 32 : size == 10000000 ? 100 : 20;
  const RandomStream stream(seed, stream_hash("rows"));
  std::vector<uint32_t> row_ptr = {0};
  for (int64_t r = 0; r < rows; ++r) {
    const auto draw = stream.word(static_cast<uint64_t>(r));
    // Elsewhere rows are empty, short, and one is longer than a block of a sum.
    const int64_t count = bench ? per_row : size == 20001 && r == 77 ? 5000 : draw % 5 == 3 ? 0 : draw % 40;
    row_ptr.push_back(row_ptr.back() + static_cast<uint32_t>(count));
  }
  const int64_t entries = row_ptr.back();
  add_uniform(call, "values", {entries}, seed);
  KernelTensor& columns = call.add_input("col_idx", DType::kU32, {entries});
  for (int64_t i = 0; i < entries; ++i) {
    columns.data.as<uint32_t>()[static_cast<size_t>(i)] =
        stream.word(static_cast<uint64_t>(rows + i)) % static_cast<uint32_t>(rows);
  }
  for (size_t r = 0; r + 1 < row_ptr.size(); ++r) {
    std::sort(columns.data.as<uint32_t>().begin() + row_ptr[r], columns.data.as<uint32_t>().begin() + row_ptr[r + 1]);
  }
  KernelTensor& pointers = call.add_input("row_ptr", DType::kU32, {rows + 1});
  std::copy(row_ptr.begin(), row_ptr.end(), pointers.data.as<uint32_t>().begin());
  add_uniform(call, "x", {rows}, seed);
}

// ---- triangular_solve

Triangle triangle_of(const KernelCall& call) { return {call.flag("lower", true), call.flag("unit_diagonal", false)}; }

ScratchNeed prepare_solve(KernelCall& call) {
  const auto a = call.in_view<float, 2>("a"), b = call.in_view<float, 2>("b");
  triangle_of(call);
  GRAFT_CHECK(a.extent(0) == a.extent(1) && a.extent(0) == b.extent(0),
              "inputs 'a' [{}] and 'b' [{}] are no system, expected [n, n] and [n, m]", fmt::join(a.extents(), ", "),
              fmt::join(b.extents(), ", "));
  call.make("x", DType::kF32, call.in_shape("b"));
  return triangular_solve_scratch(b.extent(0), b.extent(1));
}
void run_solve(Context& context, KernelCall& call) {
  const auto b = call.in_view<float, 2>("b");
  triangular_solve(context, call.in_view<float, 2>("a"), b, triangle_of(call),
                   View<float, 2>(call.out<float>("x").data(), b.extents(), b.strides()));
}
double solve_bytes(const KernelCall& call) {
  const auto& b = call.in_shape("b");
  return static_cast<double>(b[0]) * (2 * static_cast<double>(b[0]) + 8 * static_cast<double>(b[1]));
}
double solve_flops(const KernelCall& call) {
  const auto& b = call.in_shape("b");
  return static_cast<double>(b[0]) * static_cast<double>(b[0]) * static_cast<double>(b[1]);
}
// Off-diagonals of size 1 / sqrt n and a diagonal of 1 to 2: random triangles else are exponentially ill-conditioned.
void example_solve(KernelCall& call, int64_t size, uint64_t seed) {
  const bool bench = size == 1000000 || size == 10000000;
  const int64_t n = size == 1000000 ? 1024
                    : size == 10000000
                        ? 4096
                        : static_cast<int64_t>(std::sqrt(static_cast<double>(size))) + (size % 2 == 0 ? 0 : 3);
  const auto off = static_cast<float>(1 / std::sqrt(static_cast<double>(n)));
  const std::span<float> a = add_uniform(call, "a", {n, n}, seed, -off, off);
  for (int64_t i = 0; i < n; ++i) {
    float& pivot = a[static_cast<size_t>(i * n + i)];
    pivot = std::copysign(1 + std::fabs(pivot) / off, pivot);
  }
  add_uniform(call, "b", {n, bench ? 1 : size == 4097 ? 30 : size % 5 + 1}, seed);
  if (bench) return;
  call.set_parameter("lower", size % 2 == 0 || size == 7 ? "true" : "false");
  call.set_parameter("unit_diagonal", size == 20001 ? "true" : "false");
}

// ---- outer_product

ScratchNeed prepare_outer(KernelCall& call) {
  call.in_view<float, 1>("u");
  call.in_view<float, 1>("v");
  call.make("y", DType::kF32, {call.in_shape("u")[0], call.in_shape("v")[0]});
  return {};
}
void run_outer(Context& context, KernelCall& call) {
  outer_product(context, call.in<float>("u"), call.in<float>("v"),
                output_view(call.out<float>("y"), std::array{call.in_shape("u")[0], call.in_shape("v")[0]}));
}
template <int kPer>
double per_product(const KernelCall& call) {
  return kPer * length_of(call, "u") * length_of(call, "v");
}
void example_outer(KernelCall& call, int64_t size, uint64_t seed) {
  const int64_t rows = size == 1000000 ? 2048 : size == 10000000 ? 4096 : std::max<int64_t>(1, size / 100);
  add_uniform(call, "u", {rows}, seed);
  add_uniform(call, "v", {size >= 1000000 ? rows : std::min<int64_t>(size, 101)}, seed);
}

}  // namespace

std::span<const KernelInfo> linalg_kernels() {
  static constexpr std::string_view kDomain = "linalg";
  static constexpr KernelInfo kRows[] = {
      {"spmv_csr", kDomain, "y[R] = A x, A by rows", spmv_bytes, spmv_flops, prepare_spmv, run_spmv, example_spmv},
      {"matmul_batched", kDomain, "c[B,M,N] = a[B,M,K] b[B,K,N]", matmul_bytes, matmul_flops, prepare_matmul,
       run_matmul, example_matmul},
      {"matvec", kDomain, "y[R] = A[R,C] x", per_entry<4>, per_entry<2>, prepare_matvec, run_matvec, example_matvec},
      {"triangular_solve", kDomain, "x[n,m] with a[n,n] x = b", solve_bytes, solve_flops, prepare_solve, run_solve,
       example_solve, "x=b"},
      {"outer_product", kDomain, "y[m,n] = u[i] v[j]", per_product<4>, per_product<1>, prepare_outer, run_outer,
       example_outer},
  };
  return kRows;
}

}  // namespace graft
