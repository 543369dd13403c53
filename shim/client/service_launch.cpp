#include "client/service_launch.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "channel/deadline.hpp"
#include "channel/process_identity.hpp"
#include "owner/companions.hpp"
#include "owner/waiting.hpp"
#include "protocol/service.hpp"
#include "protocol/variables.hpp"

namespace warmfork {
namespace {

// Of the client's environment: who the user is, and where things are, as systemd would say it. All
// else is this client's own, and would be found in the memory of templates that serve others too. A
// trailing '*' stands for any rest.
constexpr std::string_view kVariables[] = {
    "HOME",         "PATH", "USER", "LOGNAME", "SHELL", "LANG",
    "LANGUAGE",     "LC_*", "TZ",   "TMPDIR",  "XDG_*", "DBUS_SESSION_BUS_ADDRESS",
    kSocketVariable};

std::vector<char*> clean_environment() {
    std::vector<char*> environment;
    for (char** variable = environ; variable && *variable; ++variable) {
        const std::string_view text(*variable), name = text.substr(0, text.find('='));
        if (std::any_of(std::begin(kVariables), std::end(kVariables), [&](std::string_view known) {
                return known.ends_with('*') ? name.starts_with(known.substr(0, known.size() - 1))
                                            : name == known;
            }))
            environment.push_back(*variable);
    }
    environment.push_back(nullptr);
    return environment;
}

// How long it may take to say whether it can listen, which it does at once.
constexpr std::chrono::seconds kLaunchPatience{10};

/// Runs it until it has gone to the background, and reads what it wrote until then. Returns 0 or
/// errno (ETIMEDOUT: it has done neither in time, and was killed).
int run(const std::string& program, const std::string& path, int& ret_status,
        std::string& ret_text) {
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) < 0) return errno;
    Descriptor read_end(pipe[0]), write_end(pipe[1]);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, write_end.get(), 2);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    posix_spawnattr_t attributes;
    ::posix_spawnattr_init(&attributes);
    sigset_t none, all;
    ::sigemptyset(&none);
    ::sigfillset(&all);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setsigdefault(&attributes, &all);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const char* const arguments[] = {"warmforkd", "--background", "--socket", path.c_str(),
                                     nullptr};
    pid_t pid;
    const int error =
        ::posix_spawn(&pid, program.c_str(), &actions, &attributes,
                      const_cast<char* const*>(arguments), clean_environment().data());
    ::posix_spawn_file_actions_destroy(&actions);
    ::posix_spawnattr_destroy(&attributes);
    if (error) return error;
    // This is done at once: as long as it runs nobody else can have reaped it.
    const Descriptor pidfd = open_pidfd(pid);
    if (!pidfd) return errno;
    write_end.reset();
    const Deadline deadline = WaitClock::now() + kLaunchPatience;
    char buffer[1024];
    ssize_t size = 1;
    pollfd polled{read_end.get(), POLLIN, 0}, ended{pidfd.get(), POLLIN, 0};
    while (size != 0 && poll_until(std::span(&polled, 1), deadline) > 0) {
        size = ::read(read_end.get(), buffer, sizeof buffer);
        if (size > 0) ret_text.append(buffer, static_cast<std::size_t>(size));
        if (size < 0 && errno != EINTR) break;
    }
    const bool ends = poll_until(std::span(&ended, 1), deadline) > 0;
    if (!ends) signal_pidfd(pidfd.get(), SIGKILL);
    const int lost = reap_by(WaitClock::now() + kKillPatience, pidfd.get(), &ret_status);
    if (!ends) return was_interrupted() ? EINTR : ETIMEDOUT;
    return lost == ECHILD ? 0 : lost;  // somebody else has its status
}

}  // namespace

Outcome launch_service(const std::string& path) {
    const std::string program = find_companion("warmforkd");
    if (program.empty())
        return Failure{Stage::launch, ENOENT, 0,
                       "nobody listens at " + path + ", and warmforkd is not installed"};
    int status = 0;
    std::string text;
    if (int error = run(program, path, status, text))
        return make_failure(Stage::launch, error, "cannot start " + program);
    if (WIFEXITED(status) &&
        (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == kServicePlaceTaken))
        return {};
    while (text.ends_with('\n')) text.pop_back();
    return Failure{Stage::launch, ECHILD, 0, "the service did not start: " + text};
}

}  // namespace warmfork
