#include "service/configuration_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "service/quantities.hpp"
#include "service/suggestion.hpp"

namespace warmfork::service {
namespace {

constexpr std::size_t kLongestShown = 60;

constexpr std::array<std::pair<std::string_view, warmfork_on_stale>, 3> kOnStale{{
    {"cold", WARMFORK_STALE_COLD},
    {"wait", WARMFORK_STALE_WAIT},
    {"serve", WARMFORK_STALE_SERVE},
}};

/// Prints a number, a truth value or a time. It does not use the library's formatter, which needs
/// libm: the command line, started for each command, would wait for it to be loaded.
std::string print_node(const toml::node& node) {
    std::ostringstream text;
    node.visit([&](const auto& value) {
        if constexpr (toml::is_number<decltype(value)>)
            text << fmt::format("{}", *value);
        else if constexpr (toml::is_boolean<decltype(value)>)
            text << (*value ? "true" : "false");
        else if constexpr (toml::is_date<decltype(value)> || toml::is_time<decltype(value)> ||
                           toml::is_date_time<decltype(value)>)
            text << *value;
    });
    return text.str();
}

/// Returns the text as a message shows it, not longer than people like to read.
std::string shown(std::string_view text) {
    if (text.size() <= kLongestShown) return printed_text(text);
    std::size_t end = kLongestShown;
    while (end > 0 && (text[end] & 0xc0) == 0x80) --end;  // not within a character of UTF-8
    return printed_text(std::string(text.substr(0, end)) + "...");
}

std::string describe(const toml::node& node) {
    if (const auto text = node.value_exact<std::string_view>()) return "the text " + shown(*text);
    if (node.is_number()) return "the number " + print_node(node);
    if (node.is_boolean()) return print_node(node);
    if (node.is_array()) return "an array";
    if (node.is_table()) return "a table";
    return "the time " + print_node(node);
}

}  // namespace

std::string printed_text(std::string_view text) {
    return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string printed_key(std::string_view key) {
    const bool is_bare = !key.empty() && std::ranges::all_of(key, [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
    return is_bare ? std::string(key) : printed_text(key);
}

std::string printed_list(const std::vector<std::string>& texts) {
    std::string list;
    for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + printed_text(text);
    return "[" + list + "]";
}

Position position_of(const toml::source_region& source) {
    return {source.path ? *source.path : std::string(), source.begin.line, source.begin.column};
}

void Reading::note(const std::string& key, const toml::node& value) {
    origins[key] = position_of(value.source());
}

void Reading::fail(const Position& where, std::string text) {
    errors.push_back({where, std::move(text), template_name});
}

void Reading::expected(const std::string& key, const toml::node& value, std::string_view expected) {
    fail(position_of(value.source()),
         fmt::format("{}: expected {}, found {}", key, expected, describe(value)));
}

std::optional<Text::Value> Text::read(Reading& reading, const std::string& key,
                                      const toml::node& value) const {
    auto text = value.value_exact<std::string>();
    // A NUL would end the text in the middle. Its length is limited by that of the file.
    if (text && text->find('\0') == std::string::npos && (!is_valid || is_valid(*text)))
        return text;
    reading.expected(key, value, expected);
    return {};
}

std::optional<TextList::Value> TextList::read(Reading& reading, const std::string& key,
                                              const toml::node& value) const {
    const toml::array* const array = value.as_array();
    if (!array || (array->empty() && !may_be_empty)) {
        reading.expected(key, value,
                         fmt::format("an array of texts{}, as in {}",
                                     may_be_empty ? "" : " with at least one", example));
        return {};
    }
    Value texts;
    for (std::size_t i = 0; i < array->size(); ++i)
        if (auto text = element.read(reading, fmt::format("{}[{}]", key, i), (*array)[i]))
            texts.push_back(std::move(*text));
    if (texts.size() < array->size()) return {};
    return texts;
}

std::optional<bool> Flag::read(Reading& reading, const std::string& key,
                               const toml::node& value) const {
    const auto flag = value.value_exact<bool>();
    if (!flag) reading.expected(key, value, "true or false");
    return flag;
}

std::optional<std::optional<std::uint64_t>> AmountRange::read_any(Reading& reading,
                                                                  const std::string& key,
                                                                  const toml::node& value) const {
    using Number = std::optional<std::uint64_t>;
    const auto text = value.value_exact<std::string_view>();
    if (may_be_infinite && text == "infinity") return Number();
    Number number;
    if (text && in_bytes) number = parse_bytes(*text);
    if (const auto integer = value.value_exact<std::int64_t>(); integer && *integer >= 0)
        number = static_cast<std::uint64_t>(*integer);
    if (number && *number >= least && *number <= most) return number;
    reading.expected(
        key, value,
        fmt::format("{} from {} to {}{}",
                    in_bytes ? "bytes, a number or a text such as \"64M\"," : "a number", least,
                    most, may_be_infinite ? ", or \"infinity\"" : ""));
    return {};
}

std::optional<TimeSpan::Value> TimeSpan::read(Reading& reading, const std::string& key,
                                              const toml::node& value) const {
    std::optional<Value> span;
    if (const auto text = value.value_exact<std::string_view>()) span = parse_time_span(*text);
    // It goes by way of a text, so that the same limits hold.
    if (const auto seconds = value.value_exact<std::int64_t>())
        span = parse_time_span(std::to_string(*seconds));
    if (!span)
        reading.expected(
            key, value, "a number of seconds or a text such as \"90s\", \"10min\" or \"infinity\"");
    return span;
}

std::string TimeSpan::print(Value value) const {
    return printed_text(print_time_span(value));
}

std::optional<OnStale::Value> OnStale::read(Reading& reading, const std::string& key,
                                            const toml::node& value) const {
    const auto text = value.value_exact<std::string_view>();
    std::vector<std::string> names;
    for (const auto& [name, meaning] : kOnStale) {
        if (text == name) return meaning;
        names.emplace_back(name);
    }
    reading.expected(key, value, "\"cold\", \"wait\" or \"serve\"");
    if (text) reading.errors.back().text += suggestion(*text, names);
    return {};
}

std::string OnStale::print(Value value) const {
    return printed_text(
        std::ranges::find(kOnStale, value, [](const auto& entry) { return entry.second; })->first);
}

}  // namespace warmfork::service
