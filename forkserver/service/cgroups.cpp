#include "service/cgroups.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace warmfork::service {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kClientPrefix = "client-", kDetachedPrefix = "detached-";
constexpr std::string_view kDaemon = "daemon";
// What systemd starts for a unit beside its main process it starts here.
constexpr std::string_view kControl = ".control";
constexpr std::array kControllers{std::string_view("memory"), std::string_view("pids"),
                                  std::string_view("cpu")};

/// Writes a file with one write, as the kernel wants it. Returns 0 or errno.
int write_file(const std::string& path, std::string_view text) {
    const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file) return errno;
    return ::write(file.get(), text.data(), text.size()) < 0 ? errno : 0;
}

std::vector<std::string> read_words(const std::string& path) {
    std::ifstream file(path);
    std::vector<std::string> words;
    for (std::string word; file >> word;) words.push_back(word);
    return words;
}

/// Returns where version 2 is mounted: alone, or beside version 1.
std::string find_mount() {
    for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
        struct statfs status;
        if (::statfs(path, &status) == 0 && status.f_type == CGROUP2_SUPER_MAGIC) return path;
    }
    return {};
}

/// Returns the full path of the cgroup of version 2 that this process is in; empty where there is
/// none.
std::string own_cgroup() {
    const std::string mount = find_mount();
    std::ifstream file("/proc/self/cgroup");
    for (std::string line; !mount.empty() && std::getline(file, line);)
        if (line.starts_with("0::/")) return mount + line.substr(3);
    return {};
}

std::string prefix_of(const Cgroups::Owner& owner) {
    if (owner == Cgroups::Owner()) return std::string(kDetachedPrefix);
    return fmt::format("{}{}-{}-", kClientPrefix, owner.pid, owner.id);
}

bool read_number(std::string_view& text, std::uint64_t& ret_number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ret_number);
    if (error != std::errc() || end == text.data() + text.size() || *end != '-') return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
    return true;
}

/// Returns false where it is no owner's.
bool read_owner(std::string_view name, Cgroups::Owner& ret_owner) {
    if (name.starts_with(kDetachedPrefix)) {
        ret_owner = {};
        return true;
    }
    if (!name.starts_with(kClientPrefix)) return false;
    name.remove_prefix(kClientPrefix.size());
    std::uint64_t pid = 0, id = 0;
    if (!read_number(name, pid) || !read_number(name, id)) return false;
    ret_owner = {id, static_cast<pid_t>(pid)};
    return true;
}

std::vector<std::string> children_of(const std::string& pid) {
    std::vector<std::string> children;
    std::error_code error;
    for (const auto& thread : fs::directory_iterator("/proc/" + pid + "/task", error))
        for (std::string& child : read_words(thread.path() / "children"))
            children.push_back(std::move(child));
    return children;
}

/// Moves the children that it has forked before it was moved. Later ones are where it is.
void move_children(const std::string& pid, const std::string& file) {
    for (const std::string& child : children_of(pid))
        if (write_file(file, child) == 0) move_children(child, file);
}

/// Returns the first limit that cannot be set, or nothing. Without its controller a file does not
/// exist.
std::string set_limits(const std::string& directory, const CgroupLimits& limits) {
    std::string missing;
    const auto set = [&](const char* file, const auto& limit) {
        if (!limit) return;
        const int error = write_file(directory + "/" + file, std::to_string(*limit));
        if (error && missing.empty())
            missing = fmt::format(
                "{} of {}: {}", file, *limit,
                error == ENOENT ? "its controller is not delegated" : std::strerror(error));
    };
    set("memory.max", limits.memory_max);
    set("pids.max", limits.tasks_max);
    set("cpu.weight", limits.cpu_weight);
    return missing;
}

/// The limits of one cgroup for another, as far as their controllers are here.
void copy_limits(const std::string& from, const std::string& to) {
    for (const char* file : {"/memory.max", "/pids.max", "/cpu.weight"})
        for (const std::string& limit : read_words(from + file))
            static_cast<void>(write_file(to + file, limit));
}

/// Those in a cgroup and in what a child has made below.
std::vector<std::string> processes_in(const fs::path& directory) {
    std::vector<std::string> found = read_words(directory / "cgroup.procs");
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
        if (entry.is_directory(error))
            for (std::string& pid : processes_in(entry.path())) found.push_back(std::move(pid));
    return found;
}

/// A child may have made cgroups of its own below. False: a process is left.
bool remove_tree(const fs::path& directory) {
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
        if (entry.is_directory(error)) static_cast<void>(remove_tree(entry.path()));
    return ::rmdir(directory.c_str()) == 0 || errno == ENOENT;
}

}  // namespace

Cgroups::Cgroups(std::string root) : root_(std::move(root)) {}

