#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "cli/commands.hpp"

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

// How often, in milliseconds, and from when on a person is told what is being waited for.
constexpr int kProgressPeriod = 100;
constexpr std::chrono::seconds kProgressPatience{1};

/// A script as a path, or the operand of -m or -c.
std::string program_of(const std::vector<std::string>& command) {
    for (std::size_t i = 1; i < command.size(); ++i) {
        if (command[i].starts_with('-')) continue;
        std::error_code error;
        const std::filesystem::path path = std::filesystem::canonical(command[i], error);
        return error ? command[i] : path.string();
    }
    return {};
}

}  // namespace

void complete(TemplateOptions& options, const std::vector<std::string>& command) {
    if (options.python.empty()) options.python = command.front();
    if (options.program.empty()) options.program = program_of(command);
}

Template open_template(const TemplateOptions& options, std::int32_t spares,
                       warmfork_backend backend) {
    warmfork_template_options template_options;
    warmfork_template_options_init(&template_options);
    const auto modules = detail::pointers(options.preload);
    template_options.python = options.python.c_str();
    template_options.preload = modules.data();
    template_options.learn = options.learn;
    template_options.name = options.program.c_str();
    template_options.spares = spares;
    template_options.backend = backend;
    return Template(template_options);
}

void wait_with_progress(Template& waited_for) {
    if (!::isatty(STDERR_FILENO)) return waited_for.wait_ready();
    const auto began = std::chrono::steady_clock::now();
    bool has_printed = false;
    const auto clear = [&] {
        if (has_printed) fmt::print(stderr, "\r\033[K");
    };
    while (true) {
        try {
            waited_for.wait_ready(kProgressPeriod);
            return clear();
        } catch (const Error& error) {
            if (error.error_number() != ETIMEDOUT) {
                clear();
                throw;
            }
        }
        std::array<char, 80> progress;
        warmfork_template_progress(waited_for.handle(), progress.data(), progress.size());
        if (!progress[0] || std::chrono::steady_clock::now() - began < kProgressPatience) continue;
        has_printed = true;
        fmt::print(stderr, "\r\033[Kwarmfork: preloading {}", progress.data());
    }
}

}  // namespace warmfork::cli
