#include "protocol/record.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace warmfork {
namespace {

// How far the other callees of the caller of `wipe` reach below it.
constexpr std::size_t kStackOfCallees = 16u << 10;

constexpr std::size_t kHighestTarget = 1u << 20;  // fs.nr_open's default

std::size_t padded(std::size_t size) {
    return (size + 7) & ~std::size_t{7};
}

/// Appends to a vector that has been reserved.
void append(std::vector<std::byte>& record, const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    record.insert(record.end(), first, first + size);
}

/// Returns the size of the strings with their NULs.
std::size_t strings_size(std::span<const char* const> strings) {
    std::size_t sum = 0;
    for (const char* string : strings) sum += std::strlen(string) + 1;
    return sum;
}

bool has_long_string(std::span<const char* const> strings) {
    return std::any_of(strings.begin(), strings.end(), [](const char* string) {
        return std::strlen(string) >= kMaximumStringSize;
    });
}

std::size_t path_size(std::string_view path) {
    return path.empty() ? 0 : path.size() + 1;
}

std::size_t record_size(const RecordContents& contents) {
    return sizeof(RecordHeader) + contents.limits.size() * sizeof(RecordLimit) +
           padded(contents.descriptor_targets.size() * sizeof(std::int32_t)) +
           contents.affinity.size() + path_size(contents.executable) +
           path_size(contents.directory) + strings_size(contents.arguments) +
           strings_size(contents.environment) + contents.payload.size();
}

/// Takes pieces off the front of the record's bytes, never past their end.
class Cursor {
  public:
    explicit Cursor(std::span<std::byte> bytes) : rest_(bytes) {}

    /// Takes the next `size` bytes, and skips the alignment padding behind them.
    bool take(std::size_t size, std::span<std::byte>& ret_piece, bool pad) {
        const std::size_t whole = pad ? padded(size) : size;
        if (whole < size || whole > rest_.size()) return false;
        ret_piece = rest_.first(size);
        rest_ = rest_.subspan(whole);
        return true;
    }
    bool at_end() const { return rest_.empty(); }

  private:
    std::span<std::byte> rest_;
};

std::span<char> as_characters(std::span<std::byte> bytes) {
    return {reinterpret_cast<char*>(bytes.data()), bytes.size()};
}

/// Are there exactly `count` NUL-terminated strings, none over the kernel's limit?
bool holds_strings(std::span<const char> strings, std::size_t count) {
    if (strings.empty()) return count == 0;
    if (strings.back() != '\0') return false;
    std::size_t seen = 0;
    for (std::size_t at = 0; at < strings.size(); ++seen) {
        const std::size_t size = std::strlen(strings.data() + at) + 1;
        if (size > kMaximumStringSize) return false;
        at += size;
    }
    return seen == count;
}

bool is_optional_path(std::span<const char> path) {
    return path.empty() || (holds_strings(path, 1) && path.size() > 1);
}

const char* scalar_error(const RecordHeader& header) {
    if (header.flags & ~static_cast<std::uint32_t>(kRecordKnownFlags)) return "unknown flag";
    if (header.lifetime > Lifetime::detached) return "unknown lifetime";
    if (header.file_mode_mask > 0777) return "umask out of range";
    if (header.nice < -20 || header.nice > 19) return "nice out of range";
    if (header.oom_score_adjust < -1000 || header.oom_score_adjust > 1000)
        return "oom_score_adj out of range";
    if (header.process_group < 0) return "process group out of range";
    if ((header.flags & kRecordNewSession) && (header.flags & kRecordProcessGroup))
        return "new session and process group exclude each other";
    if ((header.flags & kRecordTerminal) && !(header.flags & kRecordNewSession))
        return "a terminal without a new session";
    if (header.limit_count > kResourceLimitCount) return "too many limits";
    if (header.descriptor_count > kMaximumRecordDescriptors) return "too many descriptors";
    if ((header.flags & kRecordLayer) && header.descriptor_count == 0)
        return "a layer without a channel";
    if (header.affinity_bytes > kMaximumAffinitySize || header.affinity_bytes % 8 != 0)
        return "affinity mask of a wrong size";
    return nullptr;
}

const char* target_error(std::span<const std::int32_t> targets) {
    for (std::size_t i = 0; i < targets.size(); ++i) {
        if (targets[i] < 0 || static_cast<std::size_t>(targets[i]) >= kHighestTarget)
            return "descriptor number out of range";
        for (std::size_t j = 0; j < i; ++j)
            if (targets[i] == targets[j]) return "descriptor number given twice";
    }
    return nullptr;
}

const char* limit_error(std::span<const RecordLimit> limits) {
    for (const RecordLimit& limit : limits) {
        if (limit.resource >= kResourceLimitCount) return "unknown resource limit";
        if (limit.soft > limit.hard) return "soft limit above the hard limit";
    }
    return nullptr;
}

[[gnu::noinline]] void wipe_stack_below() {
    std::array<std::byte, kStackOfCallees> below;
    ::explicit_bzero(below.data(), below.size());
}

}  // namespace

