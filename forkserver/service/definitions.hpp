// What configuration files define, as plain data: templates, and the daemon itself.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "warmfork.h"

namespace warmfork::service {

/// A place in a file. Lines and columns count from 1; line 0 means the file as a whole.
struct Position {
    std::string file;
    std::uint32_t line = 0, column = 0;

    bool operator==(const Position&) const = default;
};

/// Returns "FILE:LINE:COLUMN", or "FILE".
[[nodiscard]] std::string to_string(const Position& position);

/// How many children are kept parked: from `least`, when nobody spawns, up to `most`.
struct SpareRange {
    std::uint32_t least = 1, most = 8;

    bool operator==(const SpareRange&) const = default;
};

/// What the clients of one user, or those of all, may have at a time.
struct ClientLimits {
    /// How many children are alive, leased spares included; from 1 to 2^20.
    std::uint32_t children = 4096;
    /// How many may be spawned; from 1 to 1,000,000.
    std::uint32_t spawns_per_second = 10'000;
    /// How much all records that wait to be spawned take; there is room for at least one of any
    /// size (2 MiB).
    std::uint64_t record_bytes = std::uint64_t{64} << 20;

    bool operator==(const ClientLimits&) const = default;
};

/// What a template says differently from the daemon about a user's clients.
struct ClientLimitOverrides {
    std::optional<std::uint32_t> children, spawns_per_second;
    std::optional<std::uint64_t> record_bytes;

    [[nodiscard]] ClientLimits over(const ClientLimits& defaults) const;
    bool operator==(const ClientLimitOverrides&) const = default;
};

/// The limits of the cgroup that a client's children live in, where cgroups are delegated to the
/// daemon. What is not set is left to the cgroups above.
struct CgroupLimits {
    std::optional<std::uint64_t> memory_max;  ///< bytes
    std::optional<std::uint64_t> tasks_max;   ///< processes and threads, at least 1
    std::optional<std::uint32_t> cpu_weight;  ///< from 1 to 10000; the kernel's default is 100

    bool operator==(const CgroupLimits&) const = default;
};

/// One template as its files define it, what it inherits included. A time span is a number of
/// seconds or a text as of systemd.time(7), units from ms to weeks; bytes are a number or a text
/// with K, M, G or T (powers of 1024). Unless it says otherwise, a key has the name of the member
/// here, and what is not said is what the member is initialised with.
///
/// With `extends`, this template is a *layer*: it is forked from another, its base, and preloads on
/// top of that. Brackets say what becomes of a key that a layer does not say, or says otherwise:
/// - [own]: it is not the base's; the default holds.
/// - [inherited]: it is the base's; tables are merged by key.
/// - [fixed]: it is the base's, whose process it has been forked from; to say otherwise is an
/// error.
/// - [added]: the base's come first, the layer's own are added.
struct TemplateDefinition {
    /// It is the file's name without ".toml": a letter or digit, then letters, digits, '.', '_' and
    /// '-', at most 64 in all.
    std::string name;
    /// The base's name, which is empty where this is no layer. Layers can be extended; a native
    /// template neither extends nor is extended.
    std::string extends;

    /// The interpreter of a Python template, a full path or a name to be looked up in PATH. It is
    /// empty where there is a `program`, and "python3" where the files say neither. [fixed]
    std::string python = "python3";
    /// The command line of a native template; program[0] is a full path or a name to be looked up
    /// in PATH. The keys preload, options, before_fork, in_child and learn are an error then. No
    /// layer has it.
    std::vector<std::string> program;
    /// Modules to import, in this order; a layer says those that it adds. [own]
    std::vector<std::string> preload;
    /// Options of the interpreter, as ["-B", "-X", "utf8"]. [fixed]
    std::vector<std::string> options;

    /// Changes to the daemon's environment while preloading: NAME = "value" sets, NAME = false
    /// removes (and is nothing here). [fixed]
    std::map<std::string, std::optional<std::string>> environment;
    /// Where this is false, `environment` stands alone. [fixed]
    bool inherit_environment = true;
    /// The key `cwd` is the directory while preloading, a full path, in which modules are looked
    /// for first. Where it is empty, it is the daemon's. [inherited]
    std::string directory;

