#include "service/automatic.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "link/python_program.hpp"
#include "owner/python_command.hpp"
#include "service/validators.hpp"

namespace warmfork::service {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kLongestPath = 4096, kLongestOption = 256, kMostOptions = 16;
// How much of the program's name is in that of its template, which may have 64 characters.
constexpr std::size_t kLongestStem = 40;
// This many templates are started for the first time in this many seconds.
constexpr int kMostInPeriod = 4;
constexpr AutomaticTemplates::Seconds kPeriod = 10;
// How many variables a file has for one command.
constexpr std::size_t kMostVariables = 1024;

std::string base_name(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

bool is_text(const std::string& text, std::size_t most) {
    return !text.empty() && text.size() <= most && text.find('\0') == std::string::npos;
}

bool is_path(const std::string& path) {
    return is_text(path, kLongestPath) && path.front() == '/';
}

std::string full_path(const std::string& path, const std::string& directory) {
    if (path.starts_with('/')) return path;
    return directory + "/" + (path.starts_with("./") ? path.substr(2) : path);
}

bool is_valid(const AutomaticCommand& command) {
    const bool is_operand = command.is_module
                                ? command.operand.size() <= kLongestOption &&
                                      command.operand.find('\0') == std::string::npos &&
                                      is_module(command.operand)
                                : is_path(command.operand);
    // What lies in these places is another thing each time: above all, what a shell's <(...) is.
    const bool lasts =
        !command.operand.starts_with("/dev/") && !command.operand.starts_with("/proc/");
    return is_path(command.interpreter) &&
           link::is_python_name(base_name(command.interpreter).c_str()) && is_operand && lasts &&
           command.options.size() <= kMostOptions &&
           std::ranges::all_of(command.options, [](const std::string& option) {
               return is_text(option, kLongestOption) && option.front() == '-';
           });
}

/// Hashes by FNV-1a, as it has to be the same in each service.
std::uint64_t hash_of(const AutomaticCommand& command) {
    std::string text = command.interpreter + '\0' + command.operand + '\0';
    text += command.is_module ? 'm' : 's';
    for (const std::string& option : command.options) text += '\0' + option;
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return hash;
}

template <typename Value>
Value member(const Json& object, const char* name, Value otherwise = {}) {
    const auto found = object.find(name);
    if (found == object.end()) return otherwise;
    if constexpr (std::is_same_v<Value, std::string>)
        return found->is_string() ? found->get<std::string>() : otherwise;
    else if constexpr (std::is_same_v<Value, bool>)
        return found->is_boolean() ? found->get<bool>() : otherwise;
    else
        return found->is_number_integer() ? found->get<Value>() : otherwise;
}

std::vector<std::string> texts(const Json& object, const char* name, std::size_t most) {
    std::vector<std::string> values;
    const auto found = object.find(name);
    if (found == object.end() || !found->is_array()) return values;
    for (const Json& value : *found)
        if (value.is_string() && values.size() < most) values.push_back(value.get<std::string>());
    return values;
}

}  // namespace

std::optional<AutomaticCommand> make_automatic_command(const LinkedCommand& linked) {
    if (!is_path(linked.directory)) return {};
    std::vector<std::string> line{linked.interpreter};
    line.insert(line.end(), linked.arguments.begin(), linked.arguments.end());
    std::vector<char*> arguments;
    for (std::string& argument : line) {
        // This would be parsed as something shorter.
        if (argument.find('\0') != std::string::npos) return {};
        arguments.push_back(argument.data());
    }
    PythonCommand parsed = parse_python_command(arguments);
    using Kind = PythonCommand::Kind;
    if (!parsed.obstacle.empty() || (parsed.kind != Kind::script && parsed.kind != Kind::module))
        return {};
    AutomaticCommand command;
    command.interpreter = full_path(linked.interpreter, linked.directory);
    command.options = std::move(parsed.options);
    command.is_module = parsed.kind == Kind::module;
    command.operand =
        command.is_module ? parsed.operand : full_path(parsed.operand, linked.directory);
    if (!is_valid(command)) return {};
    return command;
}

std::string name_of(const AutomaticCommand& command) {
    std::string stem = command.is_module ? command.operand : base_name(command.operand);
    if (stem.ends_with(".py")) stem.resize(stem.size() - 3);
    stem.resize(std::min(stem.size(), kLongestStem));
    for (char& c : stem) {
        const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                              (c >= '0' && c <= '9') || c == '.' || c == '_';
        if (!is_plain) c = '-';
    }
    if (const std::size_t first = stem.find_first_not_of("._-"); first != std::string::npos)
        stem.erase(0, first);
    else
        stem = "script";
    return fmt::format("{}-{:016x}", stem, hash_of(command));
}

std::string to_string(const AutomaticCommand& command) {
    std::string text = command.interpreter;
    for (const std::string& option : command.options) text += " " + option;
    return text + (command.is_module ? " -m " : " ") + command.operand;
}

std::string AutomaticTemplates::see(const AutomaticCommand& command, Seconds now) {
    std::string name = name_of(command);
    auto known = templates_.find(name);
    if (known == templates_.end()) {
        make_room();
        known = templates_.try_emplace(name).first;
        known->second.command = command;
    }
    AutomaticTemplate& entry = known->second;
    if (entry.command != command) return {};
    ++entry.sightings;
    entry.last_sight = now;
    return name;
}

AutomaticTemplate* AutomaticTemplates::find(std::string_view name) {
    const auto known = templates_.find(name);
    if (known == templates_.end() || known->second.sightings < kSightings) return nullptr;
    return &known->second;
}

bool AutomaticTemplates::admit_new_start(Seconds now) {
    // The clock may have been set back.
    if (now >= period_began_ + kPeriod || now < period_began_) {
        period_began_ = now;
        started_in_period_ = 0;
    }
    return started_in_period_ < kMostInPeriod && ++started_in_period_;
}

void AutomaticTemplates::erase(std::string_view name) {
    if (const auto known = templates_.find(name); known != templates_.end())
        templates_.erase(known);
}

void AutomaticTemplates::make_room() {
    if (templates_.size() < kMostCommands) return;
    templates_.erase(std::ranges::min_element(templates_, {}, [](const auto& entry) {
        return std::tuple(entry.second.sightings >= kSightings, entry.second.last_sight);
    }));
}

std::string AutomaticTemplates::write() const {
    Json commands = Json::array();
    for (const auto& [name, entry] : templates_)
        commands.push_back({{"interpreter", entry.command.interpreter},
                            {"options", entry.command.options},
                            {entry.command.is_module ? "module" : "script", entry.command.operand},
                            {"sightings", entry.sightings},
                            {"runs", entry.runs},
                            {"last_sight", entry.last_sight},
                            {"variables", entry.variables},
                            {"refusal", entry.refusal},
                            {"stamp", entry.stamp},
                            {"empty", entry.is_empty}});
    return Json{{"commands", std::move(commands)}}.dump(1, ' ', false,
                                                        Json::error_handler_t::replace) +
           "\n";
}

void AutomaticTemplates::read(std::string_view text) {
    const Json all = Json::parse(text, nullptr, false);
    if (!all.is_object() || !all.contains("commands") || !all["commands"].is_array()) return;
    for (const Json& written : all["commands"]) {
        if (!written.is_object() || templates_.size() >= kMostCommands) continue;
        AutomaticTemplate entry;
        entry.command.interpreter = member<std::string>(written, "interpreter");
        entry.command.options = texts(written, "options", kMostOptions + 1);
        entry.command.is_module = written.contains("module");
        entry.command.operand =
            member<std::string>(written, entry.command.is_module ? "module" : "script");
        if (!is_valid(entry.command)) continue;
        entry.sightings = member<std::uint64_t>(written, "sightings");
        entry.runs = member<std::uint64_t>(written, "runs");
        entry.last_sight = member<std::int64_t>(written, "last_sight");
        for (std::string& variable : texts(written, "variables", kMostVariables))
            entry.variables.insert(std::move(variable));
        entry.refusal = member<std::string>(written, "refusal");
        entry.stamp = member<std::string>(written, "stamp");
        entry.is_empty = member<bool>(written, "empty");
        std::string name = name_of(entry.command);
        templates_.try_emplace(std::move(name), std::move(entry));
    }
}

}  // namespace warmfork::service
