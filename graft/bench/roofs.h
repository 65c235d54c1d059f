#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/buffer.h"
#include "graft/base/thread_pool.h"

namespace graft {

struct MachineTable;

// How a kernel moves its bytes: the roofs of bandwidth are measured for the same mix.
// Reads : writes as 1 : 0, 1 : 1, 2 : 1, 0 : 1; then the two that write where they read, 1 : 1 in one array and 2 : 1 in two, which need no second
// line for a write and stay in a smaller cache.
enum class Mix : uint8_t { kRead, kCopy, kTriad, kWrite, kUpdate, kAccumulate };
std::string_view mix_name(Mix mix);
Mix mix_of(double bytes_read, double bytes_written, bool in_place = false);  // the nearest

// "L1", "L2", "L3" or "memory": where a working set of that many bytes lies, shared by so many threads.
std::string_view memory_level(double bytes, int threads);

// What this machine's caches and memory give at best for a mix and a working set, measured a millisecond at a time, in turns with
// what is compared with it: other users of the machine take bandwidth within seconds. The best of reading in one stream or eight, and of
// ordinary stores or those past the cache; always with the widest vectors.
class BandwidthRoofs {
 public:
  explicit BandwidthRoofs(ThreadPool& pool);
  // 10^9 bytes a second, read and written, now. The working set is cut off at 8 times the last cache.
  double measure(Mix mix, double working_set_bytes);

 private:
  double once(Mix mix, int64_t floats, bool other,
              int64_t passes);  // GB/s; other: eight streams, or stores past the cache
  ThreadPool* pool_;
  const MachineTable* table_;
  Buffer data_;
  std::map<std::pair<Mix, int64_t>, int64_t> passes_;  // in a slice, by mix and floats
};

// One figure of the machine's table: a mix at a cache level.
struct RoofFigure {
  std::string level;
  Mix mix = Mix::kRead;
  double bytes = 0, gbps = 0;
};
// Every mix in every level of the memory (the second best of several short runs each), for the roofline plot. About a second.
std::vector<RoofFigure> measure_roofs(ThreadPool& pool, BandwidthRoofs& roofs);

}  // namespace graft
