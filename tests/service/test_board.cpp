#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <thread>

#include "service/board.hpp"
#include "service/board_object.hpp"
#include "service/board_reader.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;
using namespace std::chrono_literals;
namespace interprocess = boost::interprocess;

namespace {

/// An instance of this test process alone.
std::string instance() {
    return fmt::format("test-{}", ::getpid());
}

std::string object_name() {
    return board_name(::geteuid(), instance());
}

int read(BoardSnapshot& ret_snapshot) {
    return read_board(::geteuid(), instance(), ret_snapshot);
}

BoardSnapshot snapshot() {
    BoardSnapshot read_now;
    REQUIRE(read(read_now) == 0);
    return read_now;
}

Board make_board() {
    Board board;
    REQUIRE(Board::create(instance(), board) == 0);
    return board;
}

/// What somebody else who may write to the board sees of it.
struct RawBoard {
    RawBoard()
        : object(interprocess::open_only, object_name().c_str(), interprocess::read_write),
          region(object, interprocess::read_write) {}
    BoardLayout& layout() { return *static_cast<BoardLayout*>(region.get_address()); }

    interprocess::shared_memory_object object;
    interprocess::mapped_region region;
};

/// An object with the board's name that is no board, removed again.
struct Imposter {
    explicit Imposter(std::size_t size) {
        interprocess::shared_memory_object made(interprocess::create_only, object_name().c_str(),
                                                interprocess::read_write);
        // Not to nothing: some versions of the library take that for an error.
        if (size > 0) made.truncate(static_cast<interprocess::offset_t>(size));
    }
    ~Imposter() { interprocess::shared_memory_object::remove(object_name().c_str()); }
};

/// Runs in a process of its own, which may be killed.
template <typename Body>
pid_t in_child(Body body) {
    const pid_t pid = ::fork();
    if (pid == 0) {
        body();
        ::_exit(0);
    }
    return pid;
}

int wait_for(pid_t pid) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    return status;
}

/// A daemon that has made the board `name` and was killed.
void leave_board_of_dead_daemon(const std::string& name) {
    Pipe made;
    const pid_t daemon = in_child([&] {
        Board board;
        const char answer = Board::create(name, board) == 0 ? '1' : '0';
        if (::write(made.write_end.get(), &answer, 1) == 1) ::pause();
        ::_exit(1);
    });
    char answer = 0;
    REQUIRE(::read(made.read_end.get(), &answer, 1) == 1);
    REQUIRE(answer == '1');
    ::kill(daemon, SIGKILL);
    wait_for(daemon);
}

LatencyCounts count(const std::vector<std::uint64_t>& values) {
    LatencyCounts counts{};
    for (std::uint64_t value : values) ++counts[latency_bucket(value)];
    return counts;
}

std::uint64_t exact_percentile(std::vector<std::uint64_t> values, double part) {
    std::sort(values.begin(), values.end());
    const auto rank = static_cast<std::size_t>(std::ceil(part * double(values.size())));
    return values[std::max<std::size_t>(rank, 1) - 1];
}

}  // namespace

