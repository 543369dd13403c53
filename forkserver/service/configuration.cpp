#include "service/configuration.hpp"

#include <fmt/format.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <tuple>

#include "service/configuration_files.hpp"
#include "service/configuration_keys.hpp"
#include "service/suggestion.hpp"

namespace warmfork::service {
namespace {

using Errors = std::vector<ConfigurationError>;

std::string home_directory() {
    if (const char* const home = ::getenv("HOME"); home && *home == '/') return home;
    const passwd* const user = ::getpwuid(::getuid());
    return user ? user->pw_dir : std::string();
}

/// Returns a directory of the user's; empty where there is none. What is not a full path is
/// ignored, as the XDG specification asks.
std::string user_directory(const char* variable, const char* otherwise) {
    if (const char* const place = ::getenv(variable); place && *place == '/') return place;
    const std::string home = home_directory();
    return home.empty() ? home : home + otherwise;
}

/// Applies a file and its drop-ins, one after the other.
template <typename Definition>
void read_files(const FileSet& files, Reading& reading, Definition& definition) {
    std::vector<std::string> all = files.drop_ins;
    if (!files.file.empty() && !files.is_masked) all.insert(all.begin(), files.file);
    for (const std::string& file : all) {
        toml::table table;
        if (read_toml(file, reading.template_name, table, reading.errors))
            apply(table, reading, definition);
    }
}

std::optional<DaemonDefinition> load_daemon(const std::vector<std::string>& directories,
                                            Errors& errors) {
    const std::size_t before = errors.size();
    Origins origins;
    Reading reading{{}, origins, errors};
    DaemonDefinition definition;
    // Where it is masked, it and its drop-ins are as if they were not there.
    if (const FileSet files = find_daemon_files(directories, errors); !files.is_masked)
        read_files(files, reading, definition);
    if (errors.size() > before) return {};
    return definition;
}

/// The templates on their way from files to definitions.
class TemplateLoader {
  public:
    TemplateLoader(const std::vector<std::string>& directories, Errors& errors)
        : files_(find_template_files(directories, errors)), errors_(errors) {}

    [[nodiscard]] std::map<std::string, LoadedTemplate, std::less<>> load();

  private:
    void read(const std::string& name, const FileSet& files);
    void refuse_circles();
    void resolve(const std::string& name);
    void refuse_base(const std::string& name);
    [[nodiscard]] const ConfigurationError* error_of(const std::string& name) const;
    [[nodiscard]] std::vector<std::string> names() const;
    Reading reading(const std::string& name) { return {name, drafts_.at(name).origins, errors_}; }

