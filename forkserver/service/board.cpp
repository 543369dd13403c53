#include "service/board.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "service/board_object.hpp"

namespace interprocess = boost::interprocess;

namespace warmfork {
namespace {

static_assert(WARMFORK_REASON_COUNT <= kBoardReasons);
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

std::uint64_t load(std::uint64_t& word) {
    return std::atomic_ref(word).load(std::memory_order_relaxed);
}

void store(std::uint64_t& word, std::uint64_t value) {
    std::atomic_ref(word).store(value, std::memory_order_relaxed);
}

void add(std::uint64_t& word, std::uint64_t value) {
    store(word, load(word) + value);
}

template <std::size_t Bytes>
void store(BoardText<Bytes>& text, std::string_view value) {
    for (std::uint64_t& word : text.words) {
        std::uint64_t part = 0;
        value.remove_prefix(value.copy(reinterpret_cast<char*>(&part), sizeof part));
        store(word, part);
    }
}

template <std::size_t Bytes>
bool holds(BoardText<Bytes>& text, std::string_view value) {
    BoardText<Bytes> wanted{};
    store(wanted, value);
    return std::equal(std::begin(wanted.words), std::end(wanted.words), std::begin(text.words),
                      [](std::uint64_t& one, std::uint64_t& other) { return one == load(other); });
}

/// Changes what is published, so that a reader gets it as it was before or as it is after. The
/// fence keeps the words of the change behind the odd number: whoever sees one of them sees that
/// too. A predecessor's unfinished change (the number is odd already) is finished by this one.
template <typename Value, typename Change>
void publish(Published<Value>& published, Change change) {
    const std::uint64_t under_way = published.sequence.load(std::memory_order_relaxed) | 1;
    published.sequence.store(under_way, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    change(published.value);
    published.sequence.store(under_way + 1, std::memory_order_release);
}

template <typename Value>
void clear(Value& value) {
    static_assert(sizeof value % sizeof(std::uint64_t) == 0);
    auto* words = reinterpret_cast<std::uint64_t*>(&value);
    for (std::size_t i = 0; i < sizeof value / sizeof *words; ++i) store(words[i], 0);
}

/// Clears everything but the name and what is counted.
void set_free(BoardTemplate& entry) {
    for (std::uint64_t* word :
         {&entry.state, &entry.pid, &entry.images, &entry.spares, &entry.leased, &entry.children,
          &entry.preload_ms, &entry.resident_kb, &entry.proportional_kb, &entry.retry_at_ns})
        store(*word, 0);
    store(entry.error, {});
}

void set_state_word(BoardTemplate& entry, TemplateState state) {
    store(entry.state, static_cast<std::uint64_t>(state));
}

bool is_free(Published<BoardTemplate>& entry) {
    return load(entry.value.state) == static_cast<std::uint64_t>(TemplateState::free);
}

/// Returns the free entry that had this name; else one that nobody had, so that counts are kept for
/// as long as there is room; else any free one; else null.
Published<BoardTemplate>* find_place(BoardLayout& board, std::string_view name) {
    const std::uint64_t used =
        std::min<std::uint64_t>(load(board.daemon.value.template_slots), kBoardTemplates);
    Published<BoardTemplate>* any = nullptr;
    for (std::uint64_t slot = 0; slot < used; ++slot) {
        Published<BoardTemplate>& entry = board.templates[slot];
        if (!is_free(entry)) continue;
        if (holds(entry.value.name, name)) return &entry;
        if (!any) any = &entry;
    }
    return used < kBoardTemplates ? &board.templates[used] : any;
}

Published<BoardClient>* find_client_place(BoardLayout& board) {
    for (Published<BoardClient>& client : board.clients)
        if (!load(client.value.pid)) return &client;
    return nullptr;
}

template <typename Change>
void publish_daemon(BoardLayout* board, Change change) {
    if (board) publish(board->daemon, change);
}

template <typename Value, typename Change>
void publish_entry(Published<Value>* place, Change change) {
    if (place) publish(*place, change);
}

void raise_to(std::uint64_t& word, std::uint64_t least) {
    if (load(word) < least) store(word, least);
}

/// Returns one of the first words. They are the same in all versions, so that a daemon finds its
/// own predecessor's board.
std::uint64_t word_of(const interprocess::mapped_region& region, std::size_t offset) {
    std::uint64_t word;
    std::memcpy(&word, static_cast<const char*>(region.get_address()) + offset, sizeof word);
    return word;
}

/// Maps an object. Returns 0 or errno.
int map_object(const interprocess::shared_memory_object& object, std::uint64_t size,
               interprocess::mapped_region& ret_region) {
    try {
        interprocess::mapped_region region(object, interprocess::read_write, 0, size);
        ret_region.swap(region);
    } catch (const interprocess::interprocess_exception& error) {
        return errno_of(error);
    }
    return 0;
}

enum class Found { nothing, ours, another_daemons };

/// Looks at what has the name. Where it is ours, and of this version, it is mapped in ret_region,
/// which is otherwise left empty. Returns 0 or errno.
int look_at(const std::string& name, Found& ret_found, interprocess::mapped_region& ret_region) {
    interprocess::shared_memory_object object;
    std::uint64_t size = 0;
    const int error = open_board(name, ::geteuid(), interprocess::read_write, object, size);
    ret_found = Found::nothing;
    if (error == ENOENT || error == EACCES) return 0;  // EACCES: removing it says whether we may
    if (error) return error;
    if (size < sizeof(BoardIdentity)) return 0;
    interprocess::mapped_region region;
    if (int failed = map_object(object, std::min<std::uint64_t>(size, sizeof(BoardLayout)), region))
        return failed;
    const std::uint64_t pid = word_of(region, offsetof(BoardIdentity, pid));
    const std::uint64_t start_ticks = word_of(region, offsetof(BoardIdentity, start_ticks));
    if (word_of(region, offsetof(BoardIdentity, magic)) != kBoardMagic || !start_ticks ||
        process_start_ticks(pid) != start_ticks)
        return 0;
    ret_found =
        pid == static_cast<std::uint64_t>(::getpid()) ? Found::ours : Found::another_daemons;
    if (size == sizeof(BoardLayout) &&
        word_of(region, offsetof(BoardIdentity, version)) == kBoardVersion)
        ret_region.swap(region);
    return 0;
}

}  // namespace

TemplateEntry::TemplateEntry(TemplateEntry&& other) noexcept
    : board_(std::exchange(other.board_, nullptr)), place_(std::exchange(other.place_, nullptr)) {}

TemplateEntry& TemplateEntry::operator=(TemplateEntry&& other) noexcept {
    TemplateEntry old(std::move(*this));
    board_ = std::exchange(other.board_, nullptr);
    place_ = std::exchange(other.place_, nullptr);
    return *this;
}

TemplateEntry::~TemplateEntry() {
    publish_entry(place_, set_free);
    if (place_) return;
    publish_daemon(board_, [](BoardDaemon& daemon) { add(daemon.templates_not_shown, -1ull); });
}

void TemplateEntry::set_state(TemplateState state) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        set_state_word(entry, state);
        store(entry.retry_at_ns, 0);
        if (state == TemplateState::ready) store(entry.error, {});
    });
}

