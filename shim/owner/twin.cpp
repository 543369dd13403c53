#include "owner/twin.hpp"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "channel/deadline.hpp"
#include "owner/cold.hpp"
#include "owner/companions.hpp"
#include "owner/eligibility.hpp"
#include "owner/environment.hpp"
#include "owner/launch_environment.hpp"
#include "owner/launch_plan.hpp"
#include "owner/waiting.hpp"
#include "protocol/messages.hpp"
#include "template/freshness.hpp"

namespace warmfork {
namespace {

namespace fs = std::filesystem;

// How long one fork may take. A twin that takes longer has been stopped.
constexpr std::chrono::seconds kWakePatience{5};

struct KeptTwins {
    std::mutex mutex;
    pid_t owner = 0;
    std::optional<KeptTwin> twin;
};

KeptTwins& kept_twins() {
    // It is never destroyed: a thread may open a template until the very end.
    static auto* instance = new KeptTwins;
    return *instance;
}

/// Returns the strings of a file of /proc, each of which a null byte ends.
std::vector<std::string> strings_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<std::string> strings;
    for (std::string string; std::getline(file, string, '\0');) strings.push_back(string);
    return strings;
}

/// A template's command line, without the directories in which it looks for modules.
struct Command {
    std::vector<std::string> arguments, path;
};

Command take_apart(std::vector<std::string> arguments, std::size_t path_at) {
    Command command{std::move(arguments), {}};
    if (path_at == 0 || path_at >= command.arguments.size()) return command;
    const auto count = command.arguments.begin() + static_cast<std::ptrdiff_t>(path_at);
    const auto size = std::strtol(count->c_str(), nullptr, 10);
    const auto path = count + 1;
    const auto end = path + std::clamp<std::ptrdiff_t>(size, 0, command.arguments.end() - path);
    command.path.assign(path, end);
    command.arguments.erase(count, end);
    return command;
}

/// Would an import look at anything there, for one of the modules?
bool may_hold(const std::string& entry, const std::set<std::string>& modules) {
    std::error_code error;
    const bool is_directory = fs::is_directory(entry, error);
    return is_directory ? !importable_names(entry, modules).empty() : fs::exists(entry, error);
}

/// Are the modules, with those that were looked for in vain, found in the same places by both? What
/// is only in one of the paths holds none of them, and the rest comes in the same order.
bool is_same_search(const std::vector<std::string>& one, const std::vector<std::string>& other,
                    const ImageFacts& facts) {
    if (one == other) return true;
    std::set<std::string> modules;
    for (const std::string& entry : one)
        if (const auto place = facts.places.find(entry); place != facts.places.end())
            modules.insert(place->second.begin(), place->second.end());
    // What both end with is most of it, and need not be looked at.
    const auto [own_end, others_end] =
        std::mismatch(one.rbegin(), one.rend(), other.rbegin(), other.rend());
    const auto what_counts = [&](auto begin, auto end) {
        std::vector<std::string> counts;
        std::copy_if(begin, end, std::back_inserter(counts),
                     [&](const std::string& entry) { return may_hold(entry, modules); });
        return counts;
    };
    return what_counts(one.begin(), own_end.base()) ==
           what_counts(other.begin(), others_end.base());
}

bool is_as_planned(const KeptTwin& twin, const LaunchPlan& plan) {
    const std::string directory = fmt::format("/proc/{}/", twin.process.pid);
    const Command own = take_apart(strings_of(directory + "cmdline"), plan.path_at);
    const Command wanted = take_apart(plan.arguments, plan.path_at);
    if (own.arguments != wanted.arguments) return false;
    if (!plan.directory.empty() && !is_same_file(plan.directory, twin.directory)) return false;
    std::vector<char*> environment;
    if (plan.environment)
        for (const std::string& variable : *plan.environment)
            environment.push_back(const_cast<char*>(variable.c_str()));
    else
        for (char** variable = environ; variable && *variable; ++variable)
            environment.push_back(*variable);
    ReadVariables read{{}, twin.facts->reads_all_variables};
    read.names.insert(twin.facts->variables.begin(), twin.facts->variables.end());
    return differing_variable(twin.environment, environment, read, plan.is_python).empty() &&
           is_same_search(own.path, wanted.path, *twin.facts);
}

/// While this lives, a child whose parent ends becomes this process's own, if that descends from
/// it.
class Adoption {
  public:
    Adoption() {
        ::prctl(PR_GET_CHILD_SUBREAPER, &before_);
        ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    }
    Adoption(const Adoption&) = delete;
    Adoption& operator=(const Adoption&) = delete;
    ~Adoption() { ::prctl(PR_SET_CHILD_SUBREAPER, before_); }

  private:
    int before_ = 0;
};

/// Receives the template that the twin has made of itself. It has no pid where there is none.
ProcessIdentity receive_reply(int channel) {
    pollfd polled{channel, POLLIN, 0};
    const auto deadline = WaitClock::now() + kWakePatience;
    // Not by poll_until: the lock of the images is held.
    static_cast<void>(poll_through_signals(std::span(&polled, 1), deadline));
    TwinReply reply{};
    ReceivedMessage received;
    if (receive_message(channel, std::as_writable_bytes(std::span(&reply, 1)), {}, MSG_DONTWAIT,
                        received) ||
        received.size != sizeof reply || reply.magic != kTwinMagic)
        return {};
    return {reply.template_pid, reply.template_mark};
}

bool is_own_child(const ProcessIdentity& process) {
    const Descriptor pidfd = open_process(process);
    const auto number = static_cast<id_t>(pidfd.get());
    siginfo_t info{};
    return pidfd && ::waitid(P_PIDFD, number, &info, WEXITED | WNOWAIT | WNOHANG) == 0;
}

}  // namespace

int keep_twin(const ProcessIdentity& process, Descriptor channel, const ImageFacts& facts) {
    KeptTwin twin;
    twin.process = process;
    twin.channel = OwnedSocket(std::move(channel));
    twin.state = read_owner_state_once();
    twin.facts = &facts;
    const int number = twin.channel.get();
    const std::lock_guard lock(kept_twins().mutex);
    kept_twins().owner = ::getpid();
    kept_twins().twin = std::move(twin);
    return number;
}

std::optional<KeptTwin> take_twin(const LaunchPlan& plan) {
    const std::lock_guard lock(kept_twins().mutex);
    std::optional<KeptTwin>& twin = kept_twins().twin;
    if (!twin || kept_twins().owner != ::getpid() || !twin->channel.is_intact()) return {};
    const std::string directory = fmt::format("/proc/{}/", twin->process.pid);
    std::error_code error;
    twin->directory = fs::read_symlink(directory + "cwd", error);
    twin->environment =
        without_launch(strings_of(directory + "environ"), find_companion("libwarmfork-preload.so"));
    if (!is_as_planned(*twin, plan)) return {};
    return std::exchange(twin, std::nullopt);
}

ProcessIdentity wake_twin(const KeptTwin& twin, int log) {
    ProcessIdentity woken;
    {
        const Adoption adoption;
        const TwinGreeting greeting{kTwinMagic};
        if (send_message(twin.channel.get(), bytes_of(greeting), {}, std::span(&log, 1),
                         MSG_DONTWAIT) == 0)
            woken = receive_reply(twin.channel.get());
        end_child(twin.process);
        // Perhaps the template was made in the moment in which the patience ended.
        if (woken.pid == 0) woken = receive_reply(twin.channel.get());
    }
    return is_own_child(woken) ? woken : ProcessIdentity();
}

}  // namespace warmfork