bool fits_into_record(const RecordContents& contents) {
    const auto is_too_high = [](std::int32_t target) {
        return target >= 0 && static_cast<std::size_t>(target) >= kHighestTarget;
    };
    const std::vector<std::int32_t>& targets = contents.descriptor_targets;
    return record_size(contents) <= kMaximumRecordSize && !has_long_string(contents.arguments) &&
           !has_long_string(contents.environment) &&
           path_size(contents.executable) <= kMaximumStringSize &&
           path_size(contents.directory) <= kMaximumStringSize &&
           contents.affinity.size() <= kMaximumAffinitySize &&
           targets.size() <= kMaximumRecordDescriptors &&
           std::none_of(targets.begin(), targets.end(), is_too_high);
}

int encode_record(const RecordContents& contents, std::vector<std::byte>& ret_record) {
    if (!fits_into_record(contents)) return E2BIG;
    const std::size_t size = record_size(contents);
    RecordHeader header = contents.header;
    header.magic = kRecordMagic;
    header.size = static_cast<std::uint32_t>(size);
    header.limit_count = static_cast<std::uint32_t>(contents.limits.size());
    header.descriptor_count = static_cast<std::uint32_t>(contents.descriptor_targets.size());
    header.affinity_bytes = static_cast<std::uint32_t>(contents.affinity.size());
    header.executable_bytes = static_cast<std::uint32_t>(path_size(contents.executable));
    header.directory_bytes = static_cast<std::uint32_t>(path_size(contents.directory));
    header.argument_count = static_cast<std::uint32_t>(contents.arguments.size());
    header.argument_bytes = static_cast<std::uint32_t>(strings_size(contents.arguments));
    header.environment_count = static_cast<std::uint32_t>(contents.environment.size());
    header.environment_bytes = static_cast<std::uint32_t>(strings_size(contents.environment));
    header.payload_bytes = static_cast<std::uint32_t>(contents.payload.size());
    if (scalar_error(header) || target_error(contents.descriptor_targets) ||
        limit_error(contents.limits) || contents.arguments.empty())
        return EINVAL;

    ret_record.clear();
    ret_record.reserve(size);
    append(ret_record, &header, sizeof header);
    append(ret_record, contents.limits.data(), contents.limits.size() * sizeof(RecordLimit));
    append(ret_record, contents.descriptor_targets.data(),
           contents.descriptor_targets.size() * sizeof(std::int32_t));
    ret_record.resize(padded(ret_record.size()));
    append(ret_record, contents.affinity.data(), contents.affinity.size());
    for (std::string_view path : {contents.executable, contents.directory}) {
        if (path.empty()) continue;
        append(ret_record, path.data(), path.size());
        ret_record.push_back(std::byte{0});
    }
    for (const char* string : contents.arguments)
        append(ret_record, string, std::strlen(string) + 1);
    for (const char* string : contents.environment)
        append(ret_record, string, std::strlen(string) + 1);
    append(ret_record, contents.payload.data(), contents.payload.size());
    return 0;
}

