// Templates that nobody has written, for commands that are seen again. Each begins as an
// interpreter that has preloaded nothing, learns from its first run what that imports, and preloads
// it.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "owner/pointers.hpp"
#include "service/automatic_file.hpp"
#include "service/learned.hpp"
#include "service/log.hpp"
#include "service/service.hpp"

namespace warmfork::service {
namespace {

// What is known is written this long after it has changed.
constexpr std::chrono::seconds kSavePeriod{1};
// Where something is learned an image is not waited for: its preload may take as long as the
// command itself, which is cold meanwhile.
constexpr std::uint32_t kAllCold = 1u << 20;
// After so many runs there is something to be learned again: what only most of them import.
constexpr std::uint64_t kLessons[] = {1, 8, 64};
// What is said of a command that is cold for it.
constexpr std::string_view kIsEmpty =
    "imports nothing that could be preloaded; it gets a template when it is called more often";
// How many names of variables are kept that images of one command have read.
constexpr std::size_t kMostVariables = 1024;

AutomaticTemplates::Seconds now() {
    using namespace std::chrono;
    return duration_cast<seconds>(system_clock::now().time_since_epoch()).count();
}

/// Returns a stamp, which is another one when the file was written or replaced.
std::string stamp_of(const std::string& file) {
    struct stat status;
    if (::stat(file.c_str(), &status) < 0) return "none";
    return fmt::format("{} {} {}.{:09}", status.st_ino, status.st_size, status.st_mtim.tv_sec,
                       status.st_mtim.tv_nsec);
}

TemplateDefinition definition_of(const AutomaticTemplate& automatic, const std::string& name,
                                 const AutomaticLimits& limits) {
    TemplateDefinition definition;
    definition.name = name;
    definition.python = automatic.command.interpreter;
    definition.options = automatic.command.options;
    definition.learn = true;
    definition.idle_timeout = limits.idle_timeout;
    return definition;
}

/// Can something be written where children's imports are? Returns why it cannot, or an empty text.
std::string try_to_learn() {
    const std::string file = learned_folder() + "/probe";
    std::string why = replace_own_file(file, "x");
    if (why.empty()) ::unlink(file.c_str());
    return why;
}

/// Why it is cold, or preloads nothing; empty: it is not, and does.
std::string reason_of(const AutomaticTemplate& automatic) {
    if (!automatic.refusal.empty()) return automatic.refusal;
    if (!AutomaticTemplates::is_worth_it(automatic)) return std::string(kIsEmpty);
    return automatic.obstacle;
}

}  // namespace

void Service::load_automatic() {
    const std::string file = automatic_file(options_.instances.front());
    std::string text;
    if (file.empty()) return;
    if (const std::string why = read_automatic_file(file, text); !why.empty())
        log(LOG_WARNING, {},
            fmt::format("cannot read which commands were seen before, in {}: {}", file, why));
    automatic_.read(text);
}

void Service::save_automatic_soon() {
    if (!saving_automatic_)
        saving_automatic_ = loop_.after(kSavePeriod, [this] { save_automatic(); });
}

void Service::save_automatic() {
    saving_automatic_.reset();
    const std::string file = automatic_file(options_.instances.front());
    if (file.empty()) return;
    const auto why = std::make_shared<std::string>();
    background_.add(
        [file, why, text = automatic_.write()] { *why = replace_own_file(file, text); },
        [file, why] {
            if (!why->empty())
                log(LOG_WARNING, {},
                    fmt::format("cannot write which commands have been seen, to {}: {}. They are "
                                "known until this service ends",
                                file, *why));
        });
}

AutomaticTemplate* Service::find_automatic(std::string_view name) {
    if (!configuration_.daemon->automatic || configuration_.templates.contains(name))
        return nullptr;
    AutomaticTemplate* const found = automatic_.find(name);
    return found && AutomaticTemplates::is_worth_it(*found) ? found : nullptr;
}

/// Notes a command for which the configuration has no template. Returns the name of its own; where
/// it has none that is empty, and `ret_why` may say why.
std::string Service::see_command(FieldReader& reader, std::string& ret_why) {
    if (!configuration_.daemon->automatic || is_stopping_ || !reader.has_more()) return {};
    const std::optional<LinkedCommand> linked = read_linked_command(reader);
    const std::optional<AutomaticCommand> command =
        linked ? make_automatic_command(*linked) : std::nullopt;
    if (!command) return {};
    std::string name = automatic_.see(*command, now());
    save_automatic_soon();
    const AutomaticTemplate* const known = automatic_.find(name);
    if (!known) {
        ret_why += "; when it is run again it gets one";
        return {};
    }
    if (configuration_.templates.contains(name)) return name;
    if (!known->refusal.empty()) {
        ret_why = fmt::format("{} cannot be preloaded: {}", to_string(*command), known->refusal);
        look_at_refused(name);
        return {};
    }
    if (!AutomaticTemplates::is_worth_it(*known)) {
        ret_why = fmt::format("{} {}", to_string(*command), kIsEmpty);
        return {};
    }
    if (!templates_.contains(name) && known->runs == 0 && !automatic_.admit_new_start(now())) {
        ret_why += "; many others have got one just now";
        return {};
    }
    return name;
}

/// Looks whether what was refused is to be tried again, as its program is another one.
void Service::look_at_refused(const std::string& name) {
    AutomaticTemplate* const automatic = automatic_.find(name);
    if (!automatic || std::exchange(automatic->is_looked_at, true)) return;
    const AutomaticCommand& command = automatic->command;
    const auto stamp = std::make_shared<std::string>();
    background_.add(
        [stamp, file = command.is_module ? command.interpreter : command.operand] {
            *stamp = stamp_of(file);
        },
        [this, name, stamp] {
            AutomaticTemplate* const seen = automatic_.find(name);
            if (!seen) return;
            seen->is_looked_at = false;
            const bool has_changed = !seen->stamp.empty() && seen->stamp != *stamp;
            seen->stamp = *stamp;
            if (has_changed) {
                seen->refusal.clear();
                seen->runs = 0;
            }
            save_automatic_soon();
        });
}

/// Returns the template of a command, started if need be, or null where there is none to be had.
/// `wanted` is from a client that is as free as this service.
Service::ServedTemplate* Service::start_automatic(const LeaseRequest& wanted) {
    const std::string& name = wanted.name;
    AutomaticTemplate* const automatic = find_automatic(name);
    if (!automatic) return nullptr;
    auto found = templates_.find(name);
    if (found == templates_.end()) {
        if (!make_room_for_automatic()) return nullptr;
        std::vector<std::string> environment = wanted.environment;
        ServedTemplate* const added = add_template(
            definition_of(*automatic, name, configuration_.daemon->limits_of_automatic),
            [&](NamedTemplate::Definition& named) {
                // It is the environment of its first client, which then need not wait for a
                // variant, and only as far as it counts, as with a variant.
                named.images.environment = image_environment(variables_of(named.images.environment),
                                                             mutable_pointers_to(environment),
                                                             {automatic->variables, false}, true);
                named.images.most_cold_at_first = automatic->runs > 0 ? kAllCold : 0;
            });
        if (!added) return nullptr;
        added->is_automatic = true;
        added->wants_to_learn = automatic->runs == 0;
        found = templates_.find(name);
        log(LOG_INFO, {name}, "a template for " + to_string(automatic->command));
    }
    found->second.last_wanted = wanted;
    return &found->second;
}

/// Ends the least recently used one that nobody waits for. Returns false where there is none.
bool Service::end_oldest_automatic(std::string_view why) {
    auto oldest = templates_.end();
    for (auto place = templates_.begin(); place != templates_.end(); ++place) {
        ServedTemplate& served = place->second;
        if (!served.is_automatic || served.named.has_asks()) continue;
        if (oldest == templates_.end() ||
            served.named.last_used() < oldest->second.named.last_used())
            oldest = place;
    }
    if (oldest == templates_.end()) return false;
    log(LOG_INFO, {oldest->first}, fmt::format("this template ends: {}", why));
    templates_.erase(oldest);
    return true;
}

/// Makes room. Returns false where all that there may be are being waited for.
bool Service::make_room_for_automatic() {
    const std::uint32_t most = configuration_.daemon->limits_of_automatic.templates;
    const auto is_automatic = [](const auto& entry) { return entry.second.is_automatic; };
    while (std::ranges::count_if(templates_, is_automatic) >= most)
        if (!end_oldest_automatic("another command needs its place")) return false;
    return true;
}

void Service::limit_automatic_memory() {
    const std::uint64_t most_kb = configuration_.daemon->limits_of_automatic.memory >> 10;
    const auto total_kb = [this] {
        std::uint64_t total = 0;
        for (const auto& [name, served] : templates_)
            if (served.is_automatic) total += served.memory_kb;
        return total;
    };
    while (total_kb() > most_kb)
        if (!end_oldest_automatic("automatic templates take more memory than they may")) return;
}

/// Notes that one of its processes is ready, or never will be. Returns true where the template has
/// been given up.
bool Service::note_automatic_start(ServedTemplate& served, const NamedTemplate::Process& process,
                                   const Outcome& failure) {
    const std::string name = served.named.definition().name;
    AutomaticTemplate* const automatic = automatic_.find(name);
    if (!automatic) return false;
    if (!failure) {
        for (const std::string& variable : process->variables().names)
            if (automatic->variables.size() < kMostVariables) automatic->variables.insert(variable);
        save_automatic_soon();
        // The new image may read what is different for this client: then there is a variant before
        // it comes again.
        if (served.prepares)
            served.named.add({NamedTemplate::kNoClient, ++last_foundation_,
                              *std::exchange(served.prepares, {})});
        return false;
    }
    // An odd environment is not the program's fault.
    const NamedTemplate::Process first = served.named.first();
    const bool is_variant =
        first && first->at_start().environment != process->at_start().environment;
    if (failure->stage != Stage::gate || is_variant) return false;
    log(LOG_NOTICE, {name, 0, 0, "gate"},
        fmt::format("{} is cold from now on: {}", to_string(automatic->command), failure->text));
    automatic->refusal = failure->text;
    automatic->stamp.clear();
    look_at_refused(name);
    refuse_asks(served, {static_cast<std::uint64_t>(Stage::gate),
                         static_cast<std::uint64_t>(failure->error_number), WARMFORK_REASON_GATE,
                         failure->text});
    templates_.erase(name);
    return true;
}

/// Lists those that a client can ask for, and those that were refused.
nlohmann::json Service::list_automatic() {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [name, known] : automatic_.all()) {
        if (!automatic_.find(name) || configuration_.templates.contains(name)) continue;
        const auto found = templates_.find(name);
        const bool is_worth_it = AutomaticTemplates::is_worth_it(known);
        const NamedTemplate::Process first =
            found == templates_.end() ? nullptr : found->second.named.first();
        nlohmann::json entry{{"name", name},
                             {"command", to_string(known.command)},
                             {"python", known.command.interpreter},
                             {"options", known.command.options},
                             {"state", is_worth_it ? "idle" : "cold"},
                             {"parked", 0},
                             {"age_seconds", nullptr},
                             {"memory_kb", nullptr},
                             {"calls", known.sightings},
                             {"last_use", known.last_sight},
                             {"reason", reason_of(known)}};
        if (first) {
            ServedTemplate& served = found->second;
            const std::chrono::duration<double> age =
                WaitClock::now() - first->at_start().started_at;
            entry["state"] = name_of(served);
            entry["parked"] = served.named.parked();
            entry["age_seconds"] = age.count();
            if (served.memory_kb) entry["memory_kb"] = served.memory_kb;
        }
        list.push_back(std::move(entry));
    }
    return list;
}

