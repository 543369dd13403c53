// Which files make up a definition, and what is in them.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "service/definitions.hpp"
#include "service/toml.hpp"

namespace warmfork::service {

/// Reads a file that nobody but this user and root decides on, `most` bytes at the most. Returns 0,
/// or errno with the reason in words in `ret_why`: EPERM (it is others' too), EFBIG (it has more).
[[nodiscard]] int read_trusted_file(const std::string& file, std::size_t most,
                                    std::string& ret_text, std::string& ret_why);

/// The files of one definition.
struct FileSet {
    std::string file;                   ///< the most specific one; empty: there are only drop-ins
    bool is_masked = false;             ///< by `file`
    std::vector<std::string> drop_ins;  ///< in the order in which they are applied
};

/// May a template have this name?
[[nodiscard]] bool is_template_name(std::string_view name);
/// What messages say that is expected of one.
inline constexpr std::string_view kTemplateName =
    "the name of a template (a letter or digit, then letters, digits, \".\", \"_\" or \"-\", at "
    "most 64)";

/// Returns those whose files nobody but this user and root decides on. An error is added for each
/// other one.
[[nodiscard]] std::vector<std::string> trusted_directories(
    const std::vector<std::string>& directories, std::vector<ConfigurationError>& errors);

[[nodiscard]] FileSet find_daemon_files(const std::vector<std::string>& directories,
                                        std::vector<ConfigurationError>& errors);

/// Returns them by name. One without `file` has been given drop-ins only.
[[nodiscard]] std::map<std::string, FileSet> find_template_files(
    const std::vector<std::string>& directories, std::vector<ConfigurationError>& errors);

/// Reads a file into `ret_table`. Returns false, with an error added, where it cannot be read, or
/// is no TOML.
[[nodiscard]] bool read_toml(const std::string& file, const std::string& template_name,
                             toml::table& ret_table, std::vector<ConfigurationError>& errors);

}  // namespace warmfork::service
