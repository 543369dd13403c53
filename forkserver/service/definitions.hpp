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

/// A place in a file. Lines and columns count from 1; line 0 is the file as a whole.
struct Position {
    std::string file;
    std::uint32_t line = 0, column = 0;

    bool operator==(const Position&) const = default;
};

/// "FILE:LINE:COLUMN", or "FILE".
[[nodiscard]] std::string to_string(const Position& position);

/// How many children are kept parked: between `least`, when nobody spawns, and `most`.
struct SpareRange {
    std::uint32_t least = 1, most = 8;

    bool operator==(const SpareRange&) const = default;
};

/// What the clients of one user, or those of all, may have at a time.
struct ClientLimits {
    /// Alive, leased spares included; from 1 to 2^20.
    std::uint32_t children = 4096;
    /// From 1 to 1,000,000.
    std::uint32_t spawns_per_second = 10'000;
    /// Of records that wait to be spawned; room for at least one of any size (2 MiB).
    std::uint64_t record_bytes = std::uint64_t{64} << 20;

    bool operator==(const ClientLimits&) const = default;
};

/// What a template says about a user's clients otherwise than the daemon does.
struct ClientLimitOverrides {
    std::optional<std::uint32_t> children, spawns_per_second;
    std::optional<std::uint64_t> record_bytes;

    [[nodiscard]] ClientLimits over(const ClientLimits& defaults) const;
    bool operator==(const ClientLimitOverrides&) const = default;
};

/// Of the cgroup that a client's children live in, where cgroups are delegated to the daemon. What
/// is not set is left to the cgroups above.
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
/// With `extends`, this template is a *layer*: forked from another, its base, and preloaded on top
/// of it. In brackets stands what becomes of a key that a layer does not say, or says otherwise:
/// - [own]: it is not the base's; the default holds.
/// - [inherited]: it is the base's; tables are merged by key.
/// - [fixed]: it is the base's, whose process it has been forked from; to say otherwise is an
/// error.
/// - [added]: the base's come first, the layer's own are added.
struct TemplateDefinition {
    /// That of the file, without ".toml": a letter or digit, then letters, digits, '.', '_' and
    /// '-', at most 64 in all.
    std::string name;
    /// The base's name; empty: it is no layer. Layers can be extended; a native template neither
    /// extends nor is extended.
    std::string extends;

    /// Of a Python template: the interpreter, a full path or a name to be looked up in PATH. Empty
    /// where there is a `program`; "python3" where the files say neither. [fixed]
    std::string python = "python3";
    /// Of a native template: its command line, program[0] a full path or a name to be looked up in
    /// PATH. The keys preload, options, before_fork, in_child and learn are an error then. No layer
    /// has it.
    std::vector<std::string> program;
    /// Modules to import, in this order; of a layer, those that it adds. [own]
    std::vector<std::string> preload;
    /// Of the interpreter, as ["-B", "-X", "utf8"]. [fixed]
    std::vector<std::string> options;

    /// On top of the daemon's environment while preloading: NAME = "value" sets, NAME = false
    /// removes (nothing here). [fixed]
    std::map<std::string, std::optional<std::string>> environment;
    /// False: `environment` on top of nothing. [fixed]
    bool inherit_environment = true;
    /// Key `cwd`: the directory while preloading, a full path, from which modules are looked for
    /// first. Empty: the daemon's. [inherited]
    std::string directory;

    /// Key `spares`: a number, or { min = ..., max = ... }, at most kMaximumSpares. Of a table that
    /// gives one bound, the other is its default, or the same where that would contradict. [own]
    SpareRange spares;
    /// Images beside the first for other options and environments, at most 64. [inherited]
    std::uint32_t variants = 4;
    /// "cold", "wait" or "serve". [inherited]
    warmfork_on_stale on_stale = WARMFORK_STALE_COLD;
    /// Preloads what children were seen to import. [inherited]
    bool learn = false;
    /// Key `idle_timeout`: a template that nobody has spawned from for so long is ended. 0 or
    /// "infinity": never, which is stored as 0. [inherited]
    std::chrono::milliseconds idle_timeout = std::chrono::hours(1);

    /// Table: children, spawns_per_second, record_bytes, of one user's clients here. [inherited]
    ClientLimitOverrides limits;
    /// Table: memory_max, tasks_max, cpu_weight; "infinity" takes back what was set before.
    /// [inherited]
    CgroupLimits cgroup;

    /// "module:function", called in the template before each fork, and in each child right before
    /// its program; empty: none. A layer that has one of its own replaces the base's. [inherited]
    std::string before_fork, in_child;
    /// Exceptions from the fork-safety gate: "thread:COMM", "descriptor:PREFIX", ... [added]
    std::vector<std::string> allow;
    /// Commands that are served from this template where a link stands in their place, by their
    /// names; one of the template's own name is so in any case. [own]
    std::vector<std::string> links;
    /// The whole command line that a uid of `allowed_users` starts; it can start no other, and none
    /// where this is empty. [own]
    std::vector<std::string> command;

    bool is_python() const { return program.empty(); }
    /// What files say, not where they say it. Of a layer this does not cover the preload list of
    /// its base: a layer is out of date whenever its base is.
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

/// Of the templates that the daemon makes by itself.
struct AutomaticLimits {
    /// That run at a time: from 0 to 64.
    std::uint32_t templates = 8;
    /// Bytes that their images take together.
    std::uint64_t memory = std::uint64_t{1} << 30;
    /// As of a TemplateDefinition.
    std::chrono::milliseconds idle_timeout = std::chrono::hours(1);

    bool operator==(const AutomaticLimits&) const = default;
};

/// The daemon itself.
struct DaemonDefinition {
    /// Names or numbers of users that may use a service account's daemon beside the account itself,
    /// each for the fixed command lines of templates. Looked up while loading. For the daemon of a
    /// user it is without effect.
    std::vector<uid_t> allowed_users;
    /// The daemon exits when nobody has needed it for so long. 0 or "infinity": never, which is
    /// stored as 0.
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
    std::string template_name;  ///< that is not defined because of it; empty: none

    bool operator==(const ConfigurationError&) const = default;
};

/// "FILE:LINE:COLUMN: text".
[[nodiscard]] std::string to_string(const ConfigurationError& error);

}  // namespace warmfork::service
