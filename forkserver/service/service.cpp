// The service as a whole: how it begins, what it is configured with, how it ends.
#include "service/service.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "channel/process_identity.hpp"
#include "owner/companions.hpp"
#include "owner/eligibility.hpp"
#include "owner/pointers.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"
#include "service/process_memory.hpp"

namespace warmfork::service {
namespace {

// How long a service that was told to stop waits for its children before it ends them.
constexpr std::chrono::seconds kDrainPeriod{10};
constexpr std::chrono::milliseconds kGracePeriodOfChildren{3000};
// The board is brought up to date this soon after a change.
constexpr std::chrono::milliseconds kPublishPeriod{200};

// Memory and processor time are looked at this long after a change.
constexpr std::chrono::seconds kMeasurePeriod{1};

// These are meant for this service itself, and for no template.
constexpr std::string_view kOwnVariables[] = {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC",
                                              "LISTEN_PID",    "LISTEN_FDS",   "LISTEN_FDNAMES"};

std::string_view last_line_of(std::string_view text) {
    while (text.ends_with('\n')) text.remove_suffix(1);
    return text.substr(text.rfind('\n') + 1);
}
// The status line changes at most once in this time.
constexpr std::chrono::milliseconds kStatusPeriod{500};

/// Returns the daemon's environment with what the template says of it.
std::vector<std::string> environment_of(const TemplateDefinition& definition) {
    std::vector<std::string> environment;
    for (char** variable = environ; definition.inherit_environment && variable && *variable;
         ++variable) {
        const std::string_view text(*variable), name = text.substr(0, text.find('='));
        const bool is_own = std::find(std::begin(kOwnVariables), std::end(kOwnVariables), name) !=
                            std::end(kOwnVariables);
        if (!is_own && !definition.environment.count(std::string(name)))
            environment.emplace_back(text);
    }
    for (const auto& [name, value] : definition.environment)
        if (value) environment.push_back(name + "=" + *value);
    return environment;
}

/// Makes what the shim starts for a definition of the configuration. `ret_error` says why that
/// cannot be.
NamedTemplate::Definition make_definition(const TemplateDefinition& configured,
                                          std::string& ret_error) {
    NamedTemplate::Definition definition;
    definition.name = configured.name;
    definition.base = configured.extends;
    definition.on_stale = configured.on_stale;
    definition.command = configured.command;
    ImageSet::Definition& images = definition.images;
    images.environment = environment_of(configured);
    images.is_python = configured.is_python();
    const std::string program = images.is_python ? configured.python : configured.program.front();
    images.program = resolve_program(program, mutable_pointers_to(*images.environment));
    if (images.program.empty()) ret_error = fmt::format("cannot find its program {}", program);
    if (images.is_python) {
        images.package = find_python_path();
        if (images.package.empty()) ret_error = "cannot find the Python package of warmfork";
        if (!configured.directory.empty()) images.python_path = {configured.directory};
        images.preload = configured.preload;
        images.options = configured.options;
        images.before_fork = configured.before_fork;
        images.in_child = configured.in_child;
        images.learns = configured.learn;
        images.name = configured.name;
    } else {
        images.arguments.assign(configured.program.begin() + 1, configured.program.end());
    }
    images.directory = configured.directory.empty() ? "/" : configured.directory;
    images.spares_least = configured.spares.least;
    images.spares_most = configured.spares.most;
    images.variants_most = configured.variants;
    images.allowed = configured.allow;
    images.is_shared = true;
    return definition;
}

}  // namespace

Service::Service(EventLoop& loop, Listener listener, Options options)
    : loop_(loop),
      listener_(std::move(listener)),
      options_(std::move(options)),
      background_(loop) {}

Service::~Service() = default;

void Service::start(std::span<const std::byte> left) {
    load_configuration();
    load_automatic();
    // The board comes before what is to be shown on it.
    if (int error = Board::create_one_of(options_.instances, board_))
        log(LOG_WARNING, {}, fmt::format("there is no statistics board: {}", std::strerror(error)));
    adopt_cgroup();
    if (!left.empty()) take_over(left);
    board_.set_socket(path_of(listener_));
    take_over_cgroups();
    if (keeper_)
        watch_keeper();
    else
        renew_keeper();
    tell_keeper();
    if (int error = let_descriptors_through(listener_.socket.get(), false))
        log(LOG_WARNING, {},
            fmt::format("cannot keep strangers from sending descriptors: {}",
                        std::strerror(error)));
    connections_ =
        loop_.watch(listener_.socket.get(), EPOLLIN, [this](std::uint32_t) { accept_clients(); });
    note_idleness();
    say_status();
}

void Service::load_configuration() {
    configuration_ = load(options_.directories);
    is_reading_ = configuration_.errors.empty();
    for (const ConfigurationError& error : configuration_.errors)
        log(LOG_ERR, {error.template_name}, to_string(error));
    if (!configuration_.daemon) configuration_.daemon = DaemonDefinition();
}

Service::ServedTemplate* Service::find_template(const std::string& name) {
    if (const auto found = templates_.find(name); found != templates_.end()) return &found->second;
    const auto configured = configuration_.templates.find(name);
    if (configured == configuration_.templates.end()) return nullptr;
    return add_template(configured->second.definition, [&](NamedTemplate::Definition& named) {
        if (named.base.empty()) return;
        named.images.take_foundation = [this, name](const Selection& selection,
                                                    ImageSet::Foundation& ret_foundation,
                                                    ColdReason& ret_cold) {
            return take_foundation(name, selection, ret_foundation, ret_cold);
        };
    });
}

/// Adds a template. `complete` adds what is not in the definition. Returns null where it cannot be
/// started, which is logged.
Service::ServedTemplate* Service::add_template(
    const TemplateDefinition& definition,
    const std::function<void(NamedTemplate::Definition&)>& complete) {
    const std::string& name = definition.name;
    std::string error;
    NamedTemplate::Definition named = make_definition(definition, error);
    if (!error.empty()) {
        log(LOG_ERR, {name}, error);
        unusable_[name] = std::move(error);
        return nullptr;
    }
    complete(named);
    const auto [place, _] = templates_.try_emplace(
        name, std::move(named), definition.limits.over(configuration_.daemon->limits));
    place->second.idle_timeout = definition.idle_timeout;
    place->second.entry = board_.template_entry(name, definition.extends);
    return &place->second;
}

void Service::note_idleness() {
    const std::chrono::milliseconds idle_exit =
        options_.idle_exit.value_or(configuration_.daemon->idle_exit);
    if (!clients_.empty() || !children_.empty() || is_stopping_ || idle_exit.count() == 0)
        return idle_.reset();
    if (idle_) return;
    idle_ = loop_.after(idle_exit, [this] {
        log(LOG_INFO, {}, "nobody has needed this service for a while: it ends");
        stop();
    });
}

void Service::say_status() {
    if (status_) return;
    status_ = loop_.after(kStatusPeriod, [this] {
        status_.reset();
        const std::string status =
            fmt::format("STATUS={}{} clients, {} children, {} templates",
                        is_reading_ ? "" : "errors in the configuration (see the journal); ",
                        clients_.size(), children_.size(), templates_.size());
        // A manager that has no room, or has gone, hears what is so after the next change: to try
        // again would wake an idle service for ever where nobody reads any more.
        std::ignore = notify_manager(status, std::chrono::milliseconds(0));
    });
}

/// Writes the present state to the board; events are counted when they happen.
void Service::publish() {
    publishing_.reset();
    struct Population {
        std::uint64_t leased = 0, running = 0;
    };
    std::map<std::string_view, Population> of_templates;
    std::map<std::uint64_t, Population> of_clients;
    for (const auto& [id, child] : children_)
        for (Population* population :
             {&of_templates[child.template_name], &of_clients[child.client]})
            ++(child.is_used ? population->running : population->leased);
    for (auto& [name, served] : templates_) {
        const Population& population = of_templates[name];
        if (const Outcome& failure = served.named.failure())
            served.entry.set_failing(
                std::chrono::duration_cast<std::chrono::milliseconds>(served.named.back_off()),
                last_line_of(failure->text));
        else
            served.entry.set_state(state_of(served));
        const NamedTemplate::Process first = served.named.first();
        served.entry.set_images(first ? first->pid() : 0, served.watched.size());
        served.entry.set_population(served.named.parked(), population.leased, population.running);
    }
    for (auto& [id, served] : clients_) {
        const Population& population = of_clients[id];
        served.entry.set_usage(population.running, population.leased, served.client.spawned);
    }
    board_.set_children(children_.size());
}

void Service::publish_soon() {
    if (!publishing_) publishing_ = loop_.after(kPublishPeriod, [this] { publish(); });
    if (!measuring_) measuring_ = loop_.after(kMeasurePeriod, [this] { measure(); });
}

/// Looks at what templates and clients cost, while this process does something else.
void Service::measure() {
    struct Costs {
        std::map<std::string, ProcessMemory> templates;
        std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> clients;
    };
    std::map<std::string, std::vector<pid_t>> processes;
    for (auto& [name, served] : templates_)
        for (const NamedTemplate::Process& process : served.named.processes())
            processes[name].push_back(process->pid());
    std::map<std::uint64_t, Cgroups::Owner> owners;
    if (cgroups_)
        for (const auto& [id, served] : clients_)
            if (served.client.usage.children > 0) owners[id] = {id, served.client.peer().pid};
    const bool goes_on = !owners.empty();
    const auto costs = std::make_shared<Costs>();
    background_.add(
        [costs, processes = std::move(processes), owners = std::move(owners), cgroups = cgroups_] {
            for (const auto& [name, pids] : processes) costs->templates[name] = memory_of(pids);
            for (const auto& [id, owner] : owners)
                costs->clients[id] = {cgroups.memory(owner), cgroups.cpu_time(owner)};
        },
        [this, costs, goes_on] {
            for (auto& [name, served] : templates_)
                if (const auto found = costs->templates.find(name);
                    found != costs->templates.end()) {
                    served.entry.set_memory(found->second.resident_kb,
                                            found->second.proportional_kb);
                    served.memory_kb = found->second.proportional_kb;
                }
            limit_automatic_memory();
            for (auto& [id, served] : clients_)
                if (const auto found = costs->clients.find(id); found != costs->clients.end())
                    served.entry.set_cost(found->second.first, found->second.second);
            // It is repeated, as children grow without any event.
            measuring_ =
                goes_on ? loop_.after(kMeasurePeriod, [this] { measure(); }) : EventSource();
        });
}

void Service::stop() {
    if (std::exchange(is_stopping_, true)) {
        drain_.reset();
        for (auto& [id, child] : children_)
            if (!child.is_detached) signal_pidfd(child.pidfd.get(), SIGKILL);
        return leave_when_empty();
    }
    log(LOG_INFO, {}, fmt::format("stopping: {} children still run", children_.size()));
    // The service's place is free at once: whoever connects finds the next one, and whoever has
    // connected and was not accepted is told to try again.
    connections_.reset();
    reconnect_.reset();
    if (!listener_.path.empty()) ::unlink(listener_.path.c_str());
    listener_ = {};
    // This is said only now: at that word the next one may be started.
    if (!notify_manager("STOPPING=1", kManagerPatience))
        log(LOG_WARNING, {}, "the service's manager was not told that it ends");
    idle_.reset();
    drain_ = loop_.after(kDrainPeriod, [this] {
        log(LOG_WARNING, {},
            fmt::format("{} children did not end by themselves, and are ended", children_.size()));
        for (auto& [id, child] : children_)
            if (!child.is_detached) signal_pidfd(child.pidfd.get(), SIGTERM);
        drain_ = loop_.after(kGracePeriodOfChildren, [this] { stop(); });
    });
    leave_when_empty();
}

void Service::leave_when_empty() {
    if (!is_stopping_ || end_) return;
    for (const auto& [id, child] : children_)
        if (!child.is_detached && is_at_work(child)) return;
    // What clients have leased and not used ends by itself, with the process that it is a child of.
    // This is not done from within whatever found the service empty.
    end_ = loop_.soon([this] {
        for (auto& [id, served] : clients_) {
            const Peer& peer = served.client.peer();
            // It has gone, and the loop has not heard of it yet.
            if (has_ended(peer.pidfd.get())) let_live_what_is_left(served.client, {id, peer.pid});
            served.client.flush();
            served.readable.reset();
            disposal_of(peer.uid)->close(served.client.hang_up());
        }
        clients_.clear();
        templates_.clear();
        if (saving_automatic_) save_automatic();
        kill_cgroups();
        loop_.leave(0);
    });
}

}  // namespace warmfork::service
