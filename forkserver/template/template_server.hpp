// One served template: its channel and its children, and what is to be done for both. It forks
// nothing itself, but says what is to be forked, and is told what came of it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "channel/ring.hpp"
#include "keeper/end_processes.hpp"
#include "template/connection.hpp"
#include "template/decision.hpp"
#include "template/forker.hpp"
#include "template/freshness.hpp"
#include "template/outbox.hpp"
#include "template/report.hpp"
#include "template/spare_policy.hpp"
#include "template/spawn_command.hpp"

namespace warmfork {

class TemplateServer;

/// What a template that did not begin as a program was forked from.
struct Origin {
    const TemplateServer* base = nullptr;  ///< null: it was started as a program
    bool is_extended = false;  ///< it has preloaded on top of that image; false: it is a twin
};

class TemplateServer {
  public:
    TemplateServer(Connection connection, const PreloadInterface& preload, Host& host,
                   const Origin& origin);

    /// Looks at what has to be right before the first fork, and tells the owner ready or refused.
    /// Returns what is in the way, or an empty text.
    [[nodiscard]] std::string open_gate();

    /// Carries out the commands that are there, up to the next fork. Does not block. With `end` the
    /// children have been ended, or left to a keeper.
    [[nodiscard]] Decision decide();
    /// Notes what came of a fork that was decided on. Must be called in the template only.
    void note_fork(ForkResult fork);
    /// Carries out the decision `sleep`: blocks until there is something to do.
    void sleep();

    Forker& forker() { return forker_; }
    /// Returns the descriptors that are not the image's, sorted.
    [[nodiscard]] std::vector<int> own_descriptors() const;
    bool is_twin() const { return origin_.base && !origin_.is_extended; }

    /// A spare that takes longer than this to park is reported.
    static constexpr std::chrono::seconds kSparePatience{5};

  private:
    enum class State {
        parked,
        given_up,  ///< a spare that nobody takes, and that ends
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
    /// A spare that is being forked.
    struct UnbornSpare {
        Descriptor mailbox;  ///< the child's end
        Descriptor token;
    };

    void describe_image();
    bool check_freshness(bool is_asked = true);

    void take_commands();
    void take_command(const FrameHeader& frame);
    void begin_spawn(const FrameHeader& frame);
    void finish_spawn(const ForkFailure& failure);
    void hand_off(const FrameHeader& frame);
    void set_range(const FrameHeader& frame);
    void report(const FrameHeader& frame);

    [[nodiscard]] Decision decide_fork(const ChildPlan& plan, std::uint64_t spawn_id);
    [[nodiscard]] Decision fork_for_command();
    [[nodiscard]] Decision fork_spare();
    [[nodiscard]] Decision end();
    void tell_birth(ForkResult fork);
    Newborn& newborn(std::uint64_t id) const;

    bool prepare_spare();
    int make_spare_mailbox(Descriptor& ret_child_end);
    void note_spare(const ForkFailure& failure);
    std::uint32_t parked() const;
    [[nodiscard]] std::vector<SpareFact> spare_facts() const;
    void look_at_expected_spares();
    bool refill_is_due() const;
    int sleep_milliseconds() const;
    void drop_ended_children();
    bool give_up(Child& child);
    void give_up_surplus();

    unsigned long owner_stack() const;
    void note_channel_end();
    void note_last_hand_offs();
    void end_spares();
    std::vector<GuardedChild> running_children();
    void leave_children_to_keeper();

    Connection connection_;
    RingReader commands_;
    Outbox outbox_;
    const PreloadInterface& preload_;
    Host& host_;
    const Origin origin_;
    ImageFacts facts_;
    Forker forker_;
    SparePolicy policy_;
    Freshness freshness_;
    bool said_stale_ = false;
    std::vector<Child> children_;
    std::uint64_t last_child_id_ = 0;
    bool socket_is_full_ = false;    ///< no mailbox can be sent now
    unsigned long owner_stack_ = 0;  ///< where its stack begins: another place after exec
    bool shut_down_ = false;
    bool owner_is_gone_ = false;

    // These go on from one decision to the next.
    std::vector<std::byte> payload_;     ///< never grows, which would leave a record behind
    std::optional<SpawnCommand> spawn_;  ///< has children yet to be forked
    std::optional<UnbornSpare> spare_;
    bool must_look_ = false;  ///< at what happened while a spare was forked
};

}  // namespace warmfork
