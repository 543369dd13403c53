// Configurations that a test writes, and what is said of them.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "service/configuration.hpp"
#include "support/catch.hpp"

namespace warmfork::service {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

/// Configuration directories of a test, the most specific last.
class Directories {
  public:
    Directories() {
        std::string pattern = fs::temp_directory_path() / "warmfork-configuration-XXXXXX";
        root_ = ::mkdtemp(pattern.data());
    }
    ~Directories() { fs::remove_all(root_); }
    Directories(const Directories&) = delete;
    Directories& operator=(const Directories&) = delete;

    const fs::path& root() const { return root_; }
    std::string path(const std::string& name) const { return root_ / name; }

    /// Writes a file, as "etc/templates.d/a.toml".
    void write(const std::string& name, const std::string& text) const {
        fs::create_directories((root_ / name).parent_path());
        std::ofstream(root_ / name) << text;
    }
    void link(const std::string& name, const std::string& target) const {
        fs::create_directories((root_ / name).parent_path());
        fs::create_symlink(target, root_ / name);
    }
    Configuration load() const {
        return warmfork::service::load({path("vendor"), path("etc"), path("home")});
    }

  private:
    fs::path root_;
};

/// Returns the one template "a" that this text defines.
inline TemplateDefinition define(const std::string& text) {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", text);
    const Configuration configuration = directories.load();
    for (const ConfigurationError& error : configuration.errors) FAIL_CHECK(to_string(error));
    REQUIRE(configuration.templates.contains("a"));
    return configuration.templates.at("a").definition;
}

inline DaemonDefinition define_daemon(const std::string& text) {
    const Directories directories;
    directories.write("etc/warmforkd.toml", text);
    const Configuration configuration = directories.load();
    for (const ConfigurationError& error : configuration.errors) FAIL_CHECK(to_string(error));
    return configuration.daemon.value();
}

/// Returns "FILE:LINE:COLUMN: text", one a line, the file without the test's directory.
inline std::string errors_of(const Configuration& configuration, const std::string& prefix) {
    std::string text;
    for (const ConfigurationError& error : configuration.errors) text += to_string(error) + "\n";
    for (std::size_t at; (at = text.find(prefix)) != std::string::npos;)
        text.erase(at, prefix.size());
    return text;
}

inline std::string errors_of(const Directories& directories) {
    return errors_of(directories.load(), directories.path(""));
}

/// Returns the errors of a template "a" that is not defined: "LINE:COLUMN: text".
inline std::string refusal(const std::string& text) {
    const Directories directories;
    directories.write("etc/templates.d/a.toml", text);
    const Configuration configuration = directories.load();
    CHECK(configuration.templates.empty());
    return errors_of(configuration, directories.path("etc/templates.d/a.toml:"));
}

inline std::string daemon_refusal(const std::string& text) {
    const Directories directories;
    directories.write("etc/warmforkd.toml", text);
    const Configuration configuration = directories.load();
    CHECK_FALSE(configuration.daemon);
    return errors_of(configuration, directories.path("etc/warmforkd.toml:"));
}

inline Strings names_of(const Configuration& configuration) {
    Strings names;
    for (const auto& [name, loaded] : configuration.templates) names.push_back(name);
    return names;
}

}  // namespace warmfork::service