TEST_CASE("What the daemon writes is what a reader sees") {
    Board board = make_board();
    TemplateEntry num = board.template_entry("num", "base");
    num.set_state(TemplateState::ready);
    num.set_images(4711, 2);
    num.count_start();
    num.set_preload(812ms);
    num.set_population(4, 2, 3);
    num.set_memory(62000, 31000);
    num.count_spawn(100us);
    num.count_spawn(100us);
    num.count_cold(WARMFORK_REASON_STALE);
    ClientEntry client = board.client_entry(815, 1000, "pytest");
    client.set_usage(3, 2, 40);
    client.set_cost(1 << 20, 2500);
    board.set_children(3);

    const BoardSnapshot seen = snapshot();
    CHECK(seen.pid == ::getpid());
    CHECK(seen.release == WARMFORK_VERSION);
    CHECK(seen.clients_connected == 1);
    CHECK(seen.children == 3);
    CHECK(seen.spawns == 2);
    CHECK(seen.cold[WARMFORK_REASON_STALE] == 1);
    CHECK(seen.unreadable == 0);
    REQUIRE(seen.templates.size() == 1);
    const TemplateSnapshot& entry = seen.templates.front();
    CHECK(entry.name == "num");
    CHECK(entry.base == "base");
    CHECK(entry.state == TemplateState::ready);
    CHECK(entry.pid == 4711);
    CHECK(entry.images == 2);
    CHECK(entry.starts == 1);
    CHECK(entry.preload == 812ms);
    CHECK(entry.spares == 4);
    CHECK(entry.leased == 2);
    CHECK(entry.children == 3);
    CHECK(entry.resident_kb == 62000);
    CHECK(entry.proportional_kb == 31000);
    CHECK(latency_total(entry.latency) == 2);
    CHECK(entry.latency_sum_us == 200);
    CHECK(entry.cold[WARMFORK_REASON_STALE] == 1);
    REQUIRE(seen.clients.size() == 1);
    CHECK(seen.clients.front().pid == 815);
    CHECK(seen.clients.front().uid == 1000);
    CHECK(seen.clients.front().command == "pytest");
    CHECK(seen.clients.front().children == 3);
    CHECK(seen.clients.front().leases == 2);
    CHECK(seen.clients.front().spawns == 40);
    CHECK(seen.clients.front().memory == 1 << 20);
    CHECK(seen.clients.front().cpu_us == 2500);
}

TEST_CASE("A failing template shows its last line and when it is tried again, until it is ready") {
    Board board = make_board();
    TemplateEntry broken = board.template_entry("broken");
    broken.set_failing(1h, "ModuleNotFoundError: No module named 'nunpy'");
    TemplateSnapshot entry = snapshot().templates.at(0);
    CHECK(entry.state == TemplateState::failing);
    CHECK(entry.error == "ModuleNotFoundError: No module named 'nunpy'");
    CHECK(entry.retry_in <= 1h);
    CHECK(entry.retry_in > 0h);
    broken.set_state(TemplateState::preloading);
    entry = snapshot().templates.at(0);
    CHECK(entry.retry_in == 0ms);
    CHECK_FALSE(entry.error.empty());
    broken.set_state(TemplateState::ready);
    CHECK(snapshot().templates.at(0).error.empty());
}

TEST_CASE("The board is for its owner's eyes, whatever the umask, and goes with the daemon") {
    struct stat status;
    const std::string file = "/dev/shm/" + object_name();
    {
        const mode_t umask_before = ::umask(0);
        Board board = make_board();
        ::umask(umask_before);
        REQUIRE(::stat(file.c_str(), &status) == 0);
        CHECK((status.st_mode & 0777) == 0600);
    }
    CHECK(::stat(file.c_str(), &status) < 0);
    BoardSnapshot unused;
    CHECK(read(unused) == ENOENT);
}

TEST_CASE("A forked copy of the daemon does not remove the board") {
    Board board = make_board();
    CHECK(wait_for(in_child([&] { Board copy = std::move(board); })) == 0);
    snapshot();
}

TEST_CASE("Entries that are given back are seen no more") {
    Board board = make_board();
    {
        const TemplateEntry entry = board.template_entry("num");
        const ClientEntry client = board.client_entry(815, 1000, "pytest");
        CHECK(snapshot().templates.size() == 1);
        CHECK(snapshot().clients.size() == 1);
    }
    CHECK(snapshot().templates.empty());
    CHECK(snapshot().clients.empty());
    CHECK(snapshot().clients_connected == 0);
}

TEST_CASE("Counts of a template that comes back go on, and another's begin at nothing") {
    Board board = make_board();
    board.template_entry("num").count_spawn(5us);
    const TemplateEntry other = board.template_entry("other");
    TemplateEntry num = board.template_entry("num");
    num.count_spawn(5us);
    const BoardSnapshot seen = snapshot();
    CHECK(latency_total(seen.templates.at(0).latency) == 2);
    CHECK(latency_total(seen.templates.at(1).latency) == 0);
}

TEST_CASE("The board of a dead daemon is known for one, and replaced") {
    const std::string name = instance();
    leave_board_of_dead_daemon(name);
    BoardSnapshot unused;
    CHECK(read(unused) == ESRCH);
    Board board = make_board();
    CHECK(snapshot().pid == ::getpid());
}