void TemplateEntry::set_failing(std::chrono::milliseconds back_off, std::string_view last_line) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        set_state_word(entry, TemplateState::failing);
        const auto wait = std::chrono::nanoseconds(back_off).count();
        store(entry.retry_at_ns, nanoseconds_since_boot() + static_cast<std::uint64_t>(wait));
        store(entry.error, last_line);
    });
}

void TemplateEntry::set_images(pid_t pid, std::uint64_t count) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        store(entry.pid, static_cast<std::uint64_t>(pid));
        store(entry.images, count);
    });
}

void TemplateEntry::count_start() {
    publish_entry(place_, [](BoardTemplate& entry) { add(entry.starts, 1); });
}

void TemplateEntry::set_preload(std::chrono::milliseconds duration) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        store(entry.preload_ms, static_cast<std::uint64_t>(duration.count()));
    });
}

void TemplateEntry::set_population(std::uint64_t spares, std::uint64_t leased,
                                   std::uint64_t children) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        store(entry.spares, spares);
        store(entry.leased, leased);
        store(entry.children, children);
    });
}

void TemplateEntry::set_memory(std::uint64_t resident_kb, std::uint64_t proportional_kb) {
    publish_entry(place_, [&](BoardTemplate& entry) {
        store(entry.resident_kb, resident_kb);
        store(entry.proportional_kb, proportional_kb);
    });
}

