// One served template: its channel, its children, and the loop over both. Made by `serve`.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "channel/segment.hpp"
#include "keeper/end_processes.hpp"
#include "protocol/messages.hpp"
#include "template/atfork.hpp"
#include "template/clone.hpp"
#include "template/freshness.hpp"
#include "template/gate.hpp"
#include "template/handler_timer.hpp"
#include "template/outbox.hpp"
#include "template/report.hpp"
#include "template/serve.hpp"
#include "template/spare_policy.hpp"

namespace warmfork {

/// What the owner's hello brought.
struct Connection {
    Descriptor control;
    Segment segment;
    Descriptor command_bell;
    Descriptor completion_bell;
    Descriptor owner_pidfd;
    Descriptor inotify;
    OwnerHello hello{};
    std::string keeper_program;
    std::vector<std::string> allowed;
};

class TemplateServer;

/// The end of the owner raises SIGKILL for this process from now on, however it comes, whatever
/// this process does meanwhile; so does every message on the socket. For as long as there are no
/// children that end with their owner in good order.
void end_with_owner_by_signal(int control);

/// What a template that did not begin as a program was forked from.
struct Origin {
    const TemplateServer* base = nullptr;  ///< null: it was started as a program
    bool is_extended = false;  ///< it has preloaded on top of that image; false: it is a twin
};

class TemplateServer {
  public:
    TemplateServer(Connection connection, const PreloadInterface& preload, Host& host,
                   const Origin& origin);

    /// What has to be right before the first fork; tells the owner ready or refused. Returns what
    /// is in the way, or an empty text.
    [[nodiscard]] std::string open_gate();

    /// The loop. Returns the command in each child, and nothing in the template at the end. In a
    /// child this object must not be destroyed: the descriptors that it owns are closed already,
    /// and their numbers may be the child's by then.
    [[nodiscard]] std::optional<ChildCommand> run();

    /// A spare that takes longer to park is told of.
    static constexpr std::chrono::seconds kSparePatience{5};

  private:
    enum class State {
        parked,
        given_up,  ///< a surplus spare that was told to end
        running,
    };
    struct Child {
        std::uint64_t id;
        int pid;
        Descriptor pidfd;
        State state;
        Lifetime lifetime;
        SparePolicy::Time born{};
        Descriptor token{};  ///< of a spare
        bool ended = false;
        bool is_expected = false;  ///< a spare that is yet to say that it has parked
    };
    struct ForkFailure {
        Stage stage;
        int error_number;
        std::string text;
    };

    // Each of these returns a command if this process is a child now.
    std::optional<ChildCommand> take_commands();
    std::optional<ChildCommand> spawn(const FrameHeader& frame);
    std::optional<ChildCommand> refill();
    std::atomic<std::int32_t>& show_newborn(std::uint64_t id, std::uint64_t spawn_id);
    std::optional<ChildCommand> give_birth(State state, std::uint64_t spawn_id, Lifetime lifetime,
                                           Descriptor mailbox, ForkFailure& ret_failure);
    std::optional<ChildCommand> serve_as_twin(Descriptor control);

    int make_spare_mailbox(Descriptor& ret_child_end);

    void describe_image();
    bool is_fresh(bool is_asked = true);
    std::vector<int> own_descriptors() const;
    std::string receive_descriptors(const FrameHeader& frame,
                                    std::vector<Descriptor>& ret_descriptors);
    std::string receive_spawn(const FrameHeader& frame, std::uint32_t count,
                              RecordView& ret_record);
    void forget_record();
    void refuse(const FrameHeader& frame, const ForkFailure& failure);
    void hand_off(const FrameHeader& frame);
    void set_range(const FrameHeader& frame);
    void report(const FrameHeader& frame);

    std::uint32_t parked() const;
    [[nodiscard]] std::vector<SpareFact> spare_facts() const;
    void look_at_expected_spares();
    bool refill_is_due() const;
    void wait();
    int sleep_milliseconds() const;
    void bury_ended_children();
    bool give_up(Child& child);
    void give_up_surplus();

    unsigned long owner_stack() const;
    void note_channel_end();
    void note_last_hand_offs();
    void end_spares();
    std::vector<Ward> running_wards();
    void end_with_owner();
    void leave_children_to_keeper();

    Connection connection_;
    RingReader commands_;
    Outbox outbox_;
    const PreloadInterface& preload_;
    Host& host_;
    const Origin origin_;
    CloneContext clone_;
    ForkCheck check_;
    HandlerTimer handler_timer_;
    SparePolicy policy_;
    ImageFacts facts_;
    Freshness freshness_;
    bool said_stale_ = false;
    ChildPlan plan_;
    std::vector<Child> children_;
    std::uint64_t last_child_id_ = 0;
    int child_mailbox_ = -1;         ///< the child's end, while the child is being made
    double fork_microseconds_ = 0;   ///< of the last clone
    bool socket_is_full_ = false;    ///< no mailbox can be sent now
    unsigned long owner_stack_ = 0;  ///< where its stack begins: another place after exec
    bool shut_down_ = false;
    bool owner_is_gone_ = false;

    // Of the spawn command in progress. Members, so that a child never destroys them.
    std::vector<std::byte> payload_;     ///< never grows, which would leave a record behind
    std::span<std::byte> large_record_;  ///< mapped for it; empty: it lies in `payload_`
    std::vector<Descriptor> spawn_descriptors_;
    std::vector<Descriptor> spawn_mailboxes_;
};

/// What `serve` does, by a control socket. `preload`: of the library that is loaded into this
/// process.
[[nodiscard]] ServeResult serve_channel(Descriptor control, const PreloadInterface& preload,
                                        Host& host, const Origin& origin);

}  // namespace warmfork
