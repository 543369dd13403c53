#include "protocol/record.hpp"

#include <cerrno>
#include <cstring>

namespace warmfork {
namespace {

constexpr std::size_t kHighestTarget = 1u << 20;  // fs.nr_open's default

std::size_t padded(std::size_t size) {
    return (size + 7) & ~std::size_t{7};
}

/// Appends to a vector that has been reserved.
void append(std::vector<std::byte>& record, const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    record.insert(record.end(), first, first + size);
}

/// Sum of the strings with their NULs, or 0 with `ret_too_long` set.
std::size_t strings_size(std::span<const char* const> strings, bool& ret_too_long) {
    std::size_t sum = 0;
    for (const char* string : strings) {
        const std::size_t size = std::strlen(string) + 1;
        if (size > kMaximumStringSize) ret_too_long = true;
        sum += size;
    }
    return sum;
}

/// Takes pieces off the front of the record's bytes, never past their end.
class Cursor {
  public:
    explicit Cursor(std::span<std::byte> bytes) : rest_(bytes) {}

    /// The next `size` bytes; the alignment padding behind them is skipped.
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

/// Exactly `count` NUL-terminated strings, none over the kernel's limit?
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

}  // namespace

int encode_record(const RecordContents& contents, std::vector<std::byte>& ret_record) {
    bool too_long = false;
    RecordHeader header = contents.header;
    const std::size_t argument_bytes = strings_size(contents.arguments, too_long);
    const std::size_t environment_bytes = strings_size(contents.environment, too_long);
    const auto path_bytes = [](std::string_view path) {
        return path.empty() ? 0 : path.size() + 1;
    };
    const std::size_t size = sizeof header + contents.limits.size() * sizeof(RecordLimit) +
                             padded(contents.descriptor_targets.size() * sizeof(std::int32_t)) +
                             contents.affinity.size() + path_bytes(contents.executable) +
                             path_bytes(contents.directory) + argument_bytes + environment_bytes +
                             contents.payload.size();
    if (too_long || size > kMaximumRecordSize) return E2BIG;
    if (path_bytes(contents.executable) > kMaximumStringSize ||
        path_bytes(contents.directory) > kMaximumStringSize)
        return E2BIG;

    header.magic = kRecordMagic;
    header.size = static_cast<std::uint32_t>(size);
    header.limit_count = static_cast<std::uint32_t>(contents.limits.size());
    header.descriptor_count = static_cast<std::uint32_t>(contents.descriptor_targets.size());
    header.affinity_bytes = static_cast<std::uint32_t>(contents.affinity.size());
    header.executable_bytes = static_cast<std::uint32_t>(path_bytes(contents.executable));
    header.directory_bytes = static_cast<std::uint32_t>(path_bytes(contents.directory));
    header.argument_count = static_cast<std::uint32_t>(contents.arguments.size());
    header.argument_bytes = static_cast<std::uint32_t>(argument_bytes);
    header.environment_count = static_cast<std::uint32_t>(contents.environment.size());
    header.environment_bytes = static_cast<std::uint32_t>(environment_bytes);
    header.payload_bytes = static_cast<std::uint32_t>(contents.payload.size());
    if (contents.descriptor_targets.size() > kMaximumRecordDescriptors) return E2BIG;
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

void point_at_strings(std::span<char> strings, std::size_t count, char** ret_pointers) {
    char* at = strings.data();
    for (std::size_t i = 0; i < count; ++i) {
        ret_pointers[i] = at;
        at += std::strlen(at) + 1;
    }
    ret_pointers[count] = nullptr;
}

}  // namespace warmfork
