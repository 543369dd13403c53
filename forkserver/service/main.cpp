// warmforkd keeps templates warm for programs that come and go. This parses its command line,
// composes the service, and runs its loop.
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <system_error>

#include "channel/message_socket.hpp"
#include "channel/standard_numbers.hpp"
#include "owner/service_address.hpp"
#include "protocol/service.hpp"
#include "service/clean_state.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"
#include "service/service.hpp"

namespace {

using namespace warmfork;
using namespace warmfork::service;

/// Each child costs a pidfd; what it starts gets the limit back (RLIMIT_NOFILE travels with each
/// request). Where it cannot be raised there are fewer children, and the next is refused by name.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

std::vector<std::byte> take_handover() {
    const char* number = std::getenv(kHandoverVariable);
    if (!number) return {};
    const Descriptor memory(std::atoi(number));
    ::unsetenv(kHandoverVariable);
    struct stat status;
    if (::fstat(memory.get(), &status) < 0) return {};
    std::vector<std::byte> bytes(static_cast<std::size_t>(status.st_size));
    std::size_t size = 0;
    if (read_sealed_memfd(memory.get(), bytes, size)) return {};
    return bytes;
}

/// Goes on in a process of its own that nobody waits for. Whoever has called waits until it
/// listens, or has failed to, and ends as it did. Returns the pipe on which to say so.
Descriptor go_to_background() {
    // Before the fork: with SIGCHLD ignored, the child's status would be lost.
    if (const std::vector<std::string> left = return_to_clean_state(); !left.empty())
        log(LOG_WARNING, {},
            fmt::format("this service was started by a client and keeps of it: {}. Clients "
                        "that have more are served cold; warmforkd.socket of systemd starts "
                        "one that is nobody's",
                        fmt::join(left, ", ")));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        throw std::system_error(errno, std::generic_category(), "pipe");
    Descriptor read_end(ends[0]), write_end(ends[1]);
    const pid_t pid = ::fork();
    if (pid < 0) throw std::system_error(errno, std::generic_category(), "cannot fork");
    if (pid == 0) {
        ::setsid();
        if (::chdir("/") < 0)
            throw std::system_error(errno, std::generic_category(), "cannot enter /");
        return write_end;
    }
    write_end.reset();
    char byte;
    if (::read(read_end.get(), &byte, 1) == 1) ::_exit(0);
    int status = 0;
    ::waitpid(pid, &status, 0);
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/// From now on it speaks to the journal, if there is one. Whoever reads what its caller writes
/// would wait for this service's end as well, if it kept the caller's streams.
void leave_caller(const Descriptor& pipe) {
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int number : {0, 1, 2})
        if (!null || ::dup2(null.get(), number) < 0)
            throw std::system_error(errno, std::generic_category(),
                                    "cannot leave the caller's standard streams");
    log_to_journal_only();
    // Nobody reads it: the caller has been killed.
    [[maybe_unused]] const auto written = ::write(pipe.get(), "", 1);
}

int serve(Service::Options options, const std::string& socket, bool is_background) {
    Descriptor caller;
    if (is_background) caller = go_to_background();
    const std::vector<std::byte> left = take_handover();
    Listener listener;
    std::string error_text;
    if (left.empty())
        if (int error = listen(socket, listener, error_text)) {
            log(error == EADDRINUSE ? LOG_NOTICE : LOG_ERR, {},
                fmt::format("{}: {}", error_text, std::strerror(error)));
            return error == EADDRINUSE ? kServicePlaceTaken : 1;
        }
    EventLoop loop;
    Service service(loop, std::move(listener), std::move(options));
    const EventSource on_term = loop.on_signal(SIGTERM, [&] { service.stop(); });
    const EventSource on_int = loop.on_signal(SIGINT, [&] { service.stop(); });
    const EventSource on_hangup = loop.on_signal(SIGHUP, [&] { service.reload(); });
    loop.feed_watchdog();
    service.start(left);
    say_ready();
    if (caller) leave_caller(caller);
    caller.reset();
    return loop.run();
}

/// Returns the names that the board of a service may have. One without a name of its own may share
/// its user with others: then its socket, which is like no other, names it.
std::vector<std::string> instances_of(const std::string& instance, const std::string& socket) {
    if (!instance.empty()) return {instance};
    std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a, the same in all builds
    for (const char byte : socket) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
    return {{}, fmt::format("socket.{:016x}", hash)};
}

struct Arguments {
    std::vector<std::string> directories;
    std::string socket, instance;
    double idle_exit = -1;  ///< seconds; negative: as configured
    Service::Options options;
    bool is_verbose = false, is_background = false, is_releasing = false;
};

void define(CLI::App& app, Arguments& arguments) {
    app.add_option(
           "--config", arguments.directories,
           "Directory of the configuration, instead of the default ones; may be given again, "
           "the most specific last")
        ->type_name("DIRECTORY")
        ->allow_extra_args(false);
    app.add_option("--socket", arguments.socket,
                   "Where to listen, unless systemd passes a socket on (default: "
                   "$XDG_RUNTIME_DIR/warmfork/socket)")
        ->type_name("FILE");
    app.add_option("--instance", arguments.instance,
                   "Name of this service among those of its user, for `warmfork status NAME`")
        ->type_name("NAME");
    app.add_option("--idle-exit", arguments.idle_exit,
                   "Exit when nobody has needed it for so long; 0: never (default: as configured)")
        ->type_name("SECONDS");
    app.add_flag(
        "--background", arguments.is_background,
        "Return when it listens, and go on in the background, which is how clients start it");
    app.add_flag(
        "--delegated-cgroup", arguments.options.has_delegated_cgroup,
        "Its cgroup was delegated to it (Delegate=yes of the unit): each client's children "
        "get one of their own below it");
    app.add_flag("--release-cgroup", arguments.is_releasing,
                 "For ExecStopPost= of the unit: let systemd start the next one where children of "
                 "this one still run");
    app.add_flag("--verbose", arguments.is_verbose, "Log more");
    app.footer(
        "Signals: SIGHUP reads the configuration anew and upgrades in place: no client notices.\n"
        "SIGTERM and SIGINT stop: children may end by themselves for ten seconds.\n"
        "Exit status: 0, 1 with a message, 3 if another one serves already.");
}

}  // namespace

