#include "cli/automatic.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <map>
#include <vector>

#include "cli/board_view.hpp"
#include "service/configuration_keys.hpp"
#include "service/learned.hpp"

namespace warmfork::cli {
namespace {

using Json = nlohmann::json;

// The table names this many of the packages that a template preloads.
constexpr std::size_t kMostPackages = 3;
constexpr std::size_t kWidestLine = 100;

/// Makes JSON of it, as in the service's own answer.
Json to_json(const service::LearnedImage& image) {
    Json modules = Json::array(), refused = Json::array();
    double seconds = 0;
    for (const service::LearnedModule& module : image.modules) {
        const double of_module = static_cast<double>(module.microseconds) / 1e6;
        modules.push_back(
            {{"module", module.name}, {"seconds", of_module}, {"kilobytes", module.kilobytes}});
        seconds += of_module;
    }
    for (const service::RefusedModule& module : image.refused)
        refused.push_back({{"module", module.name}, {"reason", module.reason}});
    return {{"modules", std::move(modules)},
            {"refused", std::move(refused)},
            {"saves_seconds", seconds}};
}

/// Returns "numpy, json, +12", with those first that take the most time.
std::string packages_of(const Json& modules) {
    std::map<std::string, double> seconds;
    for (const Json& module : modules) {
        const auto name = module["module"].get<std::string>();
        seconds[name.substr(0, name.find('.'))] += module["seconds"].get<double>();
    }
    std::vector<std::pair<double, std::string>> packages;
    for (const auto& [name, time] : seconds) packages.emplace_back(-time, name);
    std::ranges::sort(packages);
    std::string text;
    for (std::size_t i = 0; i < std::min(kMostPackages, packages.size()); ++i)
        text += (i ? ", " : "") + packages[i].second;
    if (packages.size() > kMostPackages)
        text += fmt::format(", +{}", packages.size() - kMostPackages);
    return text.empty() ? "-" : text;
}

/// Returns what it is ready with, or why it is cold.
std::string contents_of(const Json& entry) {
    if (auto reason = entry.value("reason", ""); !reason.empty()) return reason;
    return entry["modules"].is_array() ? packages_of(entry["modules"]) : "-";
}

std::string span_of(double seconds) {
    return span_text(std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(std::max(seconds, 0.0))));
}

/// Returns a list of TOML over as many lines as it needs.
std::string wrapped(std::string_view list) {
    constexpr std::string_view kBetween = ", ";
    std::string text;
    std::size_t width = 0;
    while (!list.empty()) {
        const std::size_t found = list.find(kBetween);
        const std::string_view item =
            list.substr(0, found == list.npos ? list.size() : found + kBetween.size());
        list.remove_prefix(item.size());
        if (width > 0 && width + item.size() > kWidestLine) {
            text.back() = '\n';
            text += "    ";
            width = 4;
        }
        text += item;
        width += item.size();
    }
    return text;
}

}  // namespace

void add_learned(Json& automatic, const std::string& learned) {
    const auto images = service::read_learned(learned);
    for (Json& entry : automatic) {
        const auto found = images.find(entry.value("name", ""));
        entry.update(found != images.end() ? to_json(found->second)
                                           : Json{{"modules", nullptr},
                                                  {"refused", Json::array()},
                                                  {"saves_seconds", nullptr}});
    }
}

void print_automatic(const Json& automatic) {
    Table table({"<AUTOMATIC", "<STATE", "PARKED", "SAVES", "MEMORY", "<AGE", "<LAST USE",
                 "<PRELOADS", "<COMMAND"},
                ::isatty(STDOUT_FILENO));
    const auto now = static_cast<double>(::time(nullptr));
    for (const Json& entry : automatic) {
        const Json saves = entry.value("saves_seconds", Json()),
                   age = entry.value("age_seconds", Json()),
                   memory = entry.value("memory_kb", Json());
        table.add({entry.value("name", ""), entry.value("state", ""),
                   entry.value("parked", std::uint64_t{0}),
                   saves.is_number() ? duration_text(saves.get<double>() * 1e6) : "-",
                   memory_text(memory.is_number() ? memory.get<std::uint64_t>() << 10 : 0),
                   age.is_number() ? span_of(age.get<double>()) : "-",
                   span_of(now - entry.value("last_use", now)) + " ago", contents_of(entry),
                   entry.value("command", "")});
    }
    for (const std::string& line : table.lines()) fmt::print("{}\n", line);
}

std::string adopted_text(const Json& entry) {
    service::TemplateDefinition definition;
    definition.python = entry.value("python", "");
    definition.options = entry.value("options", std::vector<std::string>());
    for (const Json& module : entry["modules"])
        definition.preload.push_back(module["module"].get<std::string>());
    for (const char* name : {"PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE"})
        if (const char* value = std::getenv(name)) definition.environment[name] = value;
    std::string text = fmt::format(
        "# For {}.\n"
        "# By its name this template serves that command; other commands by the key `links`.\n",
        service::printed_text(entry.value("command", "")));
    for (const service::PrintedKey& key : service::print(definition))
        if (!key.is_default) text += wrapped(fmt::format("{} = {}", key.name, key.value)) + "\n";
    return text;
}

}  // namespace warmfork::cli
