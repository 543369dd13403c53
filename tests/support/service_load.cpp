// Puts load on the service at WARMFORK_SOCKET and prints what came of it, as JSON:
//
//   warmfork-service-load CLIENTS SPAWNS [ATTACKERS]
//
// CLIENTS processes at once, each of which spawns SPAWNS children of the template `probe`, one
// after the other, and waits for each. ATTACKERS processes send garbage, requests without end and
// nothing meanwhile. In the output: spawned and lost (of all clients), least and most (spawns that
// a client had completed when the first one was done), p50_us and p99_us (of a spawn, until the
// child has started), seconds.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "channel/service_socket.hpp"
#include "protocol/service_bodies.hpp"
#include "warmfork.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using namespace warmfork;

constexpr std::size_t kMostClients = 1000, kMostSpawns = 100'000;

struct Shared {
    std::atomic<std::uint32_t> ready{0}, has_begun{0}, has_snapshot{0};
    std::atomic<std::uint64_t> lost{0};
    std::atomic<std::uint32_t> done[kMostClients];
    std::uint32_t snapshot[kMostClients];
};

void spawn_all(Shared& shared, std::uint32_t* microseconds, std::size_t self, std::size_t clients,
               std::size_t spawns) {
    Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
    const std::string code = std::to_string(self % 200);
    const char* const arguments[] = {WARMFORK_PROBE, "exit", code.c_str(), nullptr};
    warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments;
    ++shared.ready;
    while (!shared.has_begun) ::poll(nullptr, 0, 1);
    for (std::size_t i = 0; i < spawns; ++i) {
        const auto began = Clock::now();
        try {
            Process child = table.spawn(request);
            microseconds[i] = static_cast<std::uint32_t>(
                std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began)
                    .count());
            const int status = child.wait();
            if (!WIFEXITED(status) || WEXITSTATUS(status) != static_cast<int>(self % 200))
                ++shared.lost;
        } catch (const std::exception& error) {
            std::fprintf(stderr, "%s\n", error.what());
            ++shared.lost;
        }
        ++shared.done[self];
    }
    if (shared.has_snapshot.exchange(1) == 0)
        for (std::size_t i = 0; i < clients; ++i) shared.snapshot[i] = shared.done[i];
}

int connected() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, std::getenv("WARMFORK_SOCKET"), sizeof address.sun_path - 1);
    const int socket = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) ::_exit(1);
    return socket;
}

[[noreturn]] void attack(std::size_t self) {
    ::signal(SIGPIPE, SIG_IGN);
    for (unsigned round = 0;; ++round) {
        const Descriptor socket(connected());
        const auto hello = FieldWriter().number(1).bytes(),
                   name = FieldWriter().text("probe").bytes();
        if (self % 3 == 0) {  // garbage
            char bytes[100];
            for (char& byte : bytes) byte = static_cast<char>(::random());
            ::send(socket.get(), bytes, sizeof bytes, 0);
            continue;
        }
        int error = send_service_message(socket.get(), ServiceKind::hello, 0, hello, {}, 0);
        if (self % 3 == 1) {  // requests without end
            for (int i = 0; i < 100'000 && !error; ++i) {
                error = send_service_message(socket.get(), ServiceKind::find, 1, name, {},
                                             MSG_DONTWAIT);
                if (error == EAGAIN) {
                    pollfd polled{socket.get(), POLLOUT, 0};
                    if (::poll(&polled, 1, 100) == 1) error = 0;
                }
            }
            continue;
        }
        const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);  // descriptors without end
        const int four[] = {nothing, nothing, nothing, nothing};
        for (int i = 0; i < 1000 && !error; ++i)
            error = send_service_message(socket.get(), ServiceKind::used, 0,
                                         write_body(UseReport{"probe", 1, 0}), four, 0);
        ::close(nothing);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return 64;
    const auto clients = std::min(kMostClients, std::size_t{std::strtoul(argv[1], nullptr, 10)});
    const auto spawns = std::min(kMostSpawns, std::size_t{std::strtoul(argv[2], nullptr, 10)});
    const std::size_t attackers = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 0;
    const std::size_t size = sizeof(Shared) + clients * spawns * sizeof(std::uint32_t);
    void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 1;
    Shared& shared = *new (memory) Shared;
    auto* times = reinterpret_cast<std::uint32_t*>(&shared + 1);
    std::vector<pid_t> pids, hostile;
    for (std::size_t i = 0; i < clients + attackers; ++i) {
        const pid_t pid = ::fork();
        if (pid == 0) {
            if (i >= clients) attack(i);
            try {
                spawn_all(shared, times + i * spawns, i, clients, spawns);
            } catch (const std::exception& error) {
                std::fprintf(stderr, "%s\n", error.what());
                ::_exit(1);
            }
            ::_exit(0);
        }
        (i < clients ? pids : hostile).push_back(pid);
    }
    while (shared.ready < clients) {
        if (::waitpid(-1, nullptr, WNOHANG) > 0) return 1;
        ::poll(nullptr, 0, 1);
    }
    const auto began = Clock::now();
    shared.has_begun = 1;
    for (pid_t pid : pids) ::waitpid(pid, nullptr, 0);
    const std::chrono::duration<double> seconds = Clock::now() - began;
    for (pid_t pid : hostile) {
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
    }
    std::sort(times, times + clients * spawns);
    std::uint64_t done = 0;
    for (std::size_t i = 0; i < clients; ++i) done += shared.done[i];
    const auto [least, most] = std::minmax_element(shared.snapshot, shared.snapshot + clients);
    const nlohmann::json result{{"clients", clients},
                                {"spawned", done},
                                {"lost", shared.lost.load()},
                                {"least", *least},
                                {"most", *most},
                                {"p50_us", times[clients * spawns / 2]},
                                {"p99_us", times[clients * spawns * 99 / 100]},
                                {"seconds", seconds.count()}};
    std::printf("%s\n", result.dump().c_str());
    return shared.lost > 0;
}
