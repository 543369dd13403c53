// Spans of time and amounts of bytes as people write them.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace warmfork::service {

/// Reads a span as in systemd.time(7): "90", "10min", "1h 30min", "1.5s"; seconds where no unit is
/// given, units from ms to weeks. "infinity" is 0, which stands for never. Returns nothing where it
/// is no such text, is more than a hundred years, or less than a millisecond without being 0.
[[nodiscard]] std::optional<std::chrono::milliseconds> parse_time_span(std::string_view text);

/// Returns the shortest text that parse_time_span reads as this span.
[[nodiscard]] std::string print_time_span(std::chrono::milliseconds span);

/// Reads "4096", "512K", "2G": K, M, G and T are powers of 1024. Returns nothing where it is no
/// such text, or more than 2^63-1, which is as far as an integer of TOML goes.
[[nodiscard]] std::optional<std::uint64_t> parse_bytes(std::string_view text);

}  // namespace warmfork::service
