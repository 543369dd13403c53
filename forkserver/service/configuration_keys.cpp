#include "service/configuration_keys.hpp"

#include "service/validators.hpp"

#include <fmt/format.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <set>

#include "protocol/limits.hpp"
#include "service/configuration_files.hpp"
#include "service/suggestion.hpp"

namespace warmfork::service {
namespace {

/// What becomes of a key in a layer: see TemplateDefinition.
enum class Layering { own, inherited, fixed, added };

template <typename Definition>
struct Key {
    std::string name;  ///< dotted where it is one of a table
    std::function<void(Reading&, const toml::node&, Definition&)> read;
};

struct TemplateKey : Key<TemplateDefinition> {
    Layering layering = Layering::own;
    bool is_of_python = false;  ///< means nothing to a native template
    std::function<void(TemplateDefinition& layer, const TemplateDefinition& base, bool is_said)>
        inherit;
    std::function<bool(const TemplateDefinition&, const TemplateDefinition&)> is_same;
    std::function<void(const TemplateDefinition&, PrintedKeys&)> print;
};

// Templates.

template <typename Field, typename Kind>
TemplateKey make_key(const std::string& name, Field field, Kind kind, Layering layering,
                     bool is_of_python = false) {
    TemplateKey key;
    key.name = name;
    key.layering = layering;
    key.is_of_python = is_of_python;
    key.read = [=](Reading& reading, const toml::node& node, TemplateDefinition& definition) {
        auto value = kind.read(reading, name, node);
        if (!value) return;
        field(definition) = std::move(*value);
        reading.note(name, node);
    };
    key.inherit = [=](TemplateDefinition& layer, const TemplateDefinition& base, bool is_said) {
        if (!is_said) field(layer) = field(base);
    };
    key.is_same = [=](const TemplateDefinition& one, const TemplateDefinition& other) {
        return field(one) == field(other);
    };
    key.print = [=](const TemplateDefinition& definition, PrintedKeys& printed) {
        const auto& value = field(definition);
        printed.push_back({name, kind.print(value), kind.is_default(value)});
    };
    return key;
}

TemplateKey make_allow_key() {
    TemplateKey key = make_key(
        "allow", [](auto& definition) -> auto& { return definition.allow; },
        TextList{{"\"thread:COMM\", \"descriptor:PREFIX\", \"mapping:PREFIX\", or \"identity:\", "
                  "\"output:\", \"program:\" or \"directory:\" with a module",
                  is_exception},
                 "[\"thread:jemalloc\"]"},
        Layering::added);
    key.inherit = [](TemplateDefinition& layer, const TemplateDefinition& base, bool) {
        std::vector<std::string> all = base.allow;
        for (std::string& exception : layer.allow)
            if (std::ranges::find(all, exception) == all.end()) all.push_back(std::move(exception));
        layer.allow = std::move(all);
    };
    return key;
}

constexpr std::string_view kSpares = "spares", kLeastSpares = "spares.min",
                           kMostSpares = "spares.max";

void read_spares(Reading& reading, const toml::node& node, TemplateDefinition& definition) {
    const Amount<std::uint32_t> amount{{0, kMaximumSpares}};
    const std::string least(kLeastSpares), most(kMostSpares);
    if (const toml::table* const table = node.as_table()) {
        for (const auto& [key, value] : *table) {
            const bool is_least = key.str() == "min";
            if (!is_least && key.str() != "max") {
                reading.fail(position_of(key.source()),
                             fmt::format("unknown key \"{}\" in spares: there are min "
                                         "and max",
                                         key.str()));
                continue;
            }
            const std::string& name = is_least ? least : most;
            const auto number = amount.read(reading, name, value);
            if (!number) continue;
            (is_least ? definition.spares.least : definition.spares.most) = *number;
            reading.note(name, value);
        }
        return;
    }
    if (!node.is_integer()) {
        reading.expected(
            std::string(kSpares), node,
            fmt::format("a number from 0 to {}, or a table, as in {{ min = 1, max = 8 }}",
                        kMaximumSpares));
        return;
    }
    const auto number = amount.read(reading, std::string(kSpares), node);
    if (!number) return;
    definition.spares = {*number, *number};
    reading.note(least, node);
    reading.note(most, node);
}

TemplateKey make_spares_key() {
    TemplateKey key;
    key.name = kSpares;
    key.read = read_spares;
    key.print = [](const TemplateDefinition& definition, PrintedKeys& printed) {
        printed.push_back({std::string(kLeastSpares), std::to_string(definition.spares.least)});
        printed.push_back({std::string(kMostSpares), std::to_string(definition.spares.most)});
    };
    return key;
}

void read_environment(Reading& reading, const toml::node& node, TemplateDefinition& definition) {
    const toml::table* const table = node.as_table();
    if (!table) {
        reading.expected("environment", node,
                         "a table, as in { LANG = \"C.UTF-8\", DISPLAY = false }");
        return;
    }
    const Text text{"a text, which sets the variable, or false, which removes it"};
    for (const auto& [key, value] : *table) {
        const std::string name(key.str());
        const std::string path = "environment." + printed_key(name);
        if (!is_variable(name)) {
            reading.fail(position_of(key.source()),
                         fmt::format("{} cannot be the name of a variable of the environment",
                                     printed_text(name)));
        } else if (value.value_exact<bool>() == false) {
            definition.environment[name].reset();
            reading.note(path, value);
        } else if (auto content = text.read(reading, path, value)) {
            definition.environment[name] = std::move(*content);
            reading.note(path, value);
        }
    }
}

TemplateKey make_environment_key() {
    TemplateKey key;
    key.name = "environment";
    key.layering = Layering::fixed;
    key.read = read_environment;
    key.inherit = [](TemplateDefinition& layer, const TemplateDefinition& base, bool) {
        layer.environment.insert(base.environment.begin(), base.environment.end());
    };
    key.is_same = [](const TemplateDefinition& one, const TemplateDefinition& other) {
        return one.environment == other.environment;
    };
    key.print = [](const TemplateDefinition& definition, PrintedKeys& printed) {
        for (const auto& [name, value] : definition.environment)
            printed.push_back(
                {"environment." + printed_key(name), value ? printed_text(*value) : "false"});
    };
    return key;
}

#define FIELD(member)               \
    [](auto& definition) -> auto& { \
        return definition.member;   \
    }

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::int64_t>::max();
constexpr AmountRange kChildren{1, 1u << 20}, kSpawnsPerSecond{1, 1'000'000},
    kRecordBytes{kMaximumRecordSize, kUnlimited, true};

/// Makes the keys, in the order in which they are printed.
std::vector<TemplateKey> make_template_keys() {
    using enum Layering;
    const Text program{"a full path, or a name to be looked up in PATH", is_program};
    const Text module{"the name of a module, as in \"os.path\"", is_module};
    const Text argument{"a text"};
    const Text hook{"\"MODULE:FUNCTION\"", is_hook};
    return {
        make_key("extends", FIELD(extends), Text{kTemplateName.data(), is_template_name}, own),
        make_key("python", FIELD(python), program, fixed),
        make_key("program", FIELD(program), TextList{argument, "[\"lookup\", \"serve\"]", false},
                 own),
        make_key("preload", FIELD(preload), TextList{module, "[\"numpy\", \"json\"]"}, own, true),
        make_key("options", FIELD(options),
                 TextList{{"a text that is not empty", is_not_empty}, "[\"-B\"]"}, fixed, true),
        make_environment_key(),
        make_key("inherit_environment", FIELD(inherit_environment), Flag{}, fixed),
        make_key("cwd", FIELD(directory), Text{"a full path", is_full_path}, inherited),
        make_spares_key(),
        make_key("variants", FIELD(variants), Amount<std::uint32_t>{{0, 64}}, inherited),
        make_key("on_stale", FIELD(on_stale), OnStale{}, inherited),
        make_key("learn", FIELD(learn), Flag{}, inherited, true),
        make_key("idle_timeout", FIELD(idle_timeout), TimeSpan{}, inherited),
        make_key("limits.children", FIELD(limits.children),
                 OptionalAmount<std::uint32_t>{kChildren}, inherited),
        make_key("limits.spawns_per_second", FIELD(limits.spawns_per_second),
                 OptionalAmount<std::uint32_t>{kSpawnsPerSecond}, inherited),
        make_key("limits.record_bytes", FIELD(limits.record_bytes),
                 OptionalAmount<std::uint64_t>{kRecordBytes}, inherited),
        make_key("cgroup.memory_max", FIELD(cgroup.memory_max),
                 OptionalAmount<std::uint64_t>{{1, kUnlimited, true, true}}, inherited),
        make_key("cgroup.tasks_max", FIELD(cgroup.tasks_max),
                 OptionalAmount<std::uint64_t>{{1, kUnlimited, false, true}}, inherited),
        make_key("cgroup.cpu_weight", FIELD(cgroup.cpu_weight),
                 OptionalAmount<std::uint32_t>{{1, 10'000, false, true}}, inherited),
        make_key("before_fork", FIELD(before_fork), hook, inherited, true),
        make_key("in_child", FIELD(in_child), hook, inherited, true),
        make_allow_key(),
        make_key("links", FIELD(links),
                 TextList{{"the name of a command", is_command_name}, "[\"pytest\"]"}, own),
        make_key("command", FIELD(command),
                 TextList{argument, "[\"python3\", \"/srv/report.py\"]", false}, own),
    };
}

const std::vector<TemplateKey>& template_keys() {
    static const std::vector<TemplateKey> keys = make_template_keys();
    return keys;
}

// The daemon.

/// Finds the uid of a user by name. Returns nothing, with an error added, where there is none, or
/// it cannot be told.
std::optional<uid_t> find_user(Reading& reading, const std::string& key, const toml::node& node) {
    constexpr std::int64_t kMost = std::numeric_limits<uid_t>::max() - 1;  // -1 stands for none
    const auto number = node.value_exact<std::int64_t>();
    if (number && *number >= 0 && *number <= kMost) return static_cast<uid_t>(*number);
    const auto name = node.value_exact<std::string>();
    if (!name || name->empty() || name->find('\0') != std::string::npos) {
        reading.expected(key, node, fmt::format("a user's name, or number from 0 to {}", kMost));
        return {};
    }
    std::vector<char> strings(4096);
    passwd user{}, *found = nullptr;
    int error;
    while ((error = ::getpwnam_r(name->c_str(), &user, strings.data(), strings.size(), &found)) ==
           ERANGE)
        strings.resize(2 * strings.size());
    if (found) return found->pw_uid;
    reading.fail(position_of(node.source()),
                 fmt::format("{}: there is no user {}{}", key, printed_text(*name),
                             error ? std::string(": ") + std::strerror(error) : std::string()));
    return {};
}

void read_users(Reading& reading, const toml::node& node, DaemonDefinition& definition) {
    const std::string name = "allowed_users";
    const toml::array* const array = node.as_array();
    if (!array) {
        reading.expected(name, node, "an array of users, as in [\"www-data\", 1000]");
        return;
    }
    definition.allowed_users.clear();
    for (std::size_t i = 0; i < array->size(); ++i)
        if (const auto user = find_user(reading, fmt::format("{}[{}]", name, i), (*array)[i]))
            definition.allowed_users.push_back(*user);
}

template <typename Field, typename Kind>
Key<DaemonDefinition> make_daemon_key(const std::string& name, Field field, Kind kind) {
    return {name, [=](Reading& reading, const toml::node& node, DaemonDefinition& definition) {
                if (const auto value = kind.read(reading, name, node)) field(definition) = *value;
            }};
}

const std::vector<Key<DaemonDefinition>>& daemon_keys() {
    static const std::vector<Key<DaemonDefinition>> keys{
        {"allowed_users", read_users},
        make_daemon_key("idle_exit", FIELD(idle_exit), TimeSpan{}),
        make_daemon_key("automatic", FIELD(automatic), Flag{}),
        make_daemon_key("limits_of_automatic.templates", FIELD(limits_of_automatic.templates),
                        Amount<std::uint32_t>{{0, 64}}),
        make_daemon_key("limits_of_automatic.memory", FIELD(limits_of_automatic.memory),
                        Amount<std::uint64_t>{{1, kUnlimited, true}}),
        make_daemon_key("limits_of_automatic.idle_timeout", FIELD(limits_of_automatic.idle_timeout),
                        TimeSpan{}),
        make_daemon_key("limits.children", FIELD(limits.children),
                        Amount<std::uint32_t>{kChildren}),
        make_daemon_key("limits.spawns_per_second", FIELD(limits.spawns_per_second),
                        Amount<std::uint32_t>{kSpawnsPerSecond}),
        make_daemon_key("limits.record_bytes", FIELD(limits.record_bytes),
                        Amount<std::uint64_t>{kRecordBytes}),
        make_daemon_key("limits_of_all.children", FIELD(limits_of_all.children),
                        Amount<std::uint32_t>{kChildren}),
        make_daemon_key("limits_of_all.spawns_per_second", FIELD(limits_of_all.spawns_per_second),
                        Amount<std::uint32_t>{kSpawnsPerSecond}),
        make_daemon_key("limits_of_all.record_bytes", FIELD(limits_of_all.record_bytes),
                        Amount<std::uint64_t>{kRecordBytes}),
    };
    return keys;
}

#undef FIELD

// Both.

/// Returns the names at one place, as "children" in "limits.".
template <typename Keys>
std::vector<std::string> names_behind(const std::string& prefix, const Keys& keys) {
    std::set<std::string> names;
    for (const auto& key : keys)
        if (key.name.starts_with(prefix))
            names.insert(
                key.name.substr(prefix.size(), key.name.find('.', prefix.size()) - prefix.size()));
    return {names.begin(), names.end()};
}

template <typename Keys, typename Definition>
void read_table(const toml::table& table, const std::string& prefix, const Keys& keys,
                Reading& reading, Definition& definition) {
    const std::vector<std::string> known = names_behind(prefix, keys);
    for (const auto& [key, node] : table) {
        const std::string name(key.str());
        const std::string path = prefix + name;
        if (std::ranges::find(known, name) == known.end()) {
            std::string text = "unknown key " + printed_text(name);
            if (!prefix.empty()) text += " in " + prefix.substr(0, prefix.size() - 1);
            const std::string meant = suggestion(name, known);
            reading.fail(
                position_of(key.source()),
                text + (meant.empty() ? fmt::format("; known are {}", fmt::join(known, ", "))
                                      : meant));
        } else if (const auto leaf =
                       std::ranges::find_if(keys, [&](const auto& k) { return k.name == path; });
                   leaf != keys.end()) {
            leaf->read(reading, node, definition);
        } else if (const toml::table* const inner = node.as_table()) {
            read_table(*inner, path + ".", keys, reading, definition);
        } else {
            reading.expected(
                path, node,
                fmt::format("a table with {}", fmt::join(names_behind(path + ".", keys), ", ")));
        }
    }
}

/// Finds where a key, or the first one of a table, was said. It is the end where that is nowhere.
Origins::const_iterator find_origin(const Origins& origins, const std::string& name) {
    const auto found = origins.lower_bound(name);
    const bool is_it =
        found != origins.end() && (found->first == name || found->first.starts_with(name + "."));
    return is_it ? found : origins.end();
}

}  // namespace

void apply(const toml::table& table, Reading& reading, TemplateDefinition& definition) {
    read_table(table, "", template_keys(), reading, definition);
}

void apply(const toml::table& table, Reading& reading, DaemonDefinition& definition) {
    read_table(table, "", daemon_keys(), reading, definition);
}

void settle(Reading& reading, TemplateDefinition& definition) {
    const Origins& origins = reading.origins;
    if (const auto program = origins.find("program"); program != origins.end()) {
        for (const TemplateKey& key : template_keys())
            if (const auto origin = origins.find(key.name);
                key.is_of_python && origin != origins.end())
                reading.fail(origin->second,
                             fmt::format("{} is for Python templates, and program makes this a "
                                         "native one ({})",
                                         key.name, to_string(program->second)));
        for (const char* other : {"python", "extends"})
            if (const auto origin = origins.find(other); origin != origins.end())
                reading.fail(program->second,
                             fmt::format("program and {} ({}) contradict each other: leave one of "
                                         "them out",
                                         other, to_string(origin->second)));
        definition.python.clear();
    }
    SpareRange& spares = definition.spares;
    const auto least = origins.find(kLeastSpares), most = origins.find(kMostSpares);
    if (most == origins.end()) spares.most = std::max(spares.most, spares.least);
    if (least == origins.end()) spares.least = std::min(spares.most, spares.least);
    if (spares.least > spares.most)
        reading.fail(least->second,
                     fmt::format("spares.min is {}, more than spares.max, which is {} ({})",
                                 spares.least, spares.most, to_string(most->second)));
}

void inherit(const LoadedTemplate& base, Reading& reading, TemplateDefinition& layer) {
    for (const TemplateKey& key : template_keys()) {
        if (key.layering == Layering::own) continue;
        const auto said = find_origin(reading.origins, key.name);
        const bool is_said = said != reading.origins.end();
        key.inherit(layer, base.definition, is_said);
        if (key.layering == Layering::fixed && is_said && !key.is_same(layer, base.definition)) {
            const auto there = find_origin(base.origins, key.name);
            reading.fail(
                said->second,
                fmt::format(
                    "{} is not that of {} ({}), which this template extends: it is "
                    "forked from that one, with its interpreter, options and "
                    "environment. Leave the key out here, or do not extend",
                    key.name, printed_text(base.definition.name),
                    there == base.origins.end() ? "the default" : to_string(there->second)));
        }
        for (auto origin = find_origin(base.origins, key.name);
             origin != base.origins.end() &&
             (origin->first == key.name || origin->first.starts_with(key.name + "."));
             ++origin)
            reading.origins.insert(*origin);
    }
}

PrintedKeys print(const TemplateDefinition& definition) {
    PrintedKeys printed;
    for (const TemplateKey& key : template_keys())
        if (definition.is_python() || !key.is_of_python) key.print(definition, printed);
    return printed;
}

}  // namespace warmfork::service
