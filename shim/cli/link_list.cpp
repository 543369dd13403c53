#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.hpp"
#include "link/real_program.hpp"
#include "link/use_count.hpp"

namespace warmfork::cli {
namespace {

/// One link in PATH.
struct Link {
    std::string name;
    std::string path;
    std::string command;    ///< the real one; empty: there is none
    bool is_first = false;  ///< it is what a shell finds by the name
    bool is_counted = false;
    link::UseCounts counts;
};

std::vector<std::string> directories_of_path() {
    const char* path = std::getenv("PATH");
    std::vector<std::string> directories;
    std::set<std::string> seen;
    for (std::string_view rest = path ? path : link::kDefaultPath;;) {
        const std::size_t size = std::min(rest.find(':'), rest.size());
        const std::string directory(size ? rest.substr(0, size) : ".");
        if (seen.insert(directory).second) directories.push_back(directory);
        if (size == rest.size()) return directories;
        rest.remove_prefix(size + 1);
    }
}

/// Returns the names in a directory that lead to warmfork-exec.
std::vector<std::string> links_in(const std::string& directory) {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> opened(::opendir(directory.c_str()), ::closedir);
    while (const dirent* entry = opened ? ::readdir(opened.get()) : nullptr) {
        if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) continue;
        const std::string path = directory + "/" + entry->d_name;
        if (link::is_link_program(path.c_str())) names.push_back(entry->d_name);
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string first_in(const std::vector<std::string>& directories, const std::string& name) {
    for (const std::string& directory : directories) {
        std::string path = directory + "/" + name;
        if (::access(path.c_str(), X_OK) == 0) return path;
    }
    return {};
}

std::vector<Link> find_links() {
    const std::vector<std::string> directories = directories_of_path();
    std::vector<Link> links;
    for (const std::string& directory : directories)
        for (const std::string& name : links_in(directory)) {
            Link found;
            found.name = name;
            found.path = directory + "/" + name;
            link::ProgramSearch search(name.c_str(), std::getenv("PATH"));
            if (search.next()) found.command = search.path();
            found.is_first = first_in(directories, name) == found.path;
            found.is_counted = link::read_use_counts(name.c_str(), found.counts);
            links.push_back(std::move(found));
        }
    return links;
}

void print_json(const std::vector<Link>& links) {
    using Json = nlohmann::ordered_json;
    Json list = Json::array();
    for (const Link& link : links)
        list.push_back({{"name", link.name},
                        {"link", link.path},
                        {"command", link.command.empty() ? Json() : Json(link.command)},
                        {"first", link.is_first},
                        {"warm", link.counts.warm},
                        {"cold", link.counts.cold}});
    fmt::print("{}\n", list.dump(2, ' ', false, Json::error_handler_t::replace));
}

void print_table(const std::vector<Link>& links) {
    std::size_t width = 4;
    for (const Link& link : links) width = std::max(width, link.name.size());
    fmt::print("{:{}} {:>8} {:>8}  COMMAND\n", "NAME", width, "WARM", "COLD");
    for (const Link& link : links) {
        std::string command = link.command.empty() ? "(there is none)" : link.command;
        if (!link.is_first) command += fmt::format("  (not by {}: another comes first)", link.path);
        fmt::print("{:{}} {:>8} {:>8}  {}\n", link.name, width, link.counts.warm, link.counts.cold,
                   command);
    }
}

}  // namespace

int show_links(const LinkListOptions& options) {
    const std::vector<Link> links = find_links();
    if (options.json)
        print_json(links);
    else if (links.empty())
        fmt::print("There are no links in PATH: `warmfork install-links` makes some.\n");
    else
        print_table(links);
    return 0;
}

}  // namespace warmfork::cli
