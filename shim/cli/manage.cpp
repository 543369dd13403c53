// `warmfork template` shows what the service's templates are, and tells them what to do.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/automatic.hpp"
#include "cli/board_view.hpp"
#include "cli/commands.hpp"
#include "client/leased_source.hpp"
#include "service/configuration.hpp"

namespace warmfork::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using service::Configuration;
using service::ConfigurationError;

constexpr const char* kSkeleton =
    "# A template of warmforkd. All keys have defaults; `warmfork template show` shows them.\n"
    "python = \"python3\"\n"
    "preload = []\n";

int complain(std::string_view text) {
    fmt::print(stderr, "warmfork: {}\n", text);
    return 1;
}

/// Prints the errors of one template, or all of them; the others are of no concern here.
bool print_errors(const Configuration& configuration, const std::string& name) {
    bool has_some = false;
    for (const ConfigurationError& error : configuration.errors) {
        if (!name.empty() && error.template_name != name) continue;
        fmt::print(stderr, "{}\n", to_string(error));
        has_some = true;
    }
    return has_some;
}

std::string known_names(const Configuration& configuration) {
    std::vector<std::string> names;
    for (const auto& [name, loaded] : configuration.templates) names.push_back(name);
    return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

/// Asks the service. Returns the exit status, and says what is wrong.
int ask(const std::string& verb, const std::string& name, Json& ret_answer) {
    std::shared_ptr<ServiceConnection> connection;
    std::string text;
    Outcome failure = ServiceConnection::get(connection);
    if (!failure) failure = ask_to_manage(*connection, verb, name, text);
    if (failure) return complain(failure->text);
    ret_answer = Json::parse(text, nullptr, false);
    return ret_answer.is_object() ? 0 : complain("the service answers wrongly");
}

/// Asks what the service says of all templates, and what those that it has made by itself preload.
/// Returns what `ask` does.
int ask_for_list(Json& ret_answer) {
    if (int status = ask("list", "", ret_answer)) return status;
    // A service from before there were any says nothing of them.
    if (!ret_answer.contains("automatic")) ret_answer["automatic"] = Json::array();
    add_learned(ret_answer["automatic"], ret_answer.value("learned", ""));
    return 0;
}

int list(bool as_json) {
    Json answer;
    if (int status = ask_for_list(answer)) return status;
    if (as_json) {
        fmt::print("{}\n", answer.dump(1, ' ', false, Json::error_handler_t::replace));
        return 0;
    }
    Table table({"<TEMPLATE", "<STATE", "PARKED", "<EXTENDS", "<FILE"}, ::isatty(STDOUT_FILENO));
    for (const Json& entry : answer["templates"])
        table.add({entry.value("name", ""), entry.value("state", ""),
                   entry.value("parked", std::uint64_t{0}), entry.value("extends", ""),
                   entry["files"].empty() ? "" : entry["files"][0].get<std::string>()});
    for (const std::string& line : table.lines()) fmt::print("{}\n", line);
    if (!answer["automatic"].empty()) {
        fmt::print("\n");
        print_automatic(answer["automatic"]);
    }
    for (const Json& error : answer["errors"]) fmt::print(stderr, "{}\n", error.get<std::string>());
    return 0;
}

int show(const std::string& name, const std::vector<std::string>& directories) {
    const Configuration configuration = service::load(directories);
    const auto found = configuration.templates.find(name);
    if (found != configuration.templates.end()) {
        fmt::print("{}", service::show(found->second));
        return 0;
    }
    if (print_errors(configuration, name)) return 1;
    return complain(fmt::format("there is no template {} in templates.d of {}; known: {}", name,
                                fmt::join(directories, ", "), known_names(configuration)));
}

/// Starts a template and waits until it is preloaded, so that what keeps it from starting is said
/// here.
int start(const std::string& verb, const std::string& name) {
    Json answer;
    if (int status = ask(verb, name, answer)) return status;
    try {
        Template started = Template::connect(name);
        wait_with_progress(started);
    } catch (const Error& error) {
        return complain(error.what());
    }
    return 0;
}

/// Has the service read everything anew. What it finds wrong is said, and leaves the rest alone.
int reload() {
    Json answer;
    if (int status = ask("reload", "", answer)) return status;
    if (int status = ask("list", "", answer)) return status;
    for (const Json& error : answer["errors"]) fmt::print(stderr, "{}\n", error.get<std::string>());
    return answer["errors"].empty() ? 0 : 1;
}

std::string quoted_for_shell(const std::string& text) {
    std::string quoted = "'";
    for (char character : text)
        quoted += character == '\'' ? std::string("'\\''") : std::string(1, character);
    return quoted + "'";
}

/// Runs the editor. Returns 0, or 1 with a message.
int run_editor(const std::string& file) {
    const char* editor = std::getenv("VISUAL");
    if (!editor || !*editor) editor = std::getenv("EDITOR");
    if (!editor || !*editor) editor = "vi";
    const std::string command = fmt::format("{} {}", editor, quoted_for_shell(file));
    const int status = std::system(command.c_str());
    if (status == 0) return 0;
    return complain(
        fmt::format("the editor ({}, from VISUAL or EDITOR) did not end well, with status {}",
                    editor, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
}

std::string contents_of(const std::string& file) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    return text.str();
}

bool is_name(const std::string& name) {
    return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos;
}

int edit(const std::string& name, const std::vector<std::string>& directories) {
    if (!is_name(name)) return complain(fmt::format("{} cannot be a template's name", name));
    const std::string own = directories.back() + "/templates.d/" + name + ".toml";
    ::umask(::umask(022) | 022);  // what others may write to is not read
    const Configuration before = service::load(directories);
    print_errors(before, name);
    const bool is_new = ::access(own.c_str(), F_OK) < 0;
    if (is_new) {
        const auto found = before.templates.find(name);
        const std::string text =
            found == before.templates.end() ? kSkeleton : contents_of(found->second.files.front());
        std::error_code error;
        fs::create_directories(fs::path(own).parent_path(), error);
        std::ofstream(own) << text;
    }
    const std::string old = contents_of(own);
    if (is_new && old.empty())
        return complain(fmt::format("cannot write {}: {}", own, std::strerror(errno)));
    const int status = run_editor(own);
    if (is_new && contents_of(own) == old) {
        ::unlink(own.c_str());  // nothing was said: what was in force stays
        return status;
    }
    if (status) return status;
    if (print_errors(service::load(directories), name)) return 1;
    if (contents_of(own) != old)
        fmt::print(
            "{} is written; a service that runs reads it with: warmfork template reload {}\n", own,
            name);
    return 0;
}

/// Writes a file that was not there. Returns 0, or 1 with a message and no file.
int write_new_file(const std::string& path, const std::string& text) {
    std::error_code error;
    fs::create_directories(fs::path(path).parent_path(), error);
    ::umask(::umask(022) | 022);  // what others may write to is not read
    std::FILE* const file = std::fopen(path.c_str(), "wxe");
    if (!file) return complain(fmt::format("cannot write {}: {}", path, std::strerror(errno)));
    const bool is_written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    const bool is_flushed = std::fclose(file) == 0;
    if (is_written && is_flushed) return 0;
    const int error_number = errno;
    ::unlink(path.c_str());
    return complain(fmt::format("cannot write {}: {}", path, std::strerror(error_number)));
}

/// Writes the file where the service reads it, which does so at once.
int adopt(const std::string& name) {
    Json answer;
    if (int status = ask_for_list(answer)) return status;
    const auto found = std::ranges::find_if(
        answer["automatic"], [&](const Json& entry) { return entry.value("name", "") == name; });
    if (found == answer["automatic"].end())
        return complain(
            fmt::format("there is no automatic template {}; those that there are: "
                        "warmfork template list",
                        name));
    const std::string command = found->value("command", "");
    if (const auto reason = found->value("reason", ""); !reason.empty())
        return complain(fmt::format("{} cannot be preloaded: {}", command, reason));
    if ((*found)["modules"].is_null())
        return complain(
            fmt::format("it is not known yet what {} preloads: run {} once more", name, command));
    const std::string file = answer.value("directory", "") + "/templates.d/" + name + ".toml";
    if (int status = write_new_file(file, adopted_text(*found))) return status;
    fmt::print("{}\n", file);
    return start("reload", name);
}

}  // namespace

int manage_templates(const ManageOptions& options) {
    if (options.verb == "list") return list(options.json);
    if (options.verb == "adopt") return adopt(options.name);
    const std::vector<std::string> directories =
        options.directories.empty() ? service::default_directories() : options.directories;
    if (options.verb == "show") return show(options.name, directories);
    if (options.verb == "edit") return edit(options.name, directories);
    if (options.verb == "reload" && options.name.empty()) return reload();
    if (options.verb != "stop") return start(options.verb, options.name);
    Json answer;
    return ask("stop", options.name, answer);
}

}  // namespace warmfork::cli
