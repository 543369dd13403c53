// What the daemon writes on its board, and how the board comes and goes.
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cstring>

#include "service/board.hpp"
#include "service/board_object.hpp"
#include "service/board_reader.hpp"
#include "service/board_scene.hpp"
#include "support/catch.hpp"
#include "support/processes.hpp"

using namespace warmfork;
using namespace std::chrono_literals;

namespace {

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
