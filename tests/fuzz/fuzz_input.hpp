// What the fuzzers share: an input that is taken apart piece by piece, and what happens when a
// promise is broken.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

namespace warmfork::fuzz {

/// The bytes of an input, which are taken from the front. What is no longer there reads as 0 or
/// empty.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size)
        : rest_(reinterpret_cast<const std::byte*>(data), size) {}

    bool empty() const { return rest_.empty(); }

    template <typename Integer>
    Integer number() {
        Integer value{};
        const std::span<const std::byte> taken = bytes(sizeof value);
        if (!taken.empty()) std::memcpy(&value, taken.data(), taken.size());
        return value;
    }
    std::span<const std::byte> bytes(std::size_t size) {
        const std::span<const std::byte> taken = rest_.first(std::min(size, rest_.size()));
        rest_ = rest_.subspan(taken.size());
        return taken;
    }
    std::span<const std::byte> rest() { return bytes(rest_.size()); }

  private:
    std::span<const std::byte> rest_;
};

inline std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Ends the run, as a fault that the sanitizers see does, where something does not hold that must
/// hold for every input.
inline void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "This must hold for every input, and does not: %s\n", what);
    std::abort();
}

}  // namespace warmfork::fuzz
