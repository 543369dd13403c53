// One value of a file: what kind it must be of, and how it is printed.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "service/definitions.hpp"
#include "service/toml.hpp"

namespace warmfork::service {

/// Returns the text as a string of TOML, on one line; messages show it so as well.
[[nodiscard]] std::string printed_text(std::string_view text);
/// Returns the key as it stands before a '=', quoted where it must be.
[[nodiscard]] std::string printed_key(std::string_view key);
[[nodiscard]] std::string printed_list(const std::vector<std::string>& texts);

[[nodiscard]] Position position_of(const toml::source_region& source);

/// Takes note of what one definition's files say, and of what is wrong with it.
struct Reading {
    std::string template_name;  ///< empty: the daemon's
    Origins& origins;
    std::vector<ConfigurationError>& errors;

    void note(const std::string& key, const toml::node& value);
    void fail(const Position& where, std::string text);
    /// Adds the error "KEY: expected this, found that".
    void expected(const std::string& key, const toml::node& value, std::string_view expected);
};

// The kinds of values. Each has a type Value and
//   read:       the value; nothing, with an error added, if it is of another kind
//   print:      as TOML
//   is_default: has nothing to be printed unless files say it

struct Text {
    using Value = std::string;
    const char* expected = "";
    bool (*is_valid)(std::string_view) = nullptr;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const;
    [[nodiscard]] std::string print(const Value& value) const { return printed_text(value); }
    bool is_default(const Value& value) const { return value.empty(); }
};

struct TextList {
    using Value = std::vector<std::string>;
    Text element;
    const char* example;
    bool may_be_empty = true;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const;
    [[nodiscard]] std::string print(const Value& value) const { return printed_list(value); }
    bool is_default(const Value& value) const { return value.empty(); }
};

struct Flag {
    using Value = bool;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const;
    [[nodiscard]] std::string print(Value value) const { return value ? "true" : "false"; }
    bool is_default(Value) const { return false; }
};

/// An integer, and with `in_bytes` also a text such as "64M".
struct AmountRange {
    std::uint64_t least, most;
    bool in_bytes = false;
    bool may_be_infinite = false;  ///< with "infinity"; for OptionalAmount

    /// The outer nothing is an error, the inner one means infinite.
    [[nodiscard]] std::optional<std::optional<std::uint64_t>> read_any(
        Reading& reading, const std::string& key, const toml::node& value) const;
};

template <typename Number>
struct Amount : AmountRange {
    using Value = Number;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const {
        const auto number = read_any(reading, key, value);
        if (!number) return {};
        return static_cast<Number>(**number);
    }
    [[nodiscard]] std::string print(Value value) const { return std::to_string(value); }
    bool is_default(Value) const { return false; }
};

template <typename Number>
struct OptionalAmount : AmountRange {
    using Value = std::optional<Number>;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const {
        const auto number = read_any(reading, key, value);
        if (!number) return {};
        return *number ? Value(static_cast<Number>(**number)) : Value();
    }
    [[nodiscard]] std::string print(const Value& value) const {
        return value ? std::to_string(*value) : printed_text("infinity");
    }
    bool is_default(const Value& value) const { return !value; }
};

struct TimeSpan {
    using Value = std::chrono::milliseconds;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const;
    [[nodiscard]] std::string print(Value value) const;
    bool is_default(Value) const { return false; }
};

struct OnStale {
    using Value = warmfork_on_stale;

    [[nodiscard]] std::optional<Value> read(Reading& reading, const std::string& key,
                                            const toml::node& value) const;
    [[nodiscard]] std::string print(Value value) const;
    bool is_default(Value) const { return false; }
};

}  // namespace warmfork::service
