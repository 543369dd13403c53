// The service: clients on the one side, templates on the other, children in between, which are this
// process's own. It has one thread and one loop, and nothing here waits.
#pragma once

#include <deque>
#include <list>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <unordered_map>

#include "owner/born.hpp"
#include "owner/child_record.hpp"
#include "protocol/handover.hpp"
#include "service/automatic.hpp"
#include "service/background_calls.hpp"
#include "service/board.hpp"
#include "service/cgroups.hpp"
#include "service/client.hpp"
#include "service/configuration.hpp"
#include "service/confinement.hpp"
#include "service/disposal.hpp"
#include "service/event_loop.hpp"
#include "service/listener.hpp"
#include "service/named_template.hpp"

namespace warmfork::service {

class Service {
  public:
    struct Options {
        std::vector<std::string> directories;  ///< of the configuration, the most specific last
        std::optional<std::chrono::milliseconds> idle_exit;  ///< instead of the configuration's
        bool has_delegated_cgroup = false;   ///< its own: cgroups for clients are made below it
        std::vector<std::string> instances;  ///< of the board: see Board::create_one_of
        std::string program;                 ///< full path of this program, to be exec'd again
        std::vector<std::string> command;    ///< its arguments, the name in front
    };

    Service(EventLoop& loop, Listener listener, Options options);
    ~Service();
    Service(const Service&) = delete;
    Service& operator=(const Service&) = delete;

    /// Begins to serve. `left` is what the process left that this one was before it exec'd itself,
    /// the listener among it; it is empty where there was none.
    void start(std::span<const std::byte> left);

    /// Takes nothing new, waits for the children to end, ends those that do not, leaves the loop.
    /// When it is called a second time it does not wait for them.
    void stop();
    /// Execs this program again, which reads the configuration anew: the same process, so the
    /// children stay its own; clients, leases and statuses go on. Returns only if that failed.
    void reload();

  private:
    struct ServedClient {
        ServedClient(std::uint64_t id, Descriptor socket, Peer peer)
            : client(id, std::move(socket), std::move(peer)) {}
        Client client;
        NamedTemplate::Clock::time_point connected = NamedTemplate::Clock::now();
        ClientEntry entry;
        EventSource readable, gone, greeting;
    };
    struct WatchedProcess {
        NamedTemplate::Process process;
        EventSource bell, end;
        NamedTemplate::Clock::time_point began;
        bool is_ready = false;
    };
    /// What a layer wants of its base, until it has it.
    struct FoundationAsk {
        std::uint64_t id;
        std::vector<std::string> options, environment;
        bool is_answered = false;
        ImageSet::Foundation foundation = {};
        Refusal refusal = {};  ///< where it has no spare
    };
    struct ServedTemplate {
        explicit ServedTemplate(NamedTemplate::Definition definition, ClientLimits of_clients)
            : named(std::move(definition)), limits(of_clients) {}
        NamedTemplate named;
        TemplateEntry entry;
        ClientLimits limits;
        std::chrono::milliseconds idle_timeout{0};
        std::uint64_t memory_kb = 0;           ///< of its processes, when last looked at
        bool is_automatic = false;             ///< see automatic.hpp
        bool wants_to_learn = false;           ///< when the next run has ended
        std::uint64_t runs = 0;                ///< that have ended
        std::optional<LeaseRequest> prepares;  ///< of an automatic one: for when its image is ready
        LeaseRequest last_wanted;              ///< likewise: by its last client
        std::list<FoundationAsk> foundation_asks;                   ///< of a layer
        std::unordered_map<std::uint64_t, WatchedProcess> watched;  ///< by serial
        EventSource due, retry, idle;
    };
    struct ServedChild {
        pid_t pid = 0;
        Descriptor pidfd;
        std::uint64_t client = 0;
        uid_t user = 0;  ///< of the client
        bool is_detached = false;
        bool is_used = false;  ///< it has its record, as its client says
        std::string template_name;
        Descriptor reply;     ///< of a fixed command that is starting: where it says so
        OwnedSocket mailbox;  ///< likewise; it may have yet to say that it is parked
        std::uint64_t request = 0;
        NamedTemplate::Clock::time_point starting = NamedTemplate::Clock::now();  ///< since when
        EventSource ended, started, start_due;
    };
    /// The children of a client that has gone have been told to end.
    struct Killing {
        NamedTemplate::Clock::time_point since;
        EventSource due;
    };
    /// Since when the service before this one has waited, by client and request: see HandedWait.
    using Beginnings =
        std::map<std::pair<std::uint64_t, std::uint64_t>, NamedTemplate::Clock::time_point>;
    /// A fixed command, until its child is where it is to live.
    struct FixedCommand {
        ChildRecord record;
        ForeignDescriptors descriptors;  ///< that the record names
        Born spare;
        Descriptor reply, written;  ///< the ends of the pipe in which the child says that it runs
    };