/// Notes that a child has ended, and has told what it imported.
void Service::note_run(const std::string& name) {
    const auto found = templates_.find(name);
    AutomaticTemplate* const automatic = find_automatic(name);
    if (found == templates_.end() || !found->second.is_automatic || !automatic) return;
    ServedTemplate& served = found->second;
    ++automatic->runs;
    ++served.runs;
    save_automatic_soon();
    const bool is_due =
        served.wants_to_learn || std::ranges::find(kLessons, automatic->runs) != std::end(kLessons);
    if (!is_due) return;
    if (automatic->runs == 1 || !automatic->obstacle.empty()) return look_at_first_run(name);
    make_learned_image(served);
}

/// Makes a new image, which preloads what was learned.
void Service::make_learned_image(ServedTemplate& served) {
    served.wants_to_learn = !served.named.learn();
    if (served.wants_to_learn) return;
    served.prepares = served.last_wanted;
    served.prepares->flags |= kLeaseMayWait;
    served.prepares->count = 1;
    attend_soon(served.named.definition().name);
}

/// Where there is nothing to be learned its place is for others; where nothing can be, the next run
/// is looked at again.
void Service::look_at_first_run(const std::string& name) {
    struct Look {
        Reports reports = Reports::none;
        std::string obstacle;
    };
    const auto look = std::make_shared<Look>();
    background_.add(
        [look, name] {
            const auto images = read_learned(learned_folder());
            const auto image = images.find(name);
            if (image != images.end()) look->reports = reports_of(image->second);
            if (look->reports == Reports::none) look->obstacle = try_to_learn();
        },
        [this, look, name] {
            const auto found = templates_.find(name);
            AutomaticTemplate* const automatic = find_automatic(name);
            if (found == templates_.end() || !found->second.is_automatic || !automatic) return;
            ServedTemplate& served = found->second;
            automatic->obstacle.clear();
            if (!look->obstacle.empty()) {
                automatic->obstacle = fmt::format("what it imports cannot be remembered in {}: {}",
                                                  learned_folder(), look->obstacle);
                served.wants_to_learn = true;
                return;
            }
            if (look->reports != Reports::empty) return make_learned_image(served);
            automatic->is_empty = true;
            save_automatic_soon();
            if (AutomaticTemplates::is_worth_it(*automatic) || served.named.has_asks()) return;
            log(LOG_INFO, {name},
                fmt::format("this template ends: {} {}", to_string(automatic->command), kIsEmpty));
            templates_.erase(found);
        });
}

}  // namespace warmfork::service
