// What warmfork(1) can do. Each function returns the exit status.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "warmfork.hpp"

namespace warmfork::cli {

struct TemplateOptions {
    std::string name;  ///< of a template of the service; empty: one is opened
    std::vector<std::string> preload;
    std::string python;  ///< empty: the command's first word, or what this is a script of
    std::vector<std::string> options;  ///< of the interpreter
    bool learn = false;
    std::string program;  ///< whose children it learns from; empty: the command's, if there is one
};

struct RunOptions {
    TemplateOptions from;
    std::string backend;  ///< empty: the default
    bool explain = false;
    std::string in_place_of;  ///< the command's program, which this process becomes rather than
                              ///< have a cold child; empty: a child in any case
    std::vector<std::string> command;
};

struct DoctorOptions {
    TemplateOptions of;
    bool json = false;
};

struct ExplainOptions {
    TemplateOptions from;
    bool json = false;
    std::vector<std::string> command;
};

/// Which daemon is meant.
struct BoardOptions {
    std::string user;      ///< name or number; empty: the caller's own
    std::string instance;  ///< empty: the daemon without a name
};

struct StatusOptions {
    BoardOptions of;
    bool json = false;
    bool metrics = false;
};

struct ManageOptions {
    std::string verb;  ///< list, show, start, stop, reload, edit, adopt
    std::string name;  ///< of the template; empty: all of them
    bool json = false;
    std::vector<std::string> directories;  ///< of the configuration; empty: the default ones
};

struct LogOptions {
    std::string name;  ///< of a template; empty: everything
    bool follow = false;
    std::vector<std::string> rest;  ///< more options of journalctl
};

struct LinkListOptions {
    bool json = false;
};

struct LinkOptions {
    std::string directory;  ///< empty: the user's own
    std::vector<std::string> names;
};

/// Makes an error that this program itself reports. `text` is what was attempted, on what; the
/// system's text for the error number is put behind it.
[[nodiscard]] Error own_error(warmfork_stage stage, int error_number, const std::string& text);

/// Completes the options by what a command says: its program, and the options of its interpreter.
void complete(TemplateOptions& options, const std::vector<std::string>& command);

/// Starts a template; throws Error.
[[nodiscard]] Template open_template(const TemplateOptions& options, std::int32_t spares,
                                     warmfork_backend backend = WARMFORK_BACKEND_DEFAULT);

/// Blocks until it is ready, and on a terminal says meanwhile what is preloaded. Throws Error.
void wait_with_progress(Template& waited_for);

/// Says whether a command would be warm, without starting it. Returns 0 for warm, 2 for cold.
int explain(const ExplainOptions& options);

/// Spawns a command, forwards signals to it and waits for it. Where a signal ends it this process
/// dies by the same one.
int run_one(const RunOptions& options);

/// Opens a template and prints its report.
int examine(const DoctorOptions& options);

/// Prints what the daemon's statistics board says. Returns 0, 3 where no daemon runs, or 1 where it
/// cannot be read.
int show_status(const StatusOptions& options);

/// Shows the board, redrawn each second until `q` or a signal; where that cannot be, it is printed
/// once. Returns what show_status does.
int show_top(const BoardOptions& options);

/// Shows or changes the service's templates.
int manage_templates(const ManageOptions& options);

/// Replaces this process by journalctl; returns only if that fails.
int show_log(const LogOptions& options);

/// Makes links to warmfork-exec, which are found in place of the real commands. Returns 0, or 1
/// with a message.
int install_links(const LinkOptions& options);

/// Prints the links in PATH, what they stand in front of, and how often they were warm. Returns 0.
int show_links(const LinkListOptions& options);

/// Replaces this process by a Python program; returns only if that fails. `program` is what stands
/// behind the interpreter; with a slash in front it is a file below the directory of the package.
/// Its interpreter can be given by `--python FILE`, first.
int start_python(const std::vector<std::string>& program, std::vector<std::string> arguments);

}  // namespace warmfork::cli