    /// The key `spares` is a number, or { min = ..., max = ... }, at most kMaximumSpares. Where a
    /// table gives one bound, the other is its default, or the same where that would contradict.
    /// [own]
    SpareRange spares;
    /// How many images there may be beside the first, for other options and environments, at most
    /// 64. [inherited]
    std::uint32_t variants = 4;
    /// "cold", "wait" or "serve". [inherited]
    warmfork_on_stale on_stale = WARMFORK_STALE_COLD;
    /// Says that it preloads what children were seen to import. [inherited]
    bool learn = false;
    /// A template that nobody has spawned from for so long is ended (`idle_timeout`). With 0 or
    /// "infinity", which is stored as 0, it never is. [inherited]
    std::chrono::milliseconds idle_timeout = std::chrono::hours(1);

    /// Table: children, spawns_per_second, record_bytes, of one user's clients here. [inherited]
    ClientLimitOverrides limits;
    /// Table: memory_max, tasks_max, cpu_weight; "infinity" takes back what was set before.
    /// [inherited]
    CgroupLimits cgroup;

    /// "module:function" is called in the template before each fork, or in each child right before
    /// its program; where it is empty nothing is. A layer that has one of its own replaces the
    /// base's. [inherited]
    std::string before_fork, in_child;
    /// Exceptions from the fork-safety gate: "thread:COMM", "descriptor:PREFIX", ... [added]
    std::vector<std::string> allow;
    /// Commands that are served from this template where a link stands in their place, by their
    /// names; one of the template's own name is served in any case. [own]
    std::vector<std::string> links;
    /// The whole command line that a uid of `allowed_users` starts; it can start no other, and none
    /// where this is empty. [own]
    std::vector<std::string> command;

    bool is_python() const { return program.empty(); }
    /// Compares what files say, not where they say it. For a layer this does not cover the preload
    /// list of its base: a layer is out of date whenever its base is.
    bool operator==(const TemplateDefinition&) const = default;
};

/// Where each key was said, by its dotted name ("spares.min", "environment.PATH"); what is not here
/// is a default.
using Origins = std::map<std::string, Position, std::less<>>;

struct LoadedTemplate {
    TemplateDefinition definition;
    /// The files that it was read from: its own, and then the drop-ins in order.
    std::vector<std::string> files;
    Origins origins;
};

/// The limits of the templates that the daemon makes by itself.
struct AutomaticLimits {
    /// How many run at a time: from 0 to 64.
    std::uint32_t templates = 8;
    /// How many bytes their images take together.
    std::uint64_t memory = std::uint64_t{1} << 30;
    /// It means what it does in a TemplateDefinition.
    std::chrono::milliseconds idle_timeout = std::chrono::hours(1);

    bool operator==(const AutomaticLimits&) const = default;
};

/// The daemon itself.
struct DaemonDefinition {
    /// Names or numbers of users that may use a service account's daemon beside the account itself,
    /// each for the fixed command lines of templates. They are looked up while loading. In the
    /// daemon of a user it has no effect.
    std::vector<uid_t> allowed_users;
    /// The daemon exits when nobody has needed it for so long. With 0 or "infinity", which is
    /// stored as 0, it never does.
    std::chrono::milliseconds idle_exit = std::chrono::minutes(10);
    /// These hold for each user's clients, where a template does not say otherwise.
    ClientLimits limits;
    /// These hold for all users together.
    ClientLimits limits_of_all = {4 * ClientLimits().children, 4 * ClientLimits().spawns_per_second,
                                  4 * ClientLimits().record_bytes};
    /// Linked commands of its own user that no template is for get one when they are seen again.
    bool automatic = true;
    /// Table: templates, memory, idle_timeout.
    AutomaticLimits limits_of_automatic;

    bool operator==(const DaemonDefinition&) const = default;
};

/// What is wrong with a file: what was found, what is expected, and what was probably meant.
struct ConfigurationError {
    Position where;
    std::string text;
    std::string template_name;  ///< the one that is not defined because of it; empty: none

    bool operator==(const ConfigurationError&) const = default;
};

/// Returns "FILE:LINE:COLUMN: text".
[[nodiscard]] std::string to_string(const ConfigurationError& error);

}  // namespace warmfork::service
