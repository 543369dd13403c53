// One running template, as its owner sees it: its channel, its parked children, its end.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "owner/environment.hpp"
#include "owner/failure.hpp"
#include "owner/image_watch.hpp"
#include "owner/kept_descriptor.hpp"
#include "owner/owner_channel.hpp"
#include "owner/running_list.hpp"
#include "owner/shadowing.hpp"
#include "owner/spare_pool.hpp"
#include "owner/template_launch.hpp"
#include "owner/waiting.hpp"

namespace warmfork {

/// Returns what to do where the program that was started is no template.
[[nodiscard]] std::string no_interpreter_hint();

class TemplateProcess {
  public:
    using Clock = WaitClock;
    using Deadline = warmfork::Deadline;

    /// How long a spawn waits for a template that preloads, before it goes without.
    static constexpr std::chrono::seconds kReadyPatience{15};

    /// Takes over what has just been started. It is not ready yet.
    explicit TemplateProcess(LaunchedTemplate launched);
    /// Ends template and spares, and reaps them. Blocks until they have ended.
    ~TemplateProcess();
    TemplateProcess(const TemplateProcess&) = delete;
    TemplateProcess& operator=(const TemplateProcess&) = delete;

    pid_t pid() const { return facts_.process.pid; }
    [[nodiscard]] const LaunchFacts& at_start() const { return facts_; }

    /// Has it ended? It does not wait, and takes one system call.
    [[nodiscard]] bool has_ended() const;
    /// Returns when a spawn that need not come from it ceases to wait for it.
    [[nodiscard]] Clock::time_point ready_by() const { return facts_.started_at + kReadyPatience; }

    /// Returns the time from its start until it was ready, as far as this side has seen. It is
    /// known once it is ready.
    [[nodiscard]] Clock::duration start_took();
    /// Has it ended by a signal? This is known from its end until this object goes.
    [[nodiscard]] bool was_killed() const;

    /// Has it ended, or its channel been lost (closed by somebody, broken)?
    [[nodiscard]] bool is_lost() const;
    /// Waits until it serves. Fails with ETIMEDOUT, or says why it never will.
    [[nodiscard]] Outcome wait_ready(Deadline deadline);
    /// Returns what it is about to preload, "3/12 numpy"; empty where it says nothing, or is done.
    [[nodiscard]] std::string progress();
    [[nodiscard]] Outcome wait_parked(std::uint32_t count, Deadline deadline);

    /// Returns the descriptors that preloading has opened, and every child keeps. They are known
    /// once it is ready.
    [[nodiscard]] std::vector<int> image_descriptors();
    [[nodiscard]] std::uint32_t parked();
    /// Returns what it has read of its environment. That is known once it is ready.
    [[nodiscard]] ReadVariables variables();
    /// Returns the modules in whose place a file beside a script would be imported. They are known
    /// once it is ready, and stay the same from then on.
    [[nodiscard]] const ModuleFiles& shadowable() const { return shadowable_; }
    /// Returns what tells whether it is fresh without asking the template: see ImageWatch.
    [[nodiscard]] ImageWatch& watch() { return watch_; }
    /// Returns what has changed, where it is stale.
    [[nodiscard]] std::string change();

    /// Returns a number that no other template of this process ever has.
    [[nodiscard]] std::uint64_t serial() const { return serial_; }

    // These are for callers that have an event loop and never wait here.

    /// Returns what to watch for input, upon which `attend` is due, or -1 where somebody has closed
    /// it.
    [[nodiscard]] int bell() const { return channel_.completion_bell(); }
    [[nodiscard]] int pidfd() const { return pidfd_.get(); }
    /// Takes in what the template has said, and lets it ring again.
    void attend();
    /// Asks the template to look whether it is fresh. Returns the answer's number, for
    /// `take_look_answer`, or 0 where the ring is full.
    [[nodiscard]] std::uint64_t look();
    /// Takes the answer: was it fresh after the request? Returns nothing where there is none yet.
    [[nodiscard]] std::optional<bool> take_look_answer(std::uint64_t request);
    void cancel_look(std::uint64_t request);
    /// Returns what another process needs to judge the freshness of a shared template as `watch`
    /// does: the segment, read-only, and the inotify instance, or -1.
    [[nodiscard]] std::pair<int, int> shown_files() const {
        return {channel_.ends().shown_segment.get(), channel_.ends().inotify.get()};
    }

    /// Takes the oldest child that has parked, or is about to, and tells the template so. Returns
    /// nothing if there is none. Where one has been late it takes only those that have parked. What
    /// is older than kOldestSpare ends.
    [[nodiscard]] std::optional<Born> take_spare(Lifetime lifetime,
                                                 Clock::time_point now = Clock::now());
    /// Notes that a child has not started in time. Until one that is younger has parked none is
    /// expected to.
    void note_late_child();
    [[nodiscard]] bool is_slow() const;
    /// Rings, after a hand-off, for the template, which slept through `take_spare`, once the last
    /// spare is taken. Before that it wakes up by itself when the child that was handed off ends.
    void wake_to_refill();