bool Cgroups::adopt(Cgroups& ret_cgroups, std::string& ret_error) {
    std::string root = own_cgroup();
    // This process has moved already, before it exec'd itself.
    if (fs::path(root).filename() == kDaemon) root = fs::path(root).parent_path();
    ret_error = "there is no cgroup of version 2";
    if (root.empty()) return false;
    const std::string daemon = root + "/" + std::string(kDaemon);
    ret_error = fmt::format("cannot use the cgroup {}", root);
    if (::mkdir(daemon.c_str(), 0755) < 0 && errno != EEXIST) {
        ret_error += fmt::format(": mkdir: {}", std::strerror(errno));
        return false;
    }
    if (int error = write_file(daemon + "/cgroup.procs", "0")) {
        ret_error += fmt::format(": move into {}: {}", kDaemon, std::strerror(error));
        return false;
    }
    ret_error.clear();
    for (const std::string& controller : read_words(root + "/cgroup.controllers")) {
        if (std::find(kControllers.begin(), kControllers.end(), controller) == kControllers.end())
            continue;
        if (int error = write_file(root + "/cgroup.subtree_control", "+" + controller))
            ret_error = fmt::format("cannot enable the controller {} below the cgroup {}: {}",
                                    controller, root, std::strerror(error));
    }
    ret_cgroups = Cgroups(std::move(root));
    return true;
}

void Cgroups::release() {
    const fs::path own = own_cgroup();
    if (own.filename() != kControl) return;
    const std::string file = own.parent_path() / "cgroup.subtree_control";
    for (const std::string& controller : read_words(file))
        static_cast<void>(write_file(file, "-" + controller));
}

int Cgroups::place(pid_t pid, const Owner& owner, const std::string& template_name,
                   const CgroupLimits& limits, std::string& ret_missing) const {
    if (root_.empty()) return 0;
    const std::string directory = root_ + "/" + prefix_of(owner) + template_name;
    if (::mkdir(directory.c_str(), 0755) == 0)
        ret_missing = set_limits(directory, limits);
    else if (errno != EEXIST)
        return errno;
    const std::string file = directory + "/cgroup.procs", number = std::to_string(pid);
    if (int error = write_file(file, number)) return error;
    move_children(number, file);
    return 0;
}

std::vector<std::string> Cgroups::directories(const Owner& owner) const {
    std::vector<std::string> found;
    if (root_.empty()) return found;
    const std::string prefix = prefix_of(owner);
    std::error_code error;
    for (const fs::directory_entry& entry : fs::directory_iterator(root_, error))
        if (entry.path().filename().string().starts_with(prefix)) found.push_back(entry.path());
    return found;
}

void Cgroups::let_live(const Owner& owner, const std::vector<pid_t>& kept) const {
    // What a process forks between the look and its move is found by the next look.
    constexpr int kMostLooks = 100;
    for (const std::string& directory : directories(owner)) {
        const std::size_t name = root_.size() + 1 + prefix_of(owner).size();
        const std::string place = root_ + "/" + prefix_of({}) + directory.substr(name);
        bool has_moved = true;
        for (int look = 0; has_moved && look < kMostLooks; ++look) {
            has_moved = false;
            for (const std::string& pid : processes_in(directory)) {
                if (std::find(kept.begin(), kept.end(), std::atoi(pid.c_str())) != kept.end())
                    continue;
                if (::mkdir(place.c_str(), 0755) == 0) copy_limits(directory, place);
                has_moved |= write_file(place + "/cgroup.procs", pid) == 0;
            }
        }
    }
}

void Cgroups::kill(const Owner& owner) const {
    for (const std::string& directory : directories(owner))
        static_cast<void>(write_file(directory + "/cgroup.kill", "1"));
}

bool Cgroups::remove(const Owner& owner) const {
    bool is_empty = true;
    for (const std::string& directory : directories(owner)) is_empty &= remove_tree(directory);
    return is_empty;
}

std::uint64_t Cgroups::memory(const Owner& owner) const {
    std::uint64_t sum = 0;
    for (const std::string& directory : directories(owner)) {
        std::uint64_t bytes = 0;
        if (std::ifstream(directory + "/memory.current") >> bytes) sum += bytes;
    }
    return sum;
}

std::uint64_t Cgroups::cpu_time(const Owner& owner) const {
    std::uint64_t sum = 0;
    for (const std::string& directory : directories(owner)) {
        std::string name;
        std::uint64_t microseconds = 0;  // usage_usec is the first line
        if (std::ifstream(directory + "/cpu.stat") >> name >> microseconds) sum += microseconds;
    }
    return sum;
}

std::vector<Cgroups::Owner> Cgroups::owners() const {
    std::vector<Owner> found;
    std::error_code error;
    if (root_.empty()) return found;
    for (const fs::directory_entry& entry : fs::directory_iterator(root_, error)) {
        Owner owner;
        if (entry.is_directory(error) && read_owner(entry.path().filename().string(), owner) &&
            std::find(found.begin(), found.end(), owner) == found.end())
            found.push_back(owner);
    }
    return found;
}

}  // namespace warmfork::service
