#pragma once

#include <cstdlib>

namespace graft::test {

// Set by ./dev test --all. Without it, suites named Slow… run only when a filter asks for them (support/main.cc).
inline bool runs_slow() { return std::getenv("GRAFT_SLOW") != nullptr; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace graft::test