    // Clients.
    void accept_clients();
    void add_client(std::uint64_t id, Descriptor socket, Peer peer);
    void watch_client(ServedClient& served);
    void on_client(std::uint64_t id, std::uint32_t events);
    void take(ServedClient& served, int error, ServiceMessage& message);
    void dispatch(ServedClient& served, ServiceMessage& message);
    void welcome(Client& client);
    void refuse(Client& client, std::uint64_t request, Stage stage, int error_number,
                std::string text);
    void lose_client(std::uint64_t id, std::string_view why);
    [[nodiscard]] std::shared_ptr<Disposal> disposal_of(uid_t user);
    [[nodiscard]] bool dispose_of(uid_t user, std::vector<Descriptor> descriptors);
    void turn_away(Descriptor socket, int error_number, std::string text);
    void pause_accepting(std::chrono::milliseconds time);
    void update_interest(ServedClient& served);

    // What they ask for.
    void find(Client& client, const ServiceMessage& message);
    void lease(Client& client, const ServiceMessage& message);
    void run(Client& client, ServiceMessage& message);
    void signal_child(Client& client, const ServiceMessage& message);
    void note_use(Client& client, const ServiceMessage& message);
    [[nodiscard]] std::string explain_absence(const std::string& name);
    void manage(Client& client, const ServiceMessage& message);
    [[nodiscard]] nlohmann::json list_templates();
    [[nodiscard]] bool admit_request(Client& client, const ServedTemplate& served,
                                     std::uint64_t request, std::uint64_t count, std::size_t size);
    void count_asked(Client& client, std::uint64_t children, std::uint64_t bytes);
    void count_answered(Client& client, std::uint64_t children, std::uint64_t bytes);
    void count_child(const ServedChild& child, int change);
    [[nodiscard]] bool may_connect(uid_t user) const;
    [[nodiscard]] bool may_lease(const Client& client) const;
    [[nodiscard]] bool check_confinement(Client& client, const ServiceMessage& message,
                                         std::string_view sight);

    // Templates.
    ServedTemplate* find_template(const std::string& name);
    ServedTemplate* add_template(const TemplateDefinition& definition,
                                 const std::function<void(NamedTemplate::Definition&)>& complete);
    [[nodiscard]] const std::string* find_template_for(const std::string& command) const;
    void attend(const std::string& name);
    void attend_soon(const std::string& name);
    void retry(const std::string& name);
    void refuse_asks(ServedTemplate& served, const Refusal& refusal);
    void on_process(const std::string& name, std::uint64_t serial);
    void note_idle_template(const std::string& name);
    void deliver(ServedTemplate& served, NamedTemplate::Answer& answer);
    void start_fixed_command(ServedTemplate& served, Client& client, NamedTemplate::Answer& answer,
                             std::uint64_t id);
    void hand_over_command(std::uint64_t client, std::uint64_t request, std::uint64_t child,
                           FixedCommand& command);
    void send_lease(std::uint64_t client, std::uint64_t request, std::uint64_t child,
                    std::uint64_t image, int mailbox);
    void show_image(Client& client, TemplateProcess& process);
    void watch_processes(ServedTemplate& served);
    [[nodiscard]] TemplateState state_of(ServedTemplate& served);

    // Automatic templates.
    [[nodiscard]] std::string see_command(FieldReader& reader, std::string& ret_why);
    [[nodiscard]] AutomaticTemplate* find_automatic(std::string_view name);
    [[nodiscard]] ServedTemplate* start_automatic(const LeaseRequest& wanted);
    [[nodiscard]] bool make_room_for_automatic();
    [[nodiscard]] bool end_oldest_automatic(std::string_view why);
    void limit_automatic_memory();
    [[nodiscard]] bool note_automatic_start(ServedTemplate& served,
                                            const NamedTemplate::Process& process,
                                            const Outcome& failure);
    void note_run(const std::string& name);
    void look_at_first_run(const std::string& name);
    void make_learned_image(ServedTemplate& served);
    void look_at_refused(const std::string& name);
    [[nodiscard]] nlohmann::json list_automatic();
    void load_automatic();
    void save_automatic();
    void save_automatic_soon();

