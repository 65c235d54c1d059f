// The checked entry of every kernel: borrowed memory, in-place calls, overlap, wrong types and shapes.

#include "graft/kernels/kernel_call.h"

#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

constexpr int64_t kCallSize = 500;

// Memory for a tensor that is aligned to its elements alone.
class Arena {
 public:
  explicit Arena(size_t bytes) : bytes_(bytes + 128) {}
  std::byte* at(size_t offset) {
    return bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) + offset;
  }

 private:
  std::vector<std::byte> bytes_;
};

size_t width(DType dtype) { return static_cast<size_t>(dtype_bits(dtype)) / 8; }

std::vector<std::byte> bytes_of(const KernelTensor& t) { return {t.data.data(), t.data.data() + t.bytes()}; }

using Results = std::map<std::string, std::vector<std::byte>, std::less<>>;

Results run(const KernelInfo& kernel, Context& context, KernelCall& call) {
  context.reserve(kernel.prepare(call));
  kernel.run(context, call);
  Results results;
  for (const auto& [name, t] : call.outputs()) results[name] = bytes_of(t);
  return results;
}

// A call and what the kernel gives for it in memory of its own.
struct Example {
  Example(const KernelInfo& row, Context& context) : kernel(row) {
    kernel.example(owned, kCallSize, 3);
    wanted = run(kernel, context, owned);
    kernel.prepare(owned);
    for (const auto& [output, t] : owned.outputs()) shapes[output] = t.shape;
  }
  // A call of the same inputs, borrowed from arenas of their own, `shift` bytes behind 64-byte alignment.
  KernelCall borrowed(bool unaligned) {
    KernelCall call;
    for (const auto& [name, text] : owned.parameters()) call.set_parameter(name, text);
    for (const auto& [name, t] : owned.inputs()) {
      std::byte* memory = arena(name, t.bytes() + 4096)->at(unaligned ? width(t.dtype) : 0);
      std::copy_n(t.data.data(), t.bytes(), memory);
      call.borrow_input(name, t.dtype, t.shape, memory);
    }
    return call;
  }
  Arena* arena(const std::string& name, size_t bytes) {
    return &arenas.insert_or_assign(name, Arena(std::max(bytes, largest()))).first->second;
  }
  // The shape of an output as the kernel makes it: a run may have shortened it.
  const std::vector<int64_t>& shape(const std::string& name) const { return shapes.at(name); }
  size_t largest() const {
    size_t most = 0;
    for (const auto& [name, t] : owned.outputs()) most = std::max(most, t.data.bytes() + 64);
    return most;
  }
  const KernelInfo& kernel;
  KernelCall owned;
  Results wanted;
  std::map<std::string, Arena> arenas;
  std::map<std::string, std::vector<int64_t>> shapes;
};

bool in_place(const KernelInfo& kernel, std::string_view output, std::string_view input) {
  return fmt::format(" {} ", kernel.in_place).find(fmt::format(" {}={} ", output, input)) != std::string::npos;
}

TEST(KernelCall, BorrowedMemoryOfAnyAlignmentGivesTheSameBits) {
  test::TestContext t(2);
  for (const KernelInfo& kernel : kernel_registry()) {
    Example example(kernel, t.context);
    for (const bool unaligned : {false, true}) {
      KernelCall call = example.borrowed(unaligned);
      std::map<std::string, const std::byte*> memory;
      for (const auto& [name, output] : example.owned.outputs()) {
        std::byte* at = example.arena("out " + name, output.data.bytes())->at(unaligned ? width(output.dtype) : 0);
        call.borrow_output(name, output.dtype, example.shape(name), at);
        memory[name] = at;
      }
      EXPECT_EQ(run(kernel, t.context, call), example.wanted) << kernel.name << (unaligned ? ", unaligned" : "");
      for (const auto& [name, at] : memory) EXPECT_EQ(call.outputs().at(name).data.data(), at) << kernel.name;
    }
  }
}

TEST(KernelCall, OutputsMayLieOnInputsWhereTheRowSaysSo) {
  test::TestContext t(2);
  int64_t pairs = 0;
  for (const KernelInfo& kernel : kernel_registry()) {
    Example example(kernel, t.context);
    for (const auto& [output, made] : example.owned.outputs()) {
      for (const auto& [input, given] : example.owned.inputs()) {
        if (!in_place(kernel, output, input)) continue;
        ++pairs;
        KernelCall call = example.borrowed(true);
        call.borrow_output(output, made.dtype, example.shape(output), call.inputs().at(input).data.data());
        EXPECT_EQ(run(kernel, t.context, call), example.wanted) << kernel.name << ": " << output << " at " << input;
      }
    }
  }
  EXPECT_GE(pairs, 50);
  // Every word of every row names a pair that there is; prng_philox has its counters in its other form.
  for (const KernelInfo& kernel : kernel_registry()) {
    if (kernel.name != "prng_philox")
      pairs -= kernel.in_place.empty() ? 0 : 1 + std::ranges::count(kernel.in_place, ' ');
  }
  EXPECT_EQ(pairs, 0);
}