    /// Tells the template to fork `count` children with a record, which lies in `memfd` unless that
    /// is -1. `flags` is 0 or kSpawnFromStaleImage. Does not wait for them: each says on its
    /// mailbox that it has started or failed, and one that is never forked has its mailbox closed.
    /// A template that takes no command in time is killed: see `is_stuck`. Fails with EINTR where
    /// the wait for it was interrupted.
    [[nodiscard]] Outcome fork_on_command(std::span<const std::byte> record, int memfd,
                                          std::span<const int> descriptors, std::uint32_t count,
                                          std::int64_t flags, bool nonblocking,
                                          std::uint64_t& ret_id, std::vector<Born>& ret_born);
    /// Returns a number that grows with whatever the template does: a command that it takes, a
    /// child that it has made.
    [[nodiscard]] std::uint64_t signs_of_life();
    /// Returns how many children of a command it has made, as far as it has said.
    [[nodiscard]] std::size_t born_of(std::uint64_t id);
    /// Must be called once for each command, when every mailbox has said something or was closed.
    /// With `explain` it waits until it is known why one was closed without a word, reaps the
    /// children that were born (and are not among `started`), and returns why the others were not,
    /// or nothing where all were. A template that shows no sign of life for as long as the patience
    /// is killed.
    [[nodiscard]] Outcome finish_command(std::uint64_t id, std::uint32_t count, bool explain,
                                         const std::vector<ProcessIdentity>& started,
                                         Clock::duration patience);
    /// Remembers children that are to end with this process, in case the template cannot see to it.
    void remember_children(const std::vector<ProcessIdentity>& children, Lifetime lifetime);

    /// Returns 0 or errno (EAGAIN: the ring is full).
    [[nodiscard]] int set_spares(std::uint32_t least, std::uint32_t most);
    /// Was no number free for the mailbox of the last spare? No other spare comes before
    /// `set_spares`.
    [[nodiscard]] bool lacks_descriptors() const;
    /// Fails with ETIMEDOUT where it does not answer.
    [[nodiscard]] Outcome report(std::string& ret_json);
    /// Kills one that shows no sign of life, and does not wait for its end: see `is_stuck`.
    void end_silent();
    /// Was it killed because it did not answer?
    [[nodiscard]] bool is_stuck() const { return is_stuck_; }

    /// Tells the template to end in good order; children that run are left to a keeper. One that
    /// does not listen, as it preloads or is broken, is killed. Does not wait for its end.
    void shut_down();
    /// Was it told to end, and has it ended, or had its time? Then the destructor will not wait for
    /// it.
    [[nodiscard]] bool is_over() const;

  private:
    enum class State { starting, ready, refused, broken };
    struct Pending {
        Outcome failure;
        std::vector<ProcessIdentity> born;
        std::string report;
        bool is_answered = false;
        bool was_fresh = false;  ///< of a look
    };
    using Lock = OwnerChannel::Lock;

    [[nodiscard]] std::string last_output() const;
    [[nodiscard]] std::string last_lines() const;
    [[nodiscard]] siginfo_t end() const;
    [[nodiscard]] Failure end_failure();

    // These are called with the mutex held.
    void drain();
    void dispatch(const FrameHeader& header);
    void receive_hello();
    void receive_messages();
    void take_strings(const FrameHeader& header);
    [[nodiscard]] ProcessIdentity born_of(const FrameHeader& header) const;
    void add_born(const FrameHeader& header);
    void settle_after_end();
    [[nodiscard]] bool end_template();
    void leave_children_to_keeper();
    [[nodiscard]] std::uint64_t count_signs_of_life();
    [[nodiscard]] int take_command_turn(std::unique_lock<std::timed_mutex>& turn, bool nonblocking);
    void wait_for_room(Lock& lock, Deadline deadline);
    /// Sleeps until `done` or the deadline; of several threads one polls for all. Returns false
    /// where the deadline has passed, the template has ended, or the wait was interrupted, if it
    /// may be.
    bool wait_until(Lock& lock, Deadline deadline, const std::function<bool()>& done,
                    bool may_break_off = true);
    void kill_stuck(Lock& lock);
    void end_unproven();
    void give_up_silent();
    [[nodiscard]] bool put_off_hello();
    [[nodiscard]] Deadline earlier_of_hello(Deadline deadline) const;
    void sleep(Lock& lock, Deadline deadline);
    /// Sleeps, and then asks with no lock held whether to break off. Returns the answer.
    [[nodiscard]] bool sleep_and_ask(Lock& lock, Deadline deadline);

    const std::uint64_t serial_;
    const LaunchFacts facts_;
    KeptDescriptor pidfd_;
    KeptDescriptor log_;  ///< the template's stdout and stderr
    Lifeline lifeline_;   ///< of a template that is not ready yet
    OwnerChannel channel_;
    ImageWatch watch_;
    std::optional<LayerStart> layer_;  ///< of a layer that is not ready yet
    Outcome not_started_;

    std::timed_mutex
        command_turn_;  ///< taken before `mutex_`, by who sends a command with descriptors
    std::atomic<std::thread::id> commander_;  ///< who has that turn
    mutable std::mutex mutex_;
    State state_ = State::starting;
    bool ended_ = false;
    bool is_closing_ = false;  ///< told to end: nothing new is asked of it
    std::atomic<Clock::time_point> patience_ends_{Clock::time_point::max()};  ///< once told to end
    std::string refusal_;
    int refusal_error_ = EPROTO;  ///< of a broken one, or why it was refused
    Deadline hello_by_;           ///< when that has to have proved to be a template; nothing: later
    std::vector<int> image_descriptors_;
    ReadVariables variables_;
    ModuleFiles shadowable_;
    std::string change_;
    SparePool spares_;
    bool lacks_descriptors_ = false;
    Clock::duration start_took_{};
    std::atomic<bool> is_stuck_ = false;
    std::map<std::uint64_t, Pending> pending_;
    std::uint64_t last_born_ = 0;  ///< that was announced
    RunningList<ProcessIdentity> running_children_;
    std::uint64_t last_id_ = 0;
};

}  // namespace warmfork
