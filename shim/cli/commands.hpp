// What warmfork(1) can do. Each function returns the exit status.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "warmfork.hpp"

namespace warmfork::cli {

struct TemplateOptions {
    std::vector<std::string> preload;
    std::string python;  ///< empty: the command's first word
    bool learn = false;
};

struct RunOptions {
    TemplateOptions from;
    std::string backend;  ///< empty: the default
    bool explain = false;
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

/// Which daemon.
struct BoardOptions {
    std::string user;      ///< name or number; empty: the caller's own
    std::string instance;  ///< empty: the daemon without a name
};

struct StatusOptions {
    BoardOptions of;
    bool json = false;
    bool metrics = false;
};

/// Starts a template; throws Error.
[[nodiscard]] Template open_template(const TemplateOptions& options, std::int32_t spares,
                                     warmfork_backend backend = WARMFORK_BACKEND_DEFAULT);

/// Blocks until it is ready, and on a terminal says meanwhile what is preloaded. Throws Error.
void wait_with_progress(Template& waited_for);

/// Says whether a command would be warm, without starting it. 0: warm; 2: cold.
int explain(const ExplainOptions& options);

/// Spawns a command, forwards signals to it and waits for it.
int run_one(const RunOptions& options);

/// Opens a template and prints its report.
int examine(const DoctorOptions& options);

/// Prints what the daemon's statistics board says. 0; 3: no daemon runs; 1: it cannot be read.
int show_status(const StatusOptions& options);

/// The board, redrawn each second until `q` or a signal; where that cannot be, printed once. As
/// show_status.
int show_top(const BoardOptions& options);

/// Replaces this process by a Python program; returns only if that fails. `program`: what stands
/// behind the interpreter; with a slash in front, a file below the directory of the package. Its
/// interpreter can be given by `--python FILE`, first.
int start_python(const std::vector<std::string>& program, std::vector<std::string> arguments);

}  // namespace warmfork::cli
