#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "cli/commands.hpp"
#include "link/real_program.hpp"
#include "owner/companions.hpp"

namespace warmfork::cli {
namespace {

namespace fs = std::filesystem;

fs::path default_directory() {
    if (const char* data = std::getenv("XDG_DATA_HOME"); data && *data == '/')
        return fs::path(data) / "warmfork/links";
    if (const char* home = std::getenv("HOME"); home && *home)
        return fs::path(home) / ".local/share/warmfork/links";
    throw own_error(WARMFORK_STAGE_NONE, ENOENT,
                    "cannot tell where links belong, as HOME is not set: use --dir");
}

/// Returns the real program that a link of this name stands in front of; empty where there is none.
std::string real_program(const std::string& name) {
    link::ProgramSearch search(name.c_str(), std::getenv("PATH"));
    return search.next() ? search.path() : "";
}

void check_name(const std::string& name) {
    const bool is_name =
        !name.empty() && name.find('/') == std::string::npos && name != "." && name != "..";
    if (!is_name)
        throw own_error(WARMFORK_STAGE_NONE, EINVAL,
                        fmt::format("cannot make a link {}: it takes the name of a command, "
                                    "without a directory",
                                    name));
    // A link calls this one.
    if (name == "warmfork")
        throw own_error(WARMFORK_STAGE_NONE, EINVAL, "cannot make a link in front of warmfork");
}

/// Makes a link. One that is there already is made anew: it may be of another installation.
void make_link(const fs::path& directory, const std::string& name, const std::string& program) {
    const fs::path link = directory / name;
    struct stat status;
    const bool is_there = ::lstat(link.c_str(), &status) == 0;
    const bool is_own = is_there && S_ISLNK(status.st_mode) &&
                        (link::is_link_program(link.c_str()) ||
                         fs::path(fs::read_symlink(link)).filename() == "warmfork-exec");
    if (is_there && !is_own)
        throw own_error(WARMFORK_STAGE_NONE, EEXIST,
                        fmt::format("cannot make the link {}: move what lies there away, or use "
                                    "another --dir",
                                    link.string()));
    // It is put in its place in one step: commands may be starting by it.
    const fs::path made = directory / fmt::format(".{}.{}", name, ::getpid());
    if (::symlink(program.c_str(), made.c_str()) < 0)
        throw own_error(WARMFORK_STAGE_NONE, errno, "cannot make the link " + made.string());
    if (::rename(made.c_str(), link.c_str()) < 0) {
        const int error = errno;
        ::unlink(made.c_str());
        throw own_error(WARMFORK_STAGE_NONE, error, "cannot make the link " + link.string());
    }
}

/// Would a shell find the link by its name?
bool is_found_first(const fs::path& directory, const std::string& name) {
    const char* path = std::getenv("PATH");
    for (std::string_view rest = path ? path : link::kDefaultPath;;) {
        const std::size_t size = std::min(rest.find(':'), rest.size());
        const fs::path candidate = fs::path(rest.substr(0, size)) / name;
        std::error_code error;
        if (fs::exists(candidate, error))
            return fs::equivalent(candidate.parent_path().empty() ? "." : candidate.parent_path(),
                                  directory, error);
        if (size == rest.size()) return false;
        rest.remove_prefix(size + 1);
    }
}

}  // namespace

int install_links(const LinkOptions& options) {
    try {
        const std::string program = find_companion("warmfork-exec");
        if (program.empty())
            throw own_error(WARMFORK_STAGE_NONE, ENOENT,
                            "cannot make links: warmfork-exec is not installed");
        for (const std::string& name : options.names) check_name(name);
        const fs::path directory = fs::absolute(
            options.directory.empty() ? default_directory() : fs::path(options.directory));
        std::error_code error;
        fs::create_directories(directory, error);
        if (error)
            throw own_error(WARMFORK_STAGE_NONE, error.value(),
                            "cannot make the directory " + directory.string());
        bool is_in_front = true;
        for (const std::string& name : options.names) {
            make_link(directory, name, program);
            const std::string real = real_program(name);
            fmt::print("{} -> {}\n", (directory / name).string(),
                       real.empty() ? "(there is no such command in PATH yet)" : real);
            is_in_front = is_in_front && is_found_first(directory, name);
        }
        if (!is_in_front)
            fmt::print("To use them put the directory first:\n    export PATH={}:$PATH\n",
                       directory.string());
        return 0;
    } catch (const Error& error) {
        fmt::print(stderr, "warmfork: {}\n", error.what());
        return 1;
    }
}

}  // namespace warmfork::cli