TEST(KernelCall, OtherOverlapIsAnErrorOfEveryKernel) {
  test::TestContext t(1);
  const auto refused = [](const KernelInfo& kernel, KernelCall& call, const std::string& what) {
    try {
      kernel.prepare(call);
      ADD_FAILURE() << kernel.name << ": " << what << " was taken";
    } catch (const Error& e) {
      EXPECT_NE(std::string_view(e.what()).find("overlap"), std::string_view::npos) << kernel.name << ": " << e.what();
    }
  };
  for (const KernelInfo& kernel : kernel_registry()) {
    Example example(kernel, t.context);
    for (const auto& [output, made] : example.owned.outputs()) {
      for (const auto& [input, given] : example.owned.inputs()) {
        KernelCall call = example.borrowed(false);
        std::byte* memory = call.inputs().at(input).data.data();
        if (!in_place(kernel, output, input)) {
          call.borrow_output(output, made.dtype, example.shape(output), memory);
          refused(kernel, call, output + " at " + input);
        }
        if (given.bytes() <= 8) continue;
        call.borrow_output(output, made.dtype, example.shape(output), memory + 8);  // no type is wider
        refused(kernel, call, output + " within " + input);
      }
      for (const auto& [other, beside] : example.owned.outputs()) {
        if (other <= output) continue;
        KernelCall call = example.borrowed(false);
        std::byte* memory = example.arena("out", 2 * example.largest())->at(0);
        call.borrow_output(output, made.dtype, example.shape(output), memory);
        call.borrow_output(other, beside.dtype, example.shape(other), memory);
        refused(kernel, call, output + " at " + other);
      }
    }
  }
}

TEST(KernelCall, WrongTypesAndShapesAreErrorsOfEveryKernel) {
  test::TestContext t(1);
  for (const KernelInfo& kernel : kernel_registry()) {
    Example example(kernel, t.context);
    for (const auto& [input, given] : example.owned.inputs()) {
      KernelCall none = example.borrowed(false);
      none.add_input(input, given.dtype == DType::kI8 ? DType::kF32 : DType::kI8, given.shape);
      if (kernel.name != "rms_norm" || input != "beta") {  // its example has more than it reads
        EXPECT_THROW(kernel.prepare(none), Error) << kernel.name << ": type of " << input;
      }
      // Every other shape of an input is refused, or is a call that runs.
      for (const int change : {0, 1, 2, 3}) {
        std::vector<int64_t> shape = given.shape;
        if (change == 0) shape.push_back(1);
        if (change == 1) shape.erase(shape.begin());
        if (change == 2) shape[0] += 1;
        if (change == 3) shape.back() = 0;
        KernelCall call = example.borrowed(false);
        call.add_input(input, given.dtype, shape);
        try {
          run(kernel, t.context, call);
        } catch (const Error& e) {
          EXPECT_FALSE(std::string_view(e.what()).empty());
        }
      }
    }
    for (const auto& [output, made] : example.owned.outputs()) {
      std::byte* memory = example.arena("out", 2 * example.largest())->at(0);
      std::vector<int64_t> shape = example.shape(output);
      KernelCall type = example.borrowed(false);
      type.borrow_output(output, made.dtype == DType::kI8 ? DType::kF32 : DType::kI8, shape, memory);
      EXPECT_THROW(kernel.prepare(type), Error) << kernel.name << ": type of " << output;
      shape.push_back(1);
      KernelCall rank = example.borrowed(false);
      rank.borrow_output(output, made.dtype, shape, memory);
      EXPECT_THROW(kernel.prepare(rank), Error) << kernel.name << ": rank of " << output;
      shape.pop_back();
      shape[0] -= 1;
      KernelCall shorter = example.borrowed(false);
      shorter.borrow_output(output, made.dtype, shape, memory);
      EXPECT_THROW(kernel.prepare(shorter), Error) << kernel.name << ": shape of " << output;
    }
  }
}

TEST(KernelCall, BorrowedMemoryIsThereAndAligned) {
  KernelCall call;
  alignas(64) float x[4] = {};
  EXPECT_THROW(call.borrow_input("x", DType::kF32, {4}, nullptr), Error);
  EXPECT_THROW(call.borrow_input("x", DType::kF32, {4}, reinterpret_cast<std::byte*>(x) + 1), Error);
  EXPECT_THROW(call.borrow_input("x", DType::kF32, {-1}, x), Error);
  call.borrow_input("x", DType::kF32, {0}, nullptr);
  call.borrow_input("x", DType::kF4, {4}, reinterpret_cast<std::byte*>(x) + 1);
  call.borrow_output("y", DType::kF32, {4}, nullptr);
  call.borrow_input("x", DType::kF32, {4}, x);
  EXPECT_THROW(find_kernel("map_abs")->prepare(call), Error);
  call.borrow_output("y", DType::kF32, {4}, x);
  find_kernel("map_abs")->prepare(call);
  EXPECT_EQ(call.outputs().at("y").data.data(), reinterpret_cast<std::byte*>(x));
}

}  // namespace
}  // namespace graft
