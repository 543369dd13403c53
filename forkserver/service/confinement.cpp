#include "service/confinement.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <map>
#include <optional>
#include <system_error>

#include "channel/proc_file.hpp"

namespace warmfork::service {
namespace {

// A request with a text that was current when it was sent may wait this long to be read.
constexpr std::chrono::seconds kRetirement{30};

constexpr const char* kNamespaces[] = {
    "cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "time_for_children",
    "uts"};

/// What is compared, by its name in words, with its value.
using State = std::map<std::string, std::string>;

/// Returns nothing where it cannot be read, and an empty text where there is no such link.
std::optional<std::string> read_link(int directory, const char* name) {
    std::array<char, PATH_MAX> buffer;
    const ssize_t size = ::readlinkat(directory, name, buffer.data(), buffer.size());
    if (size < 0) return errno == ENOENT ? std::optional(std::string()) : std::nullopt;
    return std::string(buffer.data(), static_cast<std::size_t>(size));
}

bool add_namespaces(int process, State& state) {
    for (const char* name : kNamespaces) {
        const auto link = read_link(process, fmt::format("ns/{}", name).c_str());
        if (!link) return false;
        state[fmt::format("its namespace \"{}\"", name)] = *link;
    }
    return true;
}

bool add_root(int process, State& state) {
    struct statx root {};
    if (::statx(process, "root", AT_STATX_DONT_SYNC, STATX_INO | STATX_MNT_ID, &root) < 0)
        return false;
    state["its root directory"] = fmt::format("{} {}:{} {}", root.stx_mnt_id, root.stx_dev_major,
                                              root.stx_dev_minor, root.stx_ino);
    return true;
}

bool add_credentials(int process, State& state) {
    const Descriptor file(::openat(process, "status", O_RDONLY | O_CLOEXEC));
    std::string text;
    if (!file || read_task_status(file.get(), text) != 0) return false;
    for (std::string_view status = text; !status.empty();) {
        const std::string_view line = status.substr(0, status.find('\n'));
        const std::string_view key = line.substr(0, line.find(':'));
        if (key == "Uid" || key == "Gid" || key == "Groups" || key.starts_with("Cap") ||
            key == "NoNewPrivs" || key.starts_with("Seccomp"))
            state[fmt::format("\"{}\" of its status", key)] = line;
        status.remove_prefix(std::min(line.size() + 1, status.size()));
    }
    return true;
}

std::optional<State> read_state(int process) {
    State state;
    if (!add_credentials(process, state) || !add_namespaces(process, state) ||
        !add_root(process, state))
        return {};
    return state;
}

Descriptor open_process(const std::string& name) {
    return Descriptor(::open(("/proc/" + name).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

}  // namespace

int find_confinement(const Peer& peer, std::string& ret_difference) {
    // This process stays what it is.
    static std::optional<State> own;
    if (!own) own = read_state(open_process("self").get());
    const Descriptor process = open_process(std::to_string(peer.pid));
    // It lives after the directory was opened, so that is not of another process with its number.
    const bool is_it = process && (signal_pidfd(peer.pidfd.get(), 0) == 0 || errno == EPERM);
    const std::optional<State> theirs = is_it ? read_state(process.get()) : std::nullopt;
    if (!own || !theirs) {
        const Descriptor free_one(::open("/", O_PATH | O_CLOEXEC));
        if (!free_one && (errno == EMFILE || errno == ENFILE)) return errno;
        ret_difference = "the service may not look at this process, or does not see it";
        return 0;
    }
    for (const auto& [what, value] : *own)
        if (const auto found = theirs->find(what); found == theirs->end() || found->second != value)
            ret_difference = what + " is not the service's";
    return 0;
}

Sight::Sight() {
    renew(Clock::now());
    if (!file_) throw std::system_error(errno, std::generic_category(), "memfd_create");
}

Sight::Sight(Descriptor file, std::vector<std::string> retired) : file_(std::move(file)) {
    for (std::string& text : retired) retired_.push_back({std::move(text), Clock::now()});
}

std::string Sight::current() const {
    return read_link(AT_FDCWD, fmt::format("/proc/self/fd/{}", file_.get()).c_str()).value_or("");
}

std::vector<std::string> Sight::retired() const {
    std::vector<std::string> texts;
    for (const Retired& retired : retired_) texts.push_back(retired.text);
    return texts;
}

bool Sight::verify(std::string_view text, Clock::time_point now) {
    while (!retired_.empty() && retired_.front().at + kRetirement < now) retired_.pop_front();
    if (text.empty()) return false;
    return text == current() || std::ranges::find(retired_, text, &Retired::text) != retired_.end();
}

void Sight::renew(Clock::time_point now) {
    std::array<std::uint64_t, 2> random;
    if (::getrandom(random.data(), sizeof random, 0) != sizeof random) return;
    Descriptor next(::memfd_create(
        fmt::format("warmforkd-{:016x}{:016x}", random[0], random[1]).c_str(), MFD_CLOEXEC));
    if (!next) return;
    if (!file_) {
        file_ = std::move(next);
        return;
    }
    std::string text = current();
    if (::dup3(next.get(), file_.get(), O_CLOEXEC) >= 0) retired_.push_back({std::move(text), now});
}

}  // namespace warmfork::service
