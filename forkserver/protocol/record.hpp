// The spawn record: what to run and in which state, as plain bytes, the same whichever way it
// travels. A record holds everything that a cold child would get from its request or inherit from
// its owner at this moment; descriptors travel beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/limits.hpp"

namespace warmfork {

inline constexpr std::uint32_t kRecordMagic = 0x64726357;  // "Wcrd"

enum class Lifetime : std::uint32_t {
    owner = 0,     ///< ends with the owner: SIGTERM, then SIGKILL
    detached = 1,  ///< runs on
};

enum RecordFlag : std::uint32_t {
    kRecordNewSession = 1u << 0,
    kRecordProcessGroup = 1u << 1,
    kRecordSignalMask = 1u << 2,
    kRecordSignalsIgnored = 1u << 3,
    kRecordUmask = 1u << 4,
    kRecordNice = 1u << 5,
    kRecordOomScoreAdjust = 1u << 6,
    kRecordNoNewPrivileges = 1u << 7,
    kRecordDirectoryDescriptor = 1u << 8,  ///< the last descriptor is the directory to start from
    kRecordParentDeathSignal = 1u << 9,    ///< ask the kernel for SIGTERM at the parent's death
    kRecordLayer = 1u << 10,     ///< becomes a template: the last target is its control socket
    kRecordTerminal = 1u << 11,  ///< standard input becomes the new session's controlling terminal
    kRecordKnownFlags = (1u << 12) - 1,
};

struct RecordHeader {
    std::uint32_t magic;
    std::uint32_t size;  ///< of the whole record
    std::uint32_t flags;
    Lifetime lifetime;
    std::uint64_t signal_mask;      ///< bit n-1: signal n
    std::uint64_t signals_ignored;  ///< bit n-1: signal n; all others have the default action
    std::int32_t owner_pid;
    std::int32_t process_group;
    std::uint32_t file_mode_mask;
    std::int32_t nice;
    std::int32_t oom_score_adjust;
    std::uint32_t limit_count;
    std::uint32_t descriptor_count;
    std::uint32_t affinity_bytes;
    std::uint32_t executable_bytes;  ///< strings: with their NULs; 0: absent
    std::uint32_t directory_bytes;
    std::uint32_t argument_count;
    std::uint32_t argument_bytes;
    std::uint32_t environment_count;
    std::uint32_t environment_bytes;
    std::uint32_t payload_bytes;
    std::uint32_t reserved;
};
static_assert(offsetof(RecordHeader, signal_mask) == 16);
static_assert(offsetof(RecordHeader, owner_pid) == 32);
static_assert(offsetof(RecordHeader, payload_bytes) == 88);
static_assert(sizeof(RecordHeader) == 96);

struct RecordLimit {
    std::uint32_t resource;
    std::uint32_t reserved;
    std::uint64_t soft;
    std::uint64_t hard;
};
static_assert(sizeof(RecordLimit) == 24);

/// What a record is made from. Strings and spans are borrowed for the call.
struct RecordContents {
    RecordHeader header{};  ///< flags and scalars; sizes and counts are filled in by encode_record
    std::vector<RecordLimit> limits;
    std::vector<std::int32_t> descriptor_targets;
    std::vector<std::byte> affinity;
    std::string_view executable;
    std::string_view directory;
    std::span<const char* const> arguments;
    std::span<const char* const> environment;
    std::span<const std::byte> payload;
};

/// Is everything within the limits of a record? Values are not looked at.
[[nodiscard]] bool fits_into_record(const RecordContents& contents);

/// Writes the record into `ret_record` (replaced). Returns 0, E2BIG where it does not fit, or
/// EINVAL where a value is out of range; `ret_record` is then unspecified.
[[nodiscard]] int encode_record(const RecordContents& contents, std::vector<std::byte>& ret_record);

/// A decoded record: views into the bytes that it was decoded from, which must outlive it.
struct RecordView {
    RecordHeader header;
    std::span<const RecordLimit> limits;
    std::span<const std::int32_t> descriptor_targets;
    std::span<const std::byte> affinity;
    const char* executable;       ///< null: absent
    const char* directory;        ///< null: absent
    std::span<char> arguments;    ///< NUL-terminated strings, one behind the other
    std::span<char> environment;  ///< likewise, and directly behind the arguments
    std::span<std::byte> payload;
};

/// Makes a view of the same values, for callers that need no bytes. They may be of any size, and
/// there are no strings and no payload in it but the directory (which must end with NUL). Returns
/// 0, or EINVAL where a value is out of range. The view borrows from `contents`.
[[nodiscard]] int view_values(const RecordContents& contents, RecordView& ret_view);

/// Checks every length, count and value of a record that lies in memory of our own, and makes views
/// of it. Allocates nothing, and is safe between fork and exec. `bytes` must be aligned to 8.
/// Returns null, or what is wrong with it (static text).
[[nodiscard]] const char* decode_record(std::span<std::byte> bytes, RecordView& ret_view);

/// Overwrites a record that is done with, and what handling it has left behind: environment and
/// arguments are nobody else's business. It is safe between fork and exec.
void wipe(std::span<std::byte> record);

/// Writes `count` pointers to the strings that lie in `strings`, and a null behind them.
void point_at_strings(std::span<char> strings, std::size_t count, char** ret_pointers);

}  // namespace warmfork
