#include "service/board_reader.hpp"

#include <algorithm>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/locale/utf.hpp>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <limits>
#include <thread>

#include "service/board_object.hpp"

namespace interprocess = boost::interprocess;

namespace warmfork {
namespace {

/// A change takes well under a microsecond, unless its writer is not running: then the processor is
/// given away each time.
constexpr int kMostTries = 1000;

std::uint64_t load(const std::uint64_t& word) {
    // Only a const_cast makes an atomic_ref of what cannot be written; a load does not write.
    return std::atomic_ref(const_cast<std::uint64_t&>(word)).load(std::memory_order_relaxed);
}

/// False: it was changed during each of the tries. The fence keeps the words before the second look
/// at the number: a word of a change that is newer than the first look shows in it.
template <typename Value>
bool copy(const Published<Value>& published, Value& ret_value) {
    static_assert(sizeof(Value) % sizeof(std::uint64_t) == 0);
    const auto* from = reinterpret_cast<const std::uint64_t*>(&published.value);
    auto* to = reinterpret_cast<std::uint64_t*>(&ret_value);
    for (int tries = 0; tries < kMostTries; ++tries) {
        const std::uint64_t before = published.sequence.load(std::memory_order_acquire);
        if (!(before & 1)) {
            for (std::size_t i = 0; i < sizeof(Value) / sizeof *to; ++i) to[i] = load(from[i]);
            std::atomic_thread_fence(std::memory_order_acquire);
            if (published.sequence.load(std::memory_order_relaxed) == before) return true;
        }
        std::this_thread::yield();
    }
    return false;
}

bool is_control(boost::locale::utf::code_point point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029;
}

/// Up to the first NUL. What is not UTF-8 becomes U+FFFD, a control character a space.
template <std::size_t Bytes>
std::string printable(const BoardText<Bytes>& text) {
    using Utf8 = boost::locale::utf::utf_traits<char>;
    constexpr boost::locale::utf::code_point kReplacement = 0xfffd;
    char bytes[Bytes];
    std::memcpy(bytes, text.words, Bytes);
    const char* const end = bytes + ::strnlen(bytes, Bytes);
    std::string result;
    for (const char* at = bytes; at < end;) {
        const char* next = at;
        boost::locale::utf::code_point point = Utf8::decode(next, end);
        if (!boost::locale::utf::is_valid_codepoint(point)) {
            point = kReplacement;
            next = at + 1;
        }
        at = next;
        Utf8::encode(is_control(point) ? ' ' : point, std::back_inserter(result));
    }
    return result;
}

pid_t pid_of(std::uint64_t number) {
    return number <= std::numeric_limits<pid_t>::max() ? static_cast<pid_t>(number) : 0;
}

std::chrono::milliseconds milliseconds_of(std::uint64_t number) {
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max() / 1'000'000;
    return std::chrono::milliseconds(std::min(number, kMost));
}

TemplateSnapshot describe(const BoardTemplate& entry, std::uint64_t now_ns) {
    TemplateSnapshot snapshot;
    snapshot.name = printable(entry.name);
    snapshot.state = static_cast<TemplateState>(entry.state);
    snapshot.pid = pid_of(entry.pid);
    snapshot.images = entry.images;
    snapshot.spares = entry.spares;
    snapshot.leased = entry.leased;
    snapshot.children = entry.children;
    snapshot.starts = entry.starts;
    snapshot.preload = milliseconds_of(entry.preload_ms);
    snapshot.resident_kb = entry.resident_kb;
    snapshot.proportional_kb = entry.proportional_kb;
    if (entry.retry_at_ns > now_ns)
        snapshot.retry_in = milliseconds_of((entry.retry_at_ns - now_ns) / 1'000'000);
    snapshot.error = printable(entry.error);
    snapshot.base = printable(entry.base);
    snapshot.cold = std::to_array(entry.cold);
    snapshot.latency = std::to_array(entry.latency);
    snapshot.latency_sum_us = entry.latency_sum_us;
    return snapshot;
}

ClientSnapshot describe(const BoardClient& client) {
    return {pid_of(client.pid),
            static_cast<uid_t>(client.uid),
            printable(client.command),
            client.children,
            client.leases,
            client.spawns,
            client.memory,
            client.cpu_us};
}

void read_templates(const BoardLayout& board, std::uint64_t slots, std::uint64_t now_ns,
                    BoardSnapshot& snapshot) {
    for (std::uint64_t slot = 0; slot < std::min<std::uint64_t>(slots, kBoardTemplates); ++slot) {
        BoardTemplate entry;
        if (!copy(board.templates[slot], entry))
            ++snapshot.unreadable;
        else if (entry.state != static_cast<std::uint64_t>(TemplateState::free))
            snapshot.templates.push_back(describe(entry, now_ns));
    }
    std::sort(snapshot.templates.begin(), snapshot.templates.end(),
              [](const auto& one, const auto& other) { return one.name < other.name; });
}

void read_clients(const BoardLayout& board, std::uint64_t slots, BoardSnapshot& snapshot) {
    for (std::uint64_t slot = 0; slot < std::min<std::uint64_t>(slots, kBoardClients); ++slot) {
        BoardClient client;
        if (!copy(board.clients[slot], client))
            ++snapshot.unreadable;
        else if (client.pid)
            snapshot.clients.push_back(describe(client));
    }
    std::sort(snapshot.clients.begin(), snapshot.clients.end(),
              [](const auto& one, const auto& other) { return one.pid < other.pid; });
}

BoardSnapshot read_entries(const BoardLayout& board) {
    BoardSnapshot snapshot;
    const std::uint64_t now_ns = nanoseconds_since_boot();
    BoardDaemon daemon;
    if (!copy(board.daemon, daemon)) {
        snapshot.unreadable = 1;
        daemon = {};
        // How far to look is not known, so everywhere.
        daemon.template_slots = kBoardTemplates;
        daemon.client_slots = kBoardClients;
    }
    snapshot.release = printable(daemon.release);
    snapshot.clients_connected = daemon.clients;
    snapshot.children = daemon.children;
    snapshot.spawns = daemon.spawns;
    snapshot.cold = std::to_array(daemon.cold);
    snapshot.templates_not_shown = daemon.templates_not_shown;
    snapshot.clients_not_shown = daemon.clients_not_shown;
    read_templates(board, daemon.template_slots, now_ns, snapshot);
    read_clients(board, daemon.client_slots, snapshot);
    const std::uint64_t started_ns = load(board.identity.started_ns);
    if (started_ns < now_ns) snapshot.uptime = std::chrono::nanoseconds(now_ns - started_ns);
    return snapshot;
}

/// Is this the board of a daemon that lives? The size has been checked to hold the identity.
int examine(const BoardIdentity& identity, std::uint64_t size) {
    const std::uint64_t magic = identity.magic.load(std::memory_order_acquire);
    if (!magic) return ENOENT;
    if (magic != kBoardMagic) return EPROTO;
    const std::uint64_t start_ticks = load(identity.start_ticks);
    if (!start_ticks || process_start_ticks(load(identity.pid)) != start_ticks) return ESRCH;
    if (load(identity.version) != kBoardVersion) return EPROTONOSUPPORT;
    return size == sizeof(BoardLayout) ? 0 : EPROTO;
}

}  // namespace

int read_board(uid_t uid, std::string_view instance, BoardSnapshot& ret_snapshot) {
    const std::string name = board_name(uid, instance);
    if (name.empty()) return EINVAL;
    interprocess::shared_memory_object object;
    std::uint64_t size = 0;
    if (int error = open_board(name, uid, interprocess::read_only, object, size)) return error;
    if (size < sizeof(BoardIdentity)) return size ? EPROTO : ENOENT;
    try {
        const interprocess::mapped_region region(
            object, interprocess::read_only, 0, std::min<std::uint64_t>(size, sizeof(BoardLayout)));
        const auto& board = *static_cast<const BoardLayout*>(region.get_address());
        if (int error = examine(board.identity, size)) return error;
        BoardSnapshot snapshot = read_entries(board);
        snapshot.pid = pid_of(load(board.identity.pid));
        snapshot.start_ticks = load(board.identity.start_ticks);
        ret_snapshot = std::move(snapshot);
    } catch (const interprocess::interprocess_exception& error) {
        return errno_of(error);
    }
    return 0;
}

}  // namespace warmfork
