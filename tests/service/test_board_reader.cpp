// What readers make of a board, also of one that is being written, is broken, or is none.
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "service/board.hpp"
#include "service/board_object.hpp"
#include "service/board_reader.hpp"
#include "service/board_scene.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;
using namespace std::chrono_literals;

namespace {

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