TEST_CASE("A live daemon's board is not taken away") {
    Board board = make_board();
    const std::string name = instance();
    const pid_t second = in_child([&] {
        Board another;
        ::_exit(Board::create(name, another));
    });
    CHECK(WEXITSTATUS(wait_for(second)) == EEXIST);
    CHECK(snapshot().pid == ::getpid());
}

TEST_CASE("Where another daemon has the first name a board has the next") {
    Board first = make_board();
    const std::string names[] = {instance(), instance() + ".second"};
    Pipe made, looked;
    const pid_t daemon = in_child([&] {
        Board second;
        int error = Board::create_one_of(names, second);
        second.set_socket("/second/socket");
        char byte = '0';
        if (::write(made.write_end.get(), "", 1) != 1 ||
            ::read(looked.read_end.get(), &byte, 1) != 1)
            ::_exit(1);
        // The first name is free by now; after an exec it stays with its own all the same.
        Board after_exec;
        if (!error) error = Board::create_one_of(names, after_exec);
        BoardSnapshot unused;
        if (!error && read_board(::geteuid(), names[0], unused) != ENOENT) error = 2;
        if (!error) error = read_board(::geteuid(), names[1], unused);
        ::_exit(error);
    });
    char byte;
    REQUIRE(::read(made.read_end.get(), &byte, 1) == 1);
    BoardSnapshot seen;
    CHECK(read_board(::geteuid(), names[1], seen) == 0);
    CHECK(seen.pid == daemon);
    CHECK(seen.socket == "/second/socket");
    const std::vector<std::string> found = find_instances(::geteuid());
    for (const std::string& name : names) CHECK(std::count(found.begin(), found.end(), name) == 1);
    first = Board();
    REQUIRE(::write(looked.write_end.get(), "", 1) == 1);
    CHECK(WEXITSTATUS(wait_for(daemon)) == 0);
    interprocess::shared_memory_object::remove(board_name(::geteuid(), names[1]).c_str());
}

TEST_CASE("A daemon that has exec'd itself goes on with its own board") {
    Board before = make_board();
    TemplateEntry old = before.template_entry("num");
    old.set_state(TemplateState::ready);
    old.count_spawn(5us);
    const ClientEntry old_client = before.client_entry(815, 1000, "pytest");

    Board after = make_board();
    BoardSnapshot seen = snapshot();
    CHECK(seen.templates.empty());
    CHECK(seen.clients.empty());
    CHECK(seen.clients_connected == 0);
    CHECK(seen.spawns == 1);
    TemplateEntry num = after.template_entry("num");
    num.count_spawn(5us);
    seen = snapshot();
    CHECK(latency_total(seen.templates.at(0).latency) == 2);
    CHECK(seen.templates.at(0).state == TemplateState::idle);
    CHECK(seen.spawns == 2);
}

TEST_CASE("Templates and clients beyond the board's room are counted, not shown") {
    Board board = make_board();
    std::vector<TemplateEntry> templates;
    for (std::size_t i = 0; i < kBoardTemplates + 2; ++i)
        templates.push_back(board.template_entry(fmt::format("t{}", i)));
    std::vector<ClientEntry> clients;
    for (std::size_t i = 0; i < kBoardClients + 3; ++i)
        clients.push_back(board.client_entry(static_cast<pid_t>(i + 1), 0, "c"));
    CHECK(templates[kBoardTemplates - 1].is_shown());
    CHECK_FALSE(templates.back().is_shown());
    CHECK_FALSE(clients.back().is_shown());
    templates.back().set_state(TemplateState::ready);
    templates.back().count_spawn(1us);
    templates.back().count_cold(WARMFORK_REASON_FORK);
    clients.back().set_usage(1, 1, 1);

    BoardSnapshot seen = snapshot();
    CHECK(seen.templates.size() == kBoardTemplates);
    CHECK(seen.templates_not_shown == 2);
    CHECK(seen.clients.size() == kBoardClients);
    CHECK(seen.clients_not_shown == 3);
    CHECK(seen.clients_connected == kBoardClients + 3);
    CHECK(seen.spawns == 1);
    CHECK(seen.cold[WARMFORK_REASON_FORK] == 1);

    templates.clear();
    clients.clear();
    const TemplateEntry again = board.template_entry("another");
    CHECK(again.is_shown());
    seen = snapshot();
    CHECK(seen.templates_not_shown == 0);
    CHECK(seen.clients_not_shown == 0);
    CHECK(seen.clients_connected == 0);
}