int main(int argc, char** argv) try {
    hold_standard_numbers();
    CLI::App app(
        "Keeps templates warm for programs that come and go. One a user, started by systemd's "
        "socket "
        "activation or by the first client.",
        "warmforkd");
    app.set_version_flag("--version", WARMFORK_VERSION);
    Arguments arguments;
    define(app, arguments);
    CLI11_PARSE(app, argc, argv);
    auto& [directories, socket, instance, idle_exit, options, is_verbose, is_background,
           is_releasing] = arguments;

    if (is_releasing) {
        Cgroups::release();
        return 0;
    }
    if (is_verbose) set_log_level(LOG_DEBUG);
    ::signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    options.directories = directories.empty() ? default_directories() : std::move(directories);
    if (idle_exit >= 0)
        options.idle_exit = std::chrono::milliseconds(static_cast<std::int64_t>(idle_exit * 1000));
    std::error_code error;
    options.program = std::filesystem::read_symlink("/proc/self/exe", error);
    options.command.assign(argv, argv + argc);
    std::erase(options.command, "--background");  // it is there already when it execs itself
    if (socket.empty()) socket = service_address();
    if (socket.empty() && ::sd_listen_fds(0) <= 0 && !std::getenv(kHandoverVariable)) {
        fmt::print(
            stderr,
            "warmforkd: XDG_RUNTIME_DIR is not set: there is no place for the socket. Give one "
            "with --socket\n");
        return 1;
    }
    options.instances = instances_of(instance, socket);
    return serve(std::move(options), socket, is_background);
} catch (const std::exception& failure) {
    log(LOG_ERR, {}, failure.what());
    return 1;
}