void TemplateEntry::count_spawn(std::chrono::microseconds latency) {
    const auto microseconds =
        static_cast<std::uint64_t>(std::max<std::int64_t>(0, latency.count()));
    publish_entry(place_, [&](BoardTemplate& entry) {
        add(entry.latency[latency_bucket(microseconds)], 1);
        add(entry.latency_sum_us, microseconds);
    });
    publish_daemon(board_, [](BoardDaemon& daemon) { add(daemon.spawns, 1); });
}

void TemplateEntry::count_cold(enum warmfork_reason reason) {
    if (reason >= WARMFORK_REASON_COUNT) return;
    publish_entry(place_, [&](BoardTemplate& entry) { add(entry.cold[reason], 1); });
    publish_daemon(board_, [&](BoardDaemon& daemon) { add(daemon.cold[reason], 1); });
}

ClientEntry::ClientEntry(ClientEntry&& other) noexcept
    : board_(std::exchange(other.board_, nullptr)), place_(std::exchange(other.place_, nullptr)) {}

ClientEntry& ClientEntry::operator=(ClientEntry&& other) noexcept {
    ClientEntry old(std::move(*this));
    board_ = std::exchange(other.board_, nullptr);
    place_ = std::exchange(other.place_, nullptr);
    return *this;
}

ClientEntry::~ClientEntry() {
    publish_entry(place_, clear<BoardClient>);
    publish_daemon(board_, [&](BoardDaemon& daemon) {
        add(daemon.clients, -1ull);
        if (!place_) add(daemon.clients_not_shown, -1ull);
    });
}

void ClientEntry::set_usage(std::uint64_t children, std::uint64_t leases, std::uint64_t spawns) {
    publish_entry(place_, [&](BoardClient& client) {
        store(client.children, children);
        store(client.leases, leases);
        store(client.spawns, spawns);
    });
}

void ClientEntry::set_cost(std::uint64_t memory, std::uint64_t cpu_us) {
    publish_entry(place_, [&](BoardClient& client) {
        store(client.memory, memory);
        store(client.cpu_us, cpu_us);
    });
}

Board::Board(Board&& other) noexcept {
    *this = std::move(other);
}

Board& Board::operator=(Board&& other) noexcept {
    std::swap(name_, other.name_);
    std::swap(made_by_, other.made_by_);
    region_.swap(other.region_);
    std::swap(layout_, other.layout_);
    return *this;
}

Board::~Board() {
    if (layout_ && made_by_ == ::getpid())
        interprocess::shared_memory_object::remove(name_.c_str());
}

int Board::create(std::string_view instance, Board& ret_board) {
    const std::string name(instance);
    return create_one_of({&name, 1}, ret_board);
}

int Board::create_one_of(std::span<const std::string> instances, Board& ret_board) {
    Board board;
    interprocess::mapped_region region;
    for (const std::string& instance : instances) {
        const std::string name = board_name(::geteuid(), instance);
        if (name.empty()) return EINVAL;
        Found found;
        interprocess::mapped_region found_region;
        if (int error = look_at(name, found, found_region)) return error;
        if (found == Found::another_daemons) continue;
        // The one that this process has had so far may still come further on.
        if (found == Found::nothing && !board.name_.empty()) continue;
        board.name_ = name;
        region.swap(found_region);
        if (found == Found::ours) break;
    }
    if (board.name_.empty()) return EEXIST;
    if (region.get_address())
        board.take_over(std::move(region));
    else if (int error = board.make())
        return error;
    ret_board = std::move(board);
    return 0;
}

