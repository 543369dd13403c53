#include "service/board_reader.hpp"

#include <unistd.h>

#include <algorithm>
#include <boost/locale/utf.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <limits>
#include <thread>

#include "service/board_object.hpp"

namespace interprocess = boost::interprocess;

namespace warmfork {
namespace {

/// How often all of a board is tried. A change takes well under a microsecond, unless its writer is
/// not running: then the processor is given away each time, which takes milliseconds on a busy
/// machine. Whoever made the board may have left each entry in the middle of a change.
constexpr int kMostTries = 1000;

/// A board is read, never mapped: its owner may cut it short, and access to a mapping would raise
/// SIGBUS then.
class BoardFile {
  public:
    explicit BoardFile(int file) : file_(file) {}

    /// Returns false where it ends before that, or cannot be read.
    template <typename Value>
    bool read(std::size_t offset, Value& ret_value) const {
        return ::pread(file_, &ret_value, sizeof ret_value, static_cast<off_t>(offset)) ==
               static_cast<ssize_t>(sizeof ret_value);
    }

    /// Reads a published value as it was at one moment. The fences keep the kernel's reads in the
    /// order of the calls: a word of a change that is newer than the first look at the number shows
    /// in the second. Returns 0, EAGAIN where it was changed during each of the tries that were
    /// left, of which there is one at least, or EPROTO where it is not there.
    template <typename Value>
    int copy(std::size_t offset, Value& ret_value) {
        static_assert(offsetof(Published<Value>, value) == sizeof(std::uint64_t));
        while (true) {
            std::uint64_t before, after;
            if (!read(offset, before)) return EPROTO;
            std::atomic_thread_fence(std::memory_order_acquire);
            if (!(before & 1)) {
                if (!read(offset + sizeof before, ret_value)) return EPROTO;
                std::atomic_thread_fence(std::memory_order_acquire);
                if (!read(offset, after)) return EPROTO;
                if (before == after) return 0;
            }
            if (tries_left_ == 0) return EAGAIN;
            --tries_left_;
            std::this_thread::yield();
        }
    }

  private:
    int file_;
    int tries_left_ = kMostTries;
};

/// A BoardIdentity. Its first word is written last, and so is read first.
struct Identity {
    std::uint64_t magic, version, pid, start_ticks, started_ns;
};
static_assert(sizeof(Identity) == sizeof(BoardIdentity));

bool is_control(boost::locale::utf::code_point point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029;
}

/// Returns the text up to the first NUL. What is not UTF-8 becomes U+FFFD, a control character a
/// space.
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

int read_templates(BoardFile& board, std::uint64_t slots, std::uint64_t now_ns,
                   BoardSnapshot& snapshot) {
    for (std::uint64_t slot = 0; slot < std::min<std::uint64_t>(slots, kBoardTemplates); ++slot) {
        BoardTemplate entry;
        const int error = board.copy(
            offsetof(BoardLayout, templates) + slot * sizeof(Published<BoardTemplate>), entry);
        if (error == EPROTO) return error;
        if (error)
            ++snapshot.unreadable;
        else if (entry.state != static_cast<std::uint64_t>(TemplateState::free))
            snapshot.templates.push_back(describe(entry, now_ns));
    }
    std::sort(snapshot.templates.begin(), snapshot.templates.end(),
              [](const auto& one, const auto& other) { return one.name < other.name; });
    return 0;
}

int read_clients(BoardFile& board, std::uint64_t slots, BoardSnapshot& snapshot) {
    for (std::uint64_t slot = 0; slot < std::min<std::uint64_t>(slots, kBoardClients); ++slot) {
        BoardClient client;
        const int error = board.copy(
            offsetof(BoardLayout, clients) + slot * sizeof(Published<BoardClient>), client);
        if (error == EPROTO) return error;
        if (error)
            ++snapshot.unreadable;
        else if (pid_of(client.pid))
            snapshot.clients.push_back(describe(client));
    }
    std::sort(snapshot.clients.begin(), snapshot.clients.end(),
              [](const auto& one, const auto& other) { return one.pid < other.pid; });
    return 0;
}

int read_entries(BoardFile& board, const Identity& identity, BoardSnapshot& snapshot) {
    const std::uint64_t now_ns = nanoseconds_since_boot();
    BoardDaemon daemon;
    if (int error = board.copy(offsetof(BoardLayout, daemon), daemon)) return error;
    snapshot.release = printable(daemon.release);
    snapshot.socket = printable(daemon.socket);
    snapshot.clients_connected = daemon.clients;
    snapshot.children = daemon.children;
    snapshot.spawns = daemon.spawns;
    snapshot.cold = std::to_array(daemon.cold);
    snapshot.templates_not_shown = daemon.templates_not_shown;
    snapshot.clients_not_shown = daemon.clients_not_shown;
    if (int error = read_templates(board, daemon.template_slots, now_ns, snapshot)) return error;
    if (int error = read_clients(board, daemon.client_slots, snapshot)) return error;
    snapshot.pid = pid_of(identity.pid);
    snapshot.start_ticks = identity.start_ticks;
    if (identity.started_ns < now_ns)
        snapshot.uptime = std::chrono::nanoseconds(now_ns - identity.started_ns);
    return 0;
}

/// Is this the board of a daemon that lives?
int examine(const Identity& identity, std::uint64_t size) {
    if (!identity.magic) return ENOENT;
    if (identity.magic != kBoardMagic) return EPROTO;
    if (!identity.start_ticks || process_start_ticks(identity.pid) != identity.start_ticks)
        return ESRCH;
    if (identity.version != kBoardVersion) return EPROTONOSUPPORT;
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
    BoardFile board(object.get_mapping_handle().handle);
    Identity identity;
    std::uint64_t magic;
    if (!board.read(offsetof(BoardLayout, identity), magic)) return EPROTO;
    std::atomic_thread_fence(std::memory_order_acquire);
    if (!board.read(offsetof(BoardLayout, identity), identity)) return EPROTO;
    identity.magic = magic;
    if (int error = examine(identity, size)) return error;
    BoardSnapshot snapshot;
    if (int error = read_entries(board, identity, snapshot)) return error;
    ret_snapshot = std::move(snapshot);
    return 0;
}

std::vector<std::string> find_instances(uid_t uid) {
    const std::string unnamed = board_name(uid, {}), prefix = unnamed + "-";
    std::vector<std::string> instances;
    std::error_code error;
    // This is where glibc has its shared memory.
    for (std::filesystem::directory_iterator at("/dev/shm", error), end; !error && at != end;
         at.increment(error)) {
        const std::string name = at->path().filename();
        if (name == unnamed)
            instances.emplace_back();
        else if (name.starts_with(prefix))
            instances.push_back(name.substr(prefix.size()));
    }
    std::sort(instances.begin(), instances.end());
    return instances;
}

}  // namespace warmfork
