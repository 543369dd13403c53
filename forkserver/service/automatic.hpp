// Commands that have no template of their own in the configuration, and what is known of them:
// those that are asked for again get one that the service makes. This is plain data; nothing is
// started here.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/service_bodies.hpp"

namespace warmfork::service {

/// A Python program, as an interpreter is told to run it.
struct AutomaticCommand {
    std::string interpreter;           ///< full path: that of a virtual environment is another one
    std::vector<std::string> options;  ///< of the interpreter
    bool is_module = false;
    std::string operand;  ///< the module's name, or the script's full path

    bool operator==(const AutomaticCommand&) const = default;
};

/// Returns nothing where a client has sent what cannot be a command, where what runs is not the
/// same each time (-c, standard input, a descriptor), or where only a cold interpreter can run it.
[[nodiscard]] std::optional<AutomaticCommand> make_automatic_command(const LinkedCommand& linked);

/// Returns a name for its template: that of the program, and a hash of all the rest.
[[nodiscard]] std::string name_of(const AutomaticCommand& command);

/// Returns the command as it would be typed.
[[nodiscard]] std::string to_string(const AutomaticCommand& command);

/// What is known of a command.
struct AutomaticTemplate {
    AutomaticCommand command;
    std::uint64_t sightings = 0;  ///< how often it was asked for
    std::uint64_t runs = 0;       ///< that have ended, and told what they had to import
    std::int64_t last_sight = 0;  ///< seconds since 1970
    /// The variables of the environment that its images have read.
    std::set<std::string, std::less<>> variables;
    /// Why it cannot be preloaded, or empty where it can. It holds until `stamp` is another one.
    std::string refusal;
    std::string stamp;  ///< of the program's file when it was refused; empty: not looked at yet
    bool is_looked_at = false;  ///< by a call in the background
    /// Says that its first run imported nothing that the interpreter had not.
    bool is_empty = false;
    /// Why what its runs import could not be written, when last looked; empty: it could. Not kept.
    std::string obstacle;
};

class AutomaticTemplates {
  public:
    using Seconds = std::int64_t;  ///< since 1970

    /// How often it has to be asked for before it gets a template.
    static constexpr std::uint64_t kSightings = 2;
    /// How often where the template would be an interpreter and nothing else. To make that costs
    /// the processors as much as six warm calls save.
    static constexpr std::uint64_t kSightingsOfEmpty = 8;
    /// How many commands are known at the most. Those that were asked for once go first, then the
    /// least recent ones.
    static constexpr std::size_t kMostCommands = 256;

    /// Counts that it was asked for. Returns its name, or an empty one where another command has
    /// that.
    std::string see(const AutomaticCommand& command, Seconds now);
    /// Returns null where there is no such template, or its command has not been asked for more
    /// than once.
    [[nodiscard]] AutomaticTemplate* find(std::string_view name);
    /// Is it worth a template, as far as is known?
    [[nodiscard]] static bool is_worth_it(const AutomaticTemplate& automatic) {
        return automatic.refusal.empty() &&
               (!automatic.is_empty || automatic.sightings >= kSightingsOfEmpty);
    }
    /// Counts one more that is started for the first time. Returns false, and counts none, where
    /// many have been of late: a build that runs each of its scripts twice gains nothing from a
    /// template for each.
    [[nodiscard]] bool admit_new_start(Seconds now);
    /// Forgets it.
    void erase(std::string_view name);
    /// Returns all, by name.
    [[nodiscard]] const std::map<std::string, AutomaticTemplate, std::less<>>& all() const {
        return templates_;
    }

    /// Returns, as JSON, what a later service has to know.
    [[nodiscard]] std::string write() const;
    /// Reads what `write` has returned. What is not as it was written is passed over.
    void read(std::string_view text);

  private:
    void make_room();

    std::map<std::string, AutomaticTemplate, std::less<>> templates_;
    Seconds period_began_ = 0;
    int started_in_period_ = 0;
};

}  // namespace warmfork::service