TEST_CASE("Without a board every call is taken and shows nothing") {
    Board board;
    TemplateEntry entry = board.template_entry("num");
    entry.set_state(TemplateState::ready);
    entry.count_spawn(1us);
    ClientEntry client = board.client_entry(1, 1, "c");
    client.set_usage(1, 1, 1);
    board.set_children(1);
    CHECK_FALSE(entry.is_shown());
    CHECK_FALSE(client.is_shown());
}

TEST_CASE("A reader never sees half of a change") {
    Board board = make_board();
    TemplateEntry entry = board.template_entry("num");
    std::atomic<bool> stop = false, has_begun = false;
    std::thread daemon([&] {
        for (std::uint64_t i = 1; !stop; ++i) {
            entry.set_population(i, i, i);
            entry.set_failing(1s, std::string(256, static_cast<char>('a' + i % 26)));
            has_begun = true;
        }
    });
    while (!has_begun) std::this_thread::yield();
    std::uint64_t halves = 0, seen = 0;
    for (int round = 0; round < 2000; ++round) {
        BoardSnapshot now;
        if (read(now) || now.templates.empty()) continue;  // changed during each of the tries
        const TemplateSnapshot& num = now.templates.front();
        if (num.error.empty()) continue;
        ++seen;
        halves += num.spares != num.leased || num.leased != num.children ||
                  num.error != std::string(256, num.error.front());
    }
    stop = true;
    daemon.join();
    CHECK(halves == 0);
    CHECK(seen > 0);
}

TEST_CASE("A daemon that stopped in the middle of a change holds no reader up") {
    Board board = make_board();
    TemplateEntry one = board.template_entry("one");
    const TemplateEntry other = board.template_entry("other");
    RawBoard raw;
    SECTION("of an entry") {
        raw.layout().templates[0].sequence.fetch_add(1);
        const BoardSnapshot seen = snapshot();
        CHECK(seen.unreadable == 1);
        REQUIRE(seen.templates.size() == 1);
        CHECK(seen.templates.front().name == "other");
    }
    SECTION("of the totals") {
        raw.layout().daemon.sequence.fetch_add(1);
        BoardSnapshot seen;
        CHECK(read(seen) == EAGAIN);
    }
    SECTION("and the next change ends that state") {
        raw.layout().templates[0].sequence.fetch_add(1);
        one.set_state(TemplateState::ready);
        CHECK(snapshot().templates.size() == 2);
    }
}

TEST_CASE(
    "A board of which nothing is readable takes no longer to read than one unreadable entry") {
    const auto processor_time = [] {
        timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
    };
    const auto time_to_read = [&] {
        auto least = std::chrono::nanoseconds::max();
        for (int i = 0; i < 5;
             ++i) {  // a processor that is itself lent to others counts their time
            const auto began = processor_time();
            static_cast<void>(snapshot());
            least = std::min(least, processor_time() - began);
        }
        return least;
    };
    Board board = make_board();
    RawBoard raw;
    raw.layout().daemon.value.template_slots = kBoardTemplates;
    raw.layout().daemon.value.client_slots = kBoardClients;
    raw.layout().templates[0].sequence.fetch_add(1);
    const auto of_one = time_to_read();
    for (std::size_t i = 1; i < kBoardTemplates; ++i)
        raw.layout().templates[i].sequence.fetch_add(1);
    for (auto& client : raw.layout().clients) client.sequence.fetch_add(1);
    CHECK(snapshot().unreadable == kBoardTemplates + kBoardClients);
    CHECK(time_to_read() < 10 * of_one);
}

