#include "cli/automatic.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <map>
#include <vector>

#include "cli/board_view.hpp"
#include "service/configuration_keys.hpp"

namespace warmfork::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Of the packages that a template preloads the table names so many.
constexpr std::size_t kMostPackages = 3;
constexpr std::size_t kWidestLine = 100;

std::uint64_t number_of(std::string_view text) {
    std::uint64_t number = 0;
    std::from_chars(text.data(), text.data() + text.size(), number);
    return number;
}

/// Cuts off the first word, and the space behind it.
std::string_view take_word(std::string_view& ret_line) {
    const std::size_t end = std::min(ret_line.find(' '), ret_line.size());
    const std::string_view word = ret_line.substr(0, end);
    ret_line.remove_prefix(std::min(end + 1, ret_line.size()));
    return word;
}

/// What lies behind the first line of a file that protocol/README.md draws.
Json read_image(std::ifstream& file) {
    Json modules = Json::array(), refused = Json::array();
    double seconds = 0;
    for (std::string line; std::getline(file, line);) {
        std::string_view rest = line;
        const std::string_view verdict = take_word(rest), name = take_word(rest);
        if (verdict == "no") refused.push_back({{"module", name}, {"reason", rest}});
        if (verdict != "ok") continue;
        const double of_module = static_cast<double>(number_of(take_word(rest))) / 1e6;
        modules.push_back(
            {{"module", name}, {"seconds", of_module}, {"kilobytes", number_of(take_word(rest))}});
        seconds += of_module;
    }
    return {{"modules", std::move(modules)},
            {"refused", std::move(refused)},
            {"saves_seconds", seconds}};
}

/// By the template's name: what the youngest of its images was made of.
std::map<std::string, Json> read_images(const std::string& learned) {
    std::map<std::string, Json> images;
    std::map<std::string, fs::file_time_type> times;
    std::error_code error;
    for (fs::directory_iterator entry(learned, error), end; !error && entry != end;
         entry.increment(error)) {
        const fs::path path = entry->path() / "image";
        std::error_code unknown;
        const fs::file_time_type time = fs::last_write_time(path, unknown);
        std::ifstream file(path);
        std::string name;
        if (unknown || !std::getline(file, name)) continue;
        if (const auto known = times.find(name); known != times.end() && known->second > time)
            continue;
        times[name] = time;
        images[name] = read_image(file);
    }
    return images;
}

/// "numpy, json, +12": those that take the most time, first.
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

/// What it is ready with, or why it is cold.
std::string contents_of(const Json& entry) {
    if (const auto reason = entry.value("reason", ""); !reason.empty()) return reason;
    return entry["modules"].is_array() ? packages_of(entry["modules"]) : "-";
}

std::string span_of(double seconds) {
    return span_text(std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(std::max(seconds, 0.0))));
}

/// A list of TOML over as many lines as it needs.
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
    const std::map<std::string, Json> images = read_images(learned);
    for (Json& entry : automatic) {
        const auto found = images.find(entry.value("name", ""));
        entry.update(found != images.end() ? found->second
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
