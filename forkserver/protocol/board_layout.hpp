// The statistics board: what warmforkd shows of itself. README.md beside this file draws it.
// It is plain data; the behaviour is in service/board.hpp (the daemon) and
// service/board_reader.hpp.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>

#include "protocol/latency_buckets.hpp"

namespace warmfork {

inline constexpr std::uint64_t kBoardMagic = 0x3164726f626d7277;  // "wrmbord1"

/// Raised whenever the meaning or place of a byte changes. The first 32 bytes of a board never do,
/// so that a reader of any version can say which daemon it has found.
inline constexpr std::uint64_t kBoardVersion = 3;

/// How many entries a board has. What a daemon has beyond these is counted and not shown.
inline constexpr std::size_t kBoardTemplates = 128;
inline constexpr std::size_t kBoardClients = 256;

/// Room for the reasons of warmfork_reason, with some for those to come.
inline constexpr std::size_t kBoardReasons = 32;

/// Text in whole words, because words are what is copied. It is padded with NUL.
template <std::size_t Bytes>
struct BoardText {
    std::uint64_t words[Bytes / 8];
};

/// The first words never change: magic, version, pid, start time.
struct BoardIdentity {
    std::atomic<std::uint64_t> magic;  ///< written last
    std::uint64_t version;
    std::uint64_t pid;
    std::uint64_t start_ticks;  ///< of the process: field 22 of /proc/PID/stat
    std::uint64_t started_ns;   ///< of the service, CLOCK_BOOTTIME; a re-exec does not change it
};
static_assert(offsetof(BoardIdentity, magic) == 0);
static_assert(offsetof(BoardIdentity, version) == 8);
static_assert(offsetof(BoardIdentity, pid) == 16);
static_assert(offsetof(BoardIdentity, start_ticks) == 24);
static_assert(sizeof(BoardIdentity) == 40);

struct BoardDaemon {
    std::uint64_t clients;   ///< connected
    std::uint64_t children;  ///< alive
    std::uint64_t spawns;    ///< warm, since the start; also of templates that are not shown
    std::uint64_t cold[kBoardReasons];
    std::uint64_t templates_not_shown;  ///< at this moment, for want of an entry
    std::uint64_t clients_not_shown;
    std::uint64_t template_slots;  ///< entries that were ever in use: no reader looks further
    std::uint64_t client_slots;
    BoardText<32> release;  ///< of warmfork: "0.1.0"
    BoardText<112> socket;  ///< where it listens: as long as a sockaddr_un can say; empty: unknown
};
static_assert(sizeof(BoardDaemon) == 456);

/// The numbers' meanings never change; a new one raises kBoardVersion.
enum class TemplateState : std::uint64_t {
    free = 0,  ///< the entry is not in use; name and counts wait for a template of that name
    idle = 1,  ///< configured, not started
    preloading = 2,
    ready = 3,
    stale = 4,    ///< a file has changed; a new image is yet to come
    failing = 5,  ///< it does not start; tried again at `retry_at_ns`
};
inline constexpr std::uint64_t kTemplateStates = 6;

/// Returns the name that people read; never null.
constexpr const char* template_state_name(TemplateState state) {
    constexpr const char* names[] = {"free", "idle", "preloading", "ready", "stale", "failing"};
    static_assert(std::size(names) == kTemplateStates);
    const auto number = static_cast<std::uint64_t>(state);
    return number < kTemplateStates ? names[number] : "unknown";
}

struct BoardTemplate {
    std::uint64_t state;  ///< TemplateState
    std::uint64_t pid;    ///< of the first image; 0: none
    std::uint64_t images;
    std::uint64_t spares;  ///< parked, not leased
    std::uint64_t leased;
    std::uint64_t children;         ///< alive
    std::uint64_t starts;           ///< of images
    std::uint64_t preload_ms;       ///< of the last image; 0: none yet
    std::uint64_t resident_kb;      ///< 0: not known
    std::uint64_t proportional_kb;  ///< PSS; 0: not known
    std::uint64_t retry_at_ns;      ///< CLOCK_BOOTTIME; 0: not failing
    std::uint64_t cold[kBoardReasons];
    std::uint64_t latency_sum_us;
    std::uint64_t latency[kLatencyBuckets];  ///< warm spawns, since the start
    BoardText<64> name;
    BoardText<256> error;  ///< the last line that it wrote when it failed
    BoardText<64> base;    ///< the template that it extends; empty: none
};
static_assert(offsetof(BoardTemplate, cold) == 88);
static_assert(offsetof(BoardTemplate, latency_sum_us) == 344);
static_assert(offsetof(BoardTemplate, latency) == 352);
static_assert(offsetof(BoardTemplate, name) == 352 + 8 * kLatencyBuckets);
static_assert(sizeof(BoardTemplate) == 2528);

struct BoardClient {
    std::uint64_t pid;  ///< 0: the entry is not in use
    std::uint64_t uid;
    std::uint64_t children;  ///< alive
    std::uint64_t leases;    ///< spares that it holds
    std::uint64_t spawns;    ///< since it connected
    std::uint64_t memory;    ///< of its children's cgroups, bytes; 0: not known
    std::uint64_t cpu_us;    ///< processor time of those cgroups; 0: not known
    BoardText<16> command;   ///< comm
};
static_assert(sizeof(BoardClient) == 72);

/// Something that is written while others read. The sequence is odd while a change is under way,
/// and another number after each change. The reader copies, and looks whether the number stayed
/// even and the same.
template <typename Value>
struct Published {
    std::atomic<std::uint64_t> sequence;
    Value value;
};

struct BoardLayout {
    BoardIdentity identity;
    alignas(64) Published<BoardDaemon> daemon;
    alignas(64) Published<BoardClient> clients[kBoardClients];
    alignas(4096) Published<BoardTemplate> templates[kBoardTemplates];
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(offsetof(BoardLayout, daemon) == 64);
static_assert(offsetof(BoardLayout, clients) == 576);
static_assert(sizeof(Published<BoardClient>) == 80);
static_assert(offsetof(BoardLayout, templates) == 24576);
static_assert(sizeof(Published<BoardTemplate>) == 2536);
static_assert(sizeof(BoardLayout) == 352256);

}  // namespace warmfork