TEST_CASE("A board that is cut short again and again while it is read ends no reader") {
    Board board = make_board();
    const TemplateEntry entry = board.template_entry("one");
    const pid_t reader = in_child([name = instance()] {
        BoardSnapshot seen;
        for (int whole = 0, cut = 0; whole < 200 || cut < 200;) {
            const int error = read_board(::geteuid(), name, seen);
            if (error != 0 && error != EPROTO) ::_exit(error);
            ++(error ? cut : whole);
        }
    });
    const Descriptor end = open_pidfd(reader);
    {
        RawBoard raw;
        raw.layout().daemon.value.template_slots = kBoardTemplates;
        pollfd ended{end.get(), POLLIN, 0};
        const int file = raw.object.get_mapping_handle().handle;
        while (::poll(&ended, 1, 0) == 0) {
            if (::ftruncate(file, 4096) < 0 || ::ftruncate(file, sizeof(BoardLayout)) < 0) break;
        }
    }
    const int status = wait_for(reader);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("Percentiles are within a tenth of the exact ones") {
    std::mt19937_64 random(11);
    std::vector<std::uint64_t> values;
    SECTION("of what spawns look like") {
        std::lognormal_distribution<double> latency(6, 1.5);
        for (int i = 0; i < 20'000; ++i) values.push_back(std::uint64_t(latency(random)));
    }
    SECTION("of a few microseconds") {
        for (int i = 0; i < 1000; ++i) values.push_back(random() % 20);
    }
    SECTION("of two kinds, far apart") {
        for (int i = 0; i < 1000; ++i) values.push_back(i % 10 ? 60 : 12'000'000);
    }
    SECTION("of one spawn") {
        values.push_back(12345);
    }
    const LatencyCounts counts = count(values);
    for (double part : {0.5, 0.9, 0.99}) {
        const auto exact = double(exact_percentile(values, part));
        CHECK(std::abs(latency_percentile(counts, part) - exact) <= exact / 10);
    }
}

TEST_CASE("Every duration has a bucket, and lies in it") {
    for (unsigned bits = 0; bits < 64; ++bits)
        for (std::uint64_t value : {std::uint64_t{1} << bits, (std::uint64_t{2} << bits) - 1}) {
            const std::size_t bucket = latency_bucket(value);
            REQUIRE(bucket < kLatencyBuckets);
            CHECK(latency_floor(bucket) <= value);
            CHECK((value < latency_floor(bucket + 1) || bucket == kLatencyBuckets - 1));
        }
    CHECK(latency_percentile({}, 0.5) == 0);
}

TEST_CASE("Texts of any bytes come out as UTF-8 that a terminal can be shown") {
    Board board = make_board();
    TemplateEntry entry = board.template_entry("\x1b[2Jnum\xff\x80");
    entry.set_failing(1s, "caf\xc3\xa9\r\nsecond\x9b line \xe2\x82");
    BoardSnapshot seen = snapshot();
    CHECK(seen.templates.at(0).name == " [2Jnum\xef\xbf\xbd\xef\xbf\xbd");
    CHECK(seen.templates.at(0).error ==
          "caf\xc3\xa9  second\xef\xbf\xbd line \xef\xbf\xbd\xef\xbf\xbd");
    entry.set_failing(1s, std::string(1000, 'x'));
    CHECK(snapshot().templates.at(0).error == std::string(256, 'x'));
}

TEST_CASE("A client's entry with a number that no process can have is not shown") {
    Board board = make_board();
    ClientEntry client = board.client_entry(815, 1000, "pytest");
    RawBoard().layout().clients[0].value.pid = std::uint64_t{1} << 40;
    CHECK(snapshot().clients.empty());
}

TEST_CASE("What is not a live daemon's board of this version is refused") {
    BoardSnapshot unused;
    SECTION("no size yet") {
        Imposter imposter(0);
        CHECK(read(unused) == ENOENT);
    }
    SECTION("no magic yet") {
        Imposter imposter(sizeof(BoardLayout));
        CHECK(read(unused) == ENOENT);
    }
    SECTION("a few bytes") {
        Imposter imposter(8);
        CHECK(read(unused) == EPROTO);
    }
    SECTION("another magic") {
        Board board = make_board();
        RawBoard().layout().identity.magic = 1;
        CHECK(read(unused) == EPROTO);
    }
    SECTION("another version") {
        Board board = make_board();
        RawBoard().layout().identity.version = kBoardVersion + 1;
        CHECK(read(unused) == EPROTONOSUPPORT);
    }
    SECTION("cut short") {
        Board board = make_board();
        RawBoard().object.truncate(sizeof(BoardLayout) - 4096);
        CHECK(read(unused) == EPROTO);
    }
    SECTION("of a pid that began again") {
        Board board = make_board();
        RawBoard().layout().identity.start_ticks += 1;
        CHECK(read(unused) == ESRCH);
    }
    SECTION("no name for an instance") {
        CHECK(read_board(::geteuid(), "../x", unused) == EINVAL);
        CHECK(read_board(::geteuid(), std::string(65, 'x'), unused) == EINVAL);
        Board board;
        CHECK(Board::create("a/b", board) == EINVAL);
    }
}

TEST_CASE("Somebody else's object with the board's name is neither read nor waited for") {
    BoardSnapshot unused;
    const std::string file = "/dev/shm/" + object_name();
    SECTION("a pipe") {
        REQUIRE(::mkfifo(file.c_str(), 0666) == 0);
        CHECK(read(unused) == EACCES);
        Board board;
        CHECK(Board::create(instance(), board) == 0);  // ours, so it could be removed
    }
    SECTION("another user's") {
        if (::geteuid() != 0) return;  // only root can play this user
        Imposter imposter(sizeof(BoardLayout));
        REQUIRE(::chown(file.c_str(), 65534, 65534) == 0);
        CHECK(read(unused) == EACCES);
    }
    SECTION("which cannot be removed") {
        if (::geteuid() != 0) return;
        const std::string theirs = board_name(65533, instance());
        const std::string name = instance();
        const std::string path = "/dev/shm/" + theirs;
        const Descriptor made(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666));
        const pid_t daemon = in_child([&] {
            if (::setuid(65533)) ::_exit(255);
            Board board;
            ::_exit(Board::create(name, board));
        });
        CHECK(WEXITSTATUS(wait_for(daemon)) == EACCES);
        ::unlink(path.c_str());
    }
}

TEST_CASE("Any bytes on the board are read within bounds") {
    Board board = make_board();
    RawBoard raw;
    std::mt19937_64 random(5);
    BoardLayout& layout = raw.layout();
    auto* const words = reinterpret_cast<std::uint64_t*>(&layout.daemon);
    const std::size_t count = (sizeof layout - offsetof(BoardLayout, daemon)) / sizeof *words;
    for (int round = 0; round < 30; ++round) {
        for (std::size_t i = 0; i < count; ++i) words[i] = random() >> (round * 2);
        // Readable, or they would just be left out.
        layout.daemon.sequence = 2;
        for (auto& entry : layout.templates) entry.sequence = 2;
        for (auto& client : layout.clients) client.sequence = 2;
        layout.identity.started_ns = random();
        const BoardSnapshot seen = snapshot();
        CHECK(seen.templates.size() <= kBoardTemplates);
        CHECK(seen.clients.size() <= kBoardClients);
        for (const TemplateSnapshot& entry : seen.templates) {
            CHECK(entry.name.size() <= 3 * 64);
            CHECK(entry.pid >= 0);
            CHECK(std::isfinite(latency_percentile(entry.latency, 0.99)));
        }
        // The daemon trusts it no more: neither its entries' numbers nor their count.
        board.template_entry("num").count_spawn(1us);
    }
}

TEST_CASE("A full /dev/shm is an error when the board is made, and nothing is left") {
    const std::string name = instance();
    const pid_t daemon = in_child([&] {
        // Not allowed here (no privileges): nothing to test.
        if (::unshare(CLONE_NEWNS) || ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) ||
            ::mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64k"))
            ::_exit(ENOSPC);
        Board board;
        const int error = Board::create(name, board);
        const bool is_left =
            ::access(("/dev/shm/" + board_name(::geteuid(), name)).c_str(), F_OK) == 0;
        ::_exit(is_left ? 255 : error);
    });
    CHECK(WEXITSTATUS(wait_for(daemon)) == ENOSPC);
}