void Board::map(interprocess::mapped_region region) {
    region_ = std::move(region);
    layout_ = static_cast<BoardLayout*>(region_.get_address());
    made_by_ = ::getpid();
    // No child has any business here: a process that forks leaves the mapping behind.
    ::madvise(region_.get_address(), region_.get_size(), MADV_DONTFORK);
    publish(layout_->daemon, [](BoardDaemon& daemon) { store(daemon.release, WARMFORK_VERSION); });
}

int Board::make() {
    interprocess::shared_memory_object::remove(name_.c_str());
    interprocess::mapped_region region;
    try {
        interprocess::permissions owner_alone;
        owner_alone.set_permissions(0600);
        interprocess::shared_memory_object object(interprocess::create_only, name_.c_str(),
                                                  interprocess::read_write, owner_alone);
        // All of it is taken now: where /dev/shm is full a store to a page that is not there would
        // raise SIGBUS.
        int error = ::posix_fallocate(object.get_mapping_handle().handle, 0, sizeof(BoardLayout));
        if (!error) error = map_object(object, sizeof(BoardLayout), region);
        if (error) {
            interprocess::shared_memory_object::remove(name_.c_str());
            return error;
        }
    } catch (const interprocess::interprocess_exception& error) {
        // EEXIST means that it could not be removed.
        return errno_of(error) == EEXIST ? EACCES : errno_of(error);
    }
    map(std::move(region));
    BoardIdentity& identity = layout_->identity;
    identity.version = kBoardVersion;
    identity.pid = static_cast<std::uint64_t>(::getpid());
    identity.start_ticks = process_start_ticks(identity.pid);
    identity.started_ns = nanoseconds_since_boot();
    identity.magic.store(kBoardMagic, std::memory_order_release);
    return 0;
}

void Board::take_over(interprocess::mapped_region region) {
    map(std::move(region));
    for (Published<BoardTemplate>& entry : layout_->templates) publish(entry, set_free);
    for (Published<BoardClient>& client : layout_->clients) publish(client, clear<BoardClient>);
    publish(layout_->daemon, [](BoardDaemon& daemon) {
        for (std::uint64_t* word : {&daemon.clients, &daemon.children, &daemon.templates_not_shown,
                                    &daemon.clients_not_shown})
            store(*word, 0);
    });
}

TemplateEntry Board::template_entry(std::string_view name, std::string_view base) {
    if (!layout_) return {};
    Published<BoardTemplate>* const place = find_place(*layout_, name);
    publish_entry(place, [&](BoardTemplate& entry) {
        if (!holds(entry.name, name)) clear(entry);
        store(entry.name, name);
        store(entry.base, base);
        set_state_word(entry, TemplateState::idle);
    });
    publish(layout_->daemon, [&](BoardDaemon& daemon) {
        if (place)
            raise_to(daemon.template_slots,
                     static_cast<std::uint64_t>(place - layout_->templates) + 1);
        else
            add(daemon.templates_not_shown, 1);
    });
    return {layout_, place};
}

ClientEntry Board::client_entry(pid_t pid, uid_t uid, std::string_view command) {
    if (!layout_) return {};
    Published<BoardClient>* const place = find_client_place(*layout_);
    publish_entry(place, [&](BoardClient& client) {
        store(client.pid, static_cast<std::uint64_t>(pid));
        store(client.uid, uid);
        store(client.command, command);
    });
    publish(layout_->daemon, [&](BoardDaemon& daemon) {
        add(daemon.clients, 1);
        if (place)
            raise_to(daemon.client_slots, static_cast<std::uint64_t>(place - layout_->clients) + 1);
        else
            add(daemon.clients_not_shown, 1);
    });
    return {layout_, place};
}

void Board::set_socket(std::string_view path) {
    publish_daemon(layout_, [&](BoardDaemon& daemon) { store(daemon.socket, path); });
}

void Board::set_children(std::uint64_t alive) {
    publish_daemon(layout_, [&](BoardDaemon& daemon) { store(daemon.children, alive); });
}

}  // namespace warmfork