    const std::map<std::string, FileSet> files_;
    Errors& errors_;
    std::map<std::string, LoadedTemplate, std::less<>> drafts_;
    std::set<std::string> resolved_;  ///< those that have been looked at
};

std::map<std::string, LoadedTemplate, std::less<>> TemplateLoader::load() {
    for (const auto& [name, files] : files_) read(name, files);
    refuse_circles();
    for (const auto& [name, draft] : drafts_) resolve(name);
    std::erase_if(drafts_, [this](const auto& draft) { return error_of(draft.first) != nullptr; });
    return std::move(drafts_);
}

void TemplateLoader::read(const std::string& name, const FileSet& files) {
    if (files.is_masked) return;
    if (files.file.empty()) {
        if (files.drop_ins.empty()) return;
        errors_.push_back({{files.drop_ins.front()},
                           fmt::format("a drop-in for a template {} that no file defines{}",
                                       printed_text(name), suggestion(name, names())),
                           name});
        return;
    }
    LoadedTemplate& draft = drafts_[name];
    draft.definition.name = name;
    draft.files = files.drop_ins;
    draft.files.insert(draft.files.begin(), files.file);
    Reading reading = this->reading(name);
    read_files(files, reading, draft.definition);
    settle(reading, draft.definition);
}

/// Refuses circles. Each template of a circle has the error; what merely leads into one extends a
/// broken template.
void TemplateLoader::refuse_circles() {
    for (const auto& [name, draft] : drafts_) {
        std::string way = name;
        auto at = drafts_.find(name);
        for (std::size_t steps = 0; steps < drafts_.size() && at != drafts_.end(); ++steps) {
            const std::string& base = at->second.definition.extends;
            way += " -> " + base;
            if (base == name) {
                reading(name).fail(draft.origins.at("extends"),
                                   "templates extend each other in a circle: " + way);
                break;
            }
            at = drafts_.find(base);
        }
    }
}

/// Completes a template from its base. There is no circle among those without an error.
void TemplateLoader::resolve(const std::string& name) {
    LoadedTemplate& draft = drafts_.at(name);
    const std::string& base = draft.definition.extends;
    if (!resolved_.insert(name).second || base.empty()) return;
    if (drafts_.contains(base)) resolve(base);
    if (error_of(name)) return;
    if (!drafts_.contains(base) || error_of(base) || !drafts_.at(base).definition.is_python())
        return refuse_base(name);
    Reading reading = this->reading(name);
    inherit(drafts_.at(base), reading, draft.definition);
}

void TemplateLoader::refuse_base(const std::string& name) {
    const LoadedTemplate& draft = drafts_.at(name);
    const std::string& base = draft.definition.extends;
    const auto files = files_.find(base);
    std::string why;
    if (const ConfigurationError* const error = error_of(base))
        why = fmt::format("which is not defined because of an error ({})", to_string(error->where));
    else if (drafts_.contains(base))
        why = "a native template: only a Python template can be extended";
    else if (files != files_.end() && files->second.is_masked)
        why = "which is masked by " + files->second.file;
    else
        why = "which no file defines" + suggestion(base, names());
    reading(name).fail(draft.origins.at("extends"),
                       fmt::format("this extends {}, {}", printed_text(base), why));
}

const ConfigurationError* TemplateLoader::error_of(const std::string& name) const {
    const auto error = std::ranges::find(errors_, name, &ConfigurationError::template_name);
    return error == errors_.end() ? nullptr : &*error;
}

std::vector<std::string> TemplateLoader::names() const {
    std::vector<std::string> names;
    for (const auto& [name, files] : files_)
        if (!files.file.empty() && !files.is_masked) names.push_back(name);
    return names;
}

}  // namespace

std::vector<std::string> default_directories() {
    std::vector<std::string> directories{WARMFORK_VENDOR_DIRECTORY, "/etc/warmfork"};
    if (const std::string home = user_directory("XDG_CONFIG_HOME", "/.config"); !home.empty())
        directories.push_back(home + "/warmfork");
    return directories;
}

std::string state_home() {
    return user_directory("XDG_STATE_HOME", "/.local/state");
}

Configuration load(const std::vector<std::string>& all_directories) {
    Configuration configuration;
    const std::vector<std::string> directories =
        trusted_directories(all_directories, configuration.errors);
    configuration.daemon = load_daemon(directories, configuration.errors);
    configuration.templates = TemplateLoader(directories, configuration.errors).load();
    std::ranges::sort(configuration.errors, {}, [](const ConfigurationError& error) {
        return std::tie(error.where.file, error.where.line, error.where.column, error.text);
    });
    return configuration;
}

std::string show(const LoadedTemplate& loaded) {
    std::string text = fmt::format("# {}\n", fmt::join(loaded.files, "\n# "));
    for (const PrintedKey& key : print(loaded.definition)) {
        const auto origin = loaded.origins.find(key.name);
        const bool is_said = origin != loaded.origins.end();
        if (is_said || !key.is_default)
            text += fmt::format("{} = {}  # {}\n", key.name, key.value,
                                is_said ? to_string(origin->second) : "default");
    }
    return text;
}

}  // namespace warmfork::service