    // Layers.
    [[nodiscard]] Outcome take_foundation(const std::string& layer, const Selection& selection,
                                          ImageSet::Foundation& ret_foundation,
                                          ColdReason& ret_cold);
    void lay_foundation(NamedTemplate::Answer& answer);
    [[nodiscard]] std::vector<std::string> layers_on(const std::string& base) const;
    [[nodiscard]] ServedTemplate* renew_template(const std::string& name);
    [[nodiscard]] std::string name_of(ServedTemplate& served);

    // Children.
    std::uint64_t add_child(ServedChild child);
    void watch_child(std::uint64_t id);
    void on_child_ended(std::uint64_t id);
    void on_child_started(std::uint64_t id);
    void watch_start(std::uint64_t id);
    void end_children(std::uint64_t client, int signal);
    void kill_children_in_time(std::uint64_t client, NamedTemplate::Clock::time_point since);
    void give_to_keeper(std::uint64_t id);
    void tell_keeper();
    void renew_keeper();
    void watch_keeper();
    void lose_keeper();

    // Cgroups.
    struct Survivor {
        Descriptor pidfd;
        EventSource gone;
    };
    void adopt_cgroup();
    void take_over_cgroups();
    [[nodiscard]] const CgroupLimits* limits_of(const std::string& template_name) const;
    [[nodiscard]] Cgroups::Owner cgroup_owner(const ServedChild& child) const;
    void place(std::uint64_t child, std::function<void()> then = {});
    void clear_cgroups(const Cgroups::Owner& owner, bool may_kill);
    [[nodiscard]] bool is_at_work(const ServedChild& child) const;
    void let_live_what_is_left(const Client& client, const Cgroups::Owner& owner);
    void kill_cgroups();

    // The service itself.
    void load_configuration();
    void note_idleness();
    void say_status();
    void publish();
    void publish_soon();
    void measure();
    void leave_when_empty();
    void exec_again();
    [[nodiscard]] std::vector<std::byte> hand_over(std::vector<int>& ret_descriptors);
    void take_over(std::span<const std::byte> left);
    void take_clients(std::vector<HandedClient>& clients, const Beginnings& beginnings);
    void take_children(std::vector<HandedChild>& children, const Beginnings& beginnings);
    void take_asks(const std::vector<HandedTemplate>& templates, const Beginnings& beginnings);
    void watch_taken_over();
    void part_with_orphans(const Beginnings& beginnings);
    [[nodiscard]] std::uint64_t image_id(const TemplateProcess& process) const {
        return generation_ << 32 | process.serial();
    }

    EventLoop& loop_;
    Listener listener_;
    Options options_;
    Configuration configuration_;
    Board board_;  // outlives its entries
    EventSource publishing_, measuring_;
    Sight sight_;
    EventSource renewing_sight_;
    EventSource connections_, reconnect_, reloading_, idle_, drain_, end_, keeper_room_, status_;
    Descriptor keeper_;
    EventSource keeper_watch_;
    bool lacks_keeper_ = false;         ///< and it was said
    std::deque<std::uint64_t> untold_;  ///< children that the keeper is yet to be told of
    std::map<uid_t, std::shared_ptr<Disposal>> disposals_;
    std::map<std::uint64_t, ServedClient> clients_;
    std::map<uid_t, Usage> users_;  ///< of their clients, also those that have gone
    Usage all_;
    std::map<std::string, ServedTemplate, std::less<>> templates_;
    std::map<std::string, std::string>
        unusable_;  ///< why there is no template, when last looked for
    std::map<std::uint64_t, ServedChild> children_;
    std::map<std::uint64_t, Killing> killings_;                      ///< by client that has gone
    std::map<std::string, std::list<NamedTemplate::Ask>> unserved_;  ///< while it execs itself
    AutomaticTemplates automatic_;
    EventSource saving_automatic_;
    Cgroups cgroups_;
    std::map<Cgroups::Owner, Survivor> survivors_;     ///< clients of a service that was killed
    std::map<Cgroups::Owner, EventSource> clearings_;  ///< of clients that have gone
    std::uint64_t last_client_ = 0, last_child_ = 0, last_foundation_ = 0;
    std::uint64_t generation_ = 1;  ///< how often this process has been exec'd
    bool is_stopping_ = false;
    bool is_reading_ = true;      ///< false: a file of the configuration has an error
    BackgroundCalls background_;  ///< the last: what it calls uses the others
};

}  // namespace warmfork::service
