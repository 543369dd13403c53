#include "library/define_images.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "owner/companions.hpp"
#include "owner/eligibility.hpp"
#include "protocol/limits.hpp"

namespace warmfork {
namespace {

std::vector<std::string> copy_strings(const char* const* strings) {
    std::vector<std::string> copied;
    for (; strings && *strings; ++strings) copied.emplace_back(*strings);
    return copied;
}

/// See ImageSet::decide_to_wait. A template that learns opens in the background.
std::uint32_t most_cold_at_first(bool learns) {
    if (learns) return UINT32_MAX;
    // One processor is the template's.
    constexpr std::uint32_t kMost = 2;
    return std::clamp(std::thread::hardware_concurrency(), 2u, kMost + 1) - 1;
}

}  // namespace

Outcome set_range(std::int32_t spares, std::uint32_t& ret_least, std::uint32_t& ret_most) {
    if (spares < WARMFORK_SPARES_ADAPTIVE || spares > static_cast<std::int32_t>(kMaximumSpares))
        return make_failure(
            Stage::record, EINVAL,
            fmt::format("{} spares: -1 (adaptive) to {} are possible", spares, kMaximumSpares));
    ret_least = spares < 0 ? 1 : static_cast<std::uint32_t>(spares);
    ret_most = spares < 0 ? 8 : static_cast<std::uint32_t>(spares);
    return {};
}

Outcome define_images(const warmfork_template_options& options, ImageSet::Definition& ret_images) {
    std::vector<char*> environment;
    const char* const* variables = options.environment ? options.environment : environ;
    for (; variables && *variables; ++variables)
        environment.push_back(const_cast<char*>(*variables));
    const std::string program = options.python ? options.python : options.program[0];
    ret_images.is_python = options.python != nullptr;
    ret_images.program = resolve_program(program, environment);
    if (ret_images.program.empty())
        return make_failure(Stage::launch, ENOENT, "cannot find the template's program " + program);
    if (options.python) {
        ret_images.package = find_python_path();
        if (ret_images.package.empty())
            return make_failure(Stage::launch, ENOENT,
                                "cannot find the Python package of warmfork: is python3-warmfork "
                                "installed?");
        ret_images.python_path =
            options.python_path ? copy_strings(options.python_path) : std::vector<std::string>{"."};
        ret_images.names_search_path = options.python_path != nullptr;
        ret_images.preload = copy_strings(options.preload);
        ret_images.options = copy_strings(options.python_options);
        if (options.before_fork) ret_images.before_fork = options.before_fork;
        if (options.in_child) ret_images.in_child = options.in_child;
        ret_images.learns = options.learn != 0;
        if (options.name) ret_images.name = options.name;
    } else {
        ret_images.arguments = copy_strings(options.program + 1);
    }
    if (options.environment) ret_images.environment = copy_strings(options.environment);
    if (options.directory) ret_images.directory = options.directory;
    ret_images.most_cold_at_first = most_cold_at_first(ret_images.learns);
    ret_images.allowed = copy_strings(options.allow);
    ret_images.variants_most = options.variants;
    ret_images.nested = options.nested != 0;
    return set_range(options.spares, ret_images.spares_least, ret_images.spares_most);
}

}  // namespace warmfork