int view_values(const RecordContents& contents, RecordView& ret_view) {
    std::vector<std::int32_t> targets = contents.descriptor_targets;
    std::sort(targets.begin(), targets.end());
    const bool is_twice = std::adjacent_find(targets.begin(), targets.end()) != targets.end();
    if (scalar_error(contents.header) || limit_error(contents.limits) || is_twice ||
        (!targets.empty() && targets.front() < 0) || contents.arguments.empty())
        return EINVAL;
    RecordView view{};
    view.header = contents.header;
    view.limits = contents.limits;
    view.descriptor_targets = contents.descriptor_targets;
    view.affinity = contents.affinity;
    if (!contents.directory.empty()) view.directory = contents.directory.data();
    ret_view = view;
    return 0;
}

const char* decode_record(std::span<std::byte> bytes, RecordView& ret_view) {
    RecordHeader header;
    if (bytes.size() < sizeof header) return "shorter than its header";
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kRecordMagic) return "not a spawn record";
    if (header.size != bytes.size() || header.size > kMaximumRecordSize)
        return "its size is not that of the message";
    if (const char* error = scalar_error(header)) return error;

    Cursor cursor(bytes.subspan(sizeof header));
    std::span<std::byte> limits, targets, affinity, executable, directory, arguments, environment,
        payload;
    if (!cursor.take(header.limit_count * sizeof(RecordLimit), limits, false) ||
        !cursor.take(header.descriptor_count * sizeof(std::int32_t), targets, true) ||
        !cursor.take(header.affinity_bytes, affinity, false) ||
        !cursor.take(header.executable_bytes, executable, false) ||
        !cursor.take(header.directory_bytes, directory, false) ||
        !cursor.take(header.argument_bytes, arguments, false) ||
        !cursor.take(header.environment_bytes, environment, false) ||
        !cursor.take(header.payload_bytes, payload, false) || !cursor.at_end())
        return "its parts do not add up to its size";

    RecordView view{};
    view.header = header;
    view.limits = {reinterpret_cast<const RecordLimit*>(limits.data()), header.limit_count};
    view.descriptor_targets = {reinterpret_cast<const std::int32_t*>(targets.data()),
                               header.descriptor_count};
    view.affinity = affinity;
    view.arguments = as_characters(arguments);
    view.environment = as_characters(environment);
    view.payload = payload;
    if (!is_optional_path(as_characters(executable)) || !is_optional_path(as_characters(directory)))
        return "a path is not one string";
    view.executable = executable.empty() ? nullptr : as_characters(executable).data();
    view.directory = directory.empty() ? nullptr : as_characters(directory).data();
    if (header.argument_count == 0) return "no arguments";
    if (!holds_strings(view.arguments, header.argument_count)) return "arguments do not add up";
    if (!holds_strings(view.environment, header.environment_count))
        return "environment does not add up";
    if (const char* error = target_error(view.descriptor_targets)) return error;
    if (const char* error = limit_error(view.limits)) return error;
    ret_view = view;
    return nullptr;
}

void wipe(std::span<std::byte> record) {
    if (!record.empty()) {
        ::explicit_bzero(record.data(), record.size());
        // The vector registers hold the end of what was copied last: as many zeros are copied in
        // the same way.
        std::memmove(record.data(), record.data() + 1, record.size() - 1);
    }
    // Where a function was looked up at its first call, they were also spilled to the stack.
    wipe_stack_below();
}

void point_at_strings(std::span<char> strings, std::size_t count, char** ret_pointers) {
    char* at = strings.data();
    for (std::size_t i = 0; i < count; ++i) {
        ret_pointers[i] = at;
        at += std::strlen(at) + 1;
    }
    ret_pointers[count] = nullptr;
}

}  // namespace warmfork
