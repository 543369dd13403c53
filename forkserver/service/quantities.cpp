#include "service/quantities.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

namespace warmfork::service {
namespace {

using std::chrono::milliseconds;

struct Unit {
    std::string_view name;
    std::int64_t milliseconds;
};

constexpr std::int64_t kSecond = 1000, kMinute = 60 * kSecond, kHour = 60 * kMinute,
                       kDay = 24 * kHour, kWeek = 7 * kDay;
constexpr std::array kUnits = std::to_array<Unit>({
    {"", kSecond},    {"ms", 1},           {"msec", 1},          {"s", kSecond},
    {"sec", kSecond}, {"second", kSecond}, {"seconds", kSecond}, {"m", kMinute},
    {"min", kMinute}, {"minute", kMinute}, {"minutes", kMinute}, {"h", kHour},
    {"hr", kHour},    {"hour", kHour},     {"hours", kHour},     {"d", kDay},
    {"day", kDay},    {"days", kDay},      {"w", kWeek},         {"week", kWeek},
    {"weeks", kWeek},
});
constexpr double kMost = 100.0 * 365 * kDay;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Takes what `belongs` off the front.
std::string_view take(std::string_view& text, bool (*belongs)(char)) {
    const auto end = std::find_if_not(text.begin(), text.end(), belongs);
    const std::string_view taken = text.substr(0, static_cast<std::size_t>(end - text.begin()));
    text.remove_prefix(taken.size());
    return taken;
}

void skip_blanks(std::string_view& text) {
    take(text, [](char c) { return c == ' ' || c == '\t'; });
}

/// Takes a number as "1" or "1.5", but not "1." or ".5".
std::optional<double> take_number(std::string_view& text) {
    const std::string digits(take(text, [](char c) { return is_digit(c) || c == '.'; }));
    if (digits.empty() || !is_digit(digits.front()) || !is_digit(digits.back())) return {};
    char* end;
    const double number = std::strtod(digits.c_str(), &end);  // from_chars would need libm
    if (*end != '\0') return {};
    return number;
}

}  // namespace

std::optional<milliseconds> parse_time_span(std::string_view text) {
    if (text == "infinity") return milliseconds(0);
    skip_blanks(text);
    if (text.empty()) return {};
    double total = 0;
    while (!text.empty()) {
        const std::optional<double> number = take_number(text);
        if (!number) return {};
        skip_blanks(text);
        const std::string_view name = take(text, is_letter);
        skip_blanks(text);
        const auto unit = std::ranges::find(kUnits, name, &Unit::name);
        if (unit == kUnits.end()) return {};
        total += *number * static_cast<double>(unit->milliseconds);
        if (total > kMost) return {};
    }
    if (total > 0 && total < 1) return {};
    return milliseconds(std::llround(total));
}

std::string print_time_span(milliseconds span) {
    if (span.count() == 0) return "infinity";
    for (const auto& [name, length] : {Unit{"h", kHour}, Unit{"min", kMinute}, Unit{"s", kSecond}})
        if (span.count() % length == 0) return fmt::format("{}{}", span.count() / length, name);
    return fmt::format("{}ms", span.count());
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) {
    constexpr std::string_view kSuffixes = "KMGT";
    std::uint64_t number = 0;
    const char* const last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, number);
    if (error != std::errc{}) return {};
    const std::string_view suffix(end, static_cast<std::size_t>(last - end));
    std::size_t shift = 0;
    if (!suffix.empty()) {
        const std::size_t place = kSuffixes.find(suffix);
        if (suffix.size() != 1 || place == std::string_view::npos) return {};
        shift = 10 * (place + 1);
    }
    const std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    if (number > most >> shift) return {};
    return number << shift;
}

}  // namespace warmfork::service
