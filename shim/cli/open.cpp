#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "channel/deadline.hpp"
#include "cli/commands.hpp"
#include "cli/progress.hpp"
#include "owner/image_source.hpp"
#include "owner/python_command.hpp"
#include "owner/script_line.hpp"

namespace warmfork::cli {

Error own_error(warmfork_stage stage, int error_number, const std::string& text) {
    warmfork_failure failure{};
    failure.stage = stage;
    failure.error_number = error_number;
    fmt::format_to_n(failure.text, sizeof failure.text - 1, "{}: {}", text,
                     std::strerror(error_number));
    return Error(failure);
}

namespace {

// How often, in milliseconds, and after what time first, a person is told what is being waited for.
constexpr int kProgressPeriod = 100;
constexpr std::chrono::seconds kProgressPatience{1};

/// Returns the command line that an interpreter gets. For a script that is what exec makes of it.
std::vector<std::string> interpreted(const std::vector<std::string>& command) {
    const auto arguments = detail::pointers(command);
    const auto environment_size = [] {
        std::size_t size = 0;
        while (environ && environ[size]) ++size;
        return size;
    };
    const std::optional<ScriptCommand> script = find_script_command(
        command.front(), {const_cast<char* const*>(arguments.data()), command.size()},
        {environ, environment_size()}, ".");
    return script ? script->arguments : command;
}

/// Returns what of a command line shapes the interpreter, unless that can only be started cold.
std::vector<std::string> options_of(const std::vector<std::string>& command) {
    const auto arguments = detail::pointers(command);
    const PythonCommand parsed =
        parse_python_command({const_cast<char* const*>(arguments.data()), command.size()});
    return parsed.obstacle.empty() ? parsed.options : std::vector<std::string>();
}

/// Returns a script as a path, or the operand of -m or -c.
std::string program_of(const std::vector<std::string>& command) {
    for (std::size_t i = 1; i < command.size(); ++i) {
        if (command[i].starts_with('-')) continue;
        std::error_code error;
        const std::filesystem::path path = std::filesystem::canonical(command[i], error);
        return error ? command[i] : path.string();
    }
    return {};
}

/// Shows what is preloaded, on one line of a terminal that is empty afterwards.
class ProgressLine {
  public:
    ProgressLine() = default;
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    ~ProgressLine() {
        if (has_shown_) std::fputs("\r\033[K", stderr);
    }
    void show(const char* text) {
        has_shown_ = true;
        fmt::print(stderr, "\r\033[Kwarmfork: preloading {}", text);
    }

  private:
    bool has_shown_ = false;
};

/// Waits for kProgressPeriod at most. Returns whether it is ready. Throws Error where it cannot
/// become ready.
bool wait_briefly(Template& waited_for) {
    try {
        waited_for.wait_ready(kProgressPeriod);
        return true;
    } catch (const Error& error) {
        if (error.error_number() != ETIMEDOUT) throw;
        return false;
    }
}

}  // namespace

void complete(TemplateOptions& options, const std::vector<std::string>& command) {
    const std::vector<std::string> arguments = interpreted(command);
    if (options.python.empty()) options.python = arguments.front();
    if (options.program.empty()) options.program = program_of(arguments);
    options.options = options_of(arguments);
}

Template open_template(const TemplateOptions& options, std::int32_t spares,
                       warmfork_backend backend) {
    warmfork_template_options template_options;
    warmfork_template_options_init(&template_options);
    const auto modules = detail::pointers(options.preload);
    const auto python_options = detail::pointers(options.options);
    template_options.python = options.python.c_str();
    template_options.python_options = python_options.data();
    template_options.preload = modules.data();
    template_options.learn = options.learn;
    template_options.name = options.program.c_str();
    template_options.spares = spares;
    template_options.backend = backend;
    return Template(template_options);
}

void wait_with_progress(Template& waited_for) {
    wait_with_progress(waited_for, kWarmPatience);
}

void wait_with_progress(Template& waited_for, std::chrono::milliseconds patience) {
    const auto began = WaitClock::now();
    const auto last_look = began + patience - std::chrono::milliseconds(kProgressPeriod);
    if (::isatty(STDERR_FILENO)) {
        ProgressLine line;
        while (WaitClock::now() < last_look) {
            if (wait_briefly(waited_for)) return;
            std::array<char, 80> progress{};
            warmfork_template_progress(waited_for.handle(), progress.data(), progress.size());
            if (progress[0] && WaitClock::now() >= began + kProgressPatience)
                line.show(progress.data());
        }
    }
    waited_for.wait_ready(milliseconds_until(began + patience));
}

}  // namespace warmfork::cli
