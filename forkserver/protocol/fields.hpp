// The bodies of the service's messages: numbers and texts, one behind the other. What is read was
// written by somebody else: every length is checked against what is there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace warmfork {

class FieldWriter {
  public:
    FieldWriter& number(std::uint64_t value) {
        const auto bytes = std::as_bytes(std::span(&value, 1));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    FieldWriter& text(std::string_view value) {
        number(value.size());
        const auto bytes = std::as_bytes(std::span(value));
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    /// Writes anything that string_views can be made from.
    template <typename Texts>
    FieldWriter& texts(const Texts& values) {
        number(std::size(values));
        for (const auto& value : values) text(value);
        return *this;
    }
    const std::vector<std::byte>& bytes() const { return bytes_; }

  private:
    std::vector<std::byte> bytes_;
};

/// Reads in the order of writing. What is missing or too long reads as 0 or empty, and `is_whole`
/// is false from then on.
class FieldReader {
  public:
    explicit FieldReader(std::span<const std::byte> bytes) : rest_(bytes) {}

    std::uint64_t number() {
        std::uint64_t value = 0;
        if (!take(sizeof value)) return 0;
        std::memcpy(&value, taken_.data(), sizeof value);
        return value;
    }
    template <typename Integer>
    void number(Integer& ret_value) {
        ret_value = static_cast<Integer>(number());
    }
    std::string text() {
        if (!take(number())) return {};
        return {reinterpret_cast<const char*>(taken_.data()), taken_.size()};
    }
    std::vector<std::string> texts() {
        std::vector<std::string> values;
        // Each takes eight bytes at the least, so a count that lies ends with the bytes.
        for (std::uint64_t left = number(); left > 0 && is_whole_; --left) values.push_back(text());
        return values;
    }
    bool is_whole() const { return is_whole_; }
    /// Something of a newer writer may stand behind what an older one wrote.
    bool has_more() const { return is_whole_ && !rest_.empty(); }

  private:
    bool take(std::uint64_t size) {
        is_whole_ = is_whole_ && size <= rest_.size();
        if (!is_whole_) return false;
        taken_ = rest_.first(size);
        rest_ = rest_.subspan(size);
        return true;
    }

    std::span<const std::byte> rest_, taken_;
    bool is_whole_ = true;
};

}  // namespace warmfork
