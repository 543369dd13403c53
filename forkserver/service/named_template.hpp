// A template by its name: its images, and the clients that wait for a parked child of one. It is
// told when one of its processes has something to say, and never waits.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "owner/images.hpp"
#include "protocol/service_bodies.hpp"
#include "service/disposal.hpp"

namespace warmfork::service {

class NamedTemplate {
  public:
    using Clock = std::chrono::steady_clock;
    using Process = ImageSet::Process;

    struct Definition {
        std::string name;
        std::string base;  ///< that it is a layer on; empty: it is none
        ImageSet::Definition images;
        warmfork_on_stale on_stale = WARMFORK_STALE_COLD;
        std::vector<std::string> command;  ///< fixed, for users that may start nothing else
    };

    /// This stands for the service itself, which asks for a layer that is to begin as that child.
    /// It never gets one from an image that is out of date.
    static constexpr std::uint64_t kNoClient = 0;

    /// A client that wants `wanted.count` children.
    struct Ask {
        std::uint64_t client = 0;
        std::uint64_t request = 0;
        LeaseRequest wanted;
        std::size_t size = 0;  ///< of the request, in bytes, as the client is charged for it
        bool is_run = false;   ///< for the fixed command, with these descriptors
        ForeignDescriptors descriptors = {};

        // How far it is.
        Clock::time_point since = {};     ///< when it was first added; to be left to `add`
        ColdReason why = {};              ///< what an image was last waited for
        std::uint64_t turn = 0;           ///< who has been served less often comes first
        Process process = {};             ///< the image that fitted
        std::uint64_t look = 0;           ///< the template has been asked; 0: it has not
        std::uint64_t mount_changes = 0;  ///< that had been seen then
        bool is_verified = false;         ///< found fresh after this was asked
        int renewals = 0;
        std::uint64_t signs = 0;              ///< of life, that the template had shown ...
        Clock::time_point silent_since = {};  ///< ... when it was last seen to show one
        std::uint64_t question = 0;           ///< the template is to show one; 0: not asked
    };

    /// What became of an ask: a spare, or a refusal. An ask for several comes once for each.
    struct Answer {
        Ask* ask;  ///< where it has been answered for the last time, gone with the next call
        std::optional<Born> spare;
        Process process;
        Refusal refusal;
        bool is_last = true;  ///< of this ask
    };

    explicit NamedTemplate(Definition definition);

    const Definition& definition() const { return definition_; }
    /// Adds an ask, to be served by one of the next calls of `serve`.
    void add(Ask ask);
    /// Forgets what a client has asked.
    void drop(std::uint64_t client);
    bool has_asks() const { return !asks_.empty(); }
    const std::list<Ask>& asks() const { return asks_; }
    /// Takes the asks out. They begin anew wherever they are added, and hold no process.
    [[nodiscard]] std::list<Ask> take_asks();
    /// Where a spare was refused for want of a descriptor its template was told that no more are
    /// wanted: has the next call of `serve` say again how many are. Returns false where none was
    /// refused.
    [[nodiscard]] bool retry_spares();

    /// Serves what can be served now, one child for each client in turn, however many requests it
    /// has. Starts what has to be started.
    [[nodiscard]] std::vector<Answer> serve();
    /// Preloads ahead of need. The failure that it returns is that of the last start.
    [[nodiscard]] Outcome start();
    /// Starts new images for those that are out of date, without anybody having asked. Returns true
    /// where some were.
    bool renew_stale();
    /// Starts new images for all, which have what their children were seen to import; the old ones
    /// serve until then. Returns false where none was started, as that has happened too often.
    [[nodiscard]] bool learn();

    /// Returns all that run; each has a bell to be watched.
    [[nodiscard]] std::vector<Process> processes() { return images_.processes(); }
    [[nodiscard]] Process first() { return images_.first(); }
    [[nodiscard]] std::uint32_t parked() { return images_.parked(); }
    [[nodiscard]] std::uint64_t starts() const { return images_.starts(); }
    /// Returns why it does not start, or nothing where it is not failing. `back_off` is how long
    /// nothing is tried.
    [[nodiscard]] const Outcome& failure() const { return failure_; }
    [[nodiscard]] Clock::duration back_off() const { return back_off_; }
    [[nodiscard]] Clock::time_point last_used() const { return last_used_; }
    /// For so long after the last request more spares than usual are kept; `serve` then has to be
    /// called again.
    static constexpr std::chrono::seconds kCalm{1};
    [[nodiscard]] bool has_more_spares() const { return wanted_spares_ != 0; }

  private:
    enum class Step { waits, granted, refused };

    [[nodiscard]] Step serve_in_time(Ask& ask, Answer& ret_answer);
    [[nodiscard]] bool may_wait(const Ask& ask) const;
    [[nodiscard]] Step try_to_serve(Ask& ask, Answer& ret_answer);
    [[nodiscard]] Step choose(Ask& ask, Answer& ret_answer);
    [[nodiscard]] Step verify(Ask& ask, Answer& ret_answer);
    [[nodiscard]] Step renew(Ask& ask, const std::string& change, Answer& ret_answer);
    [[nodiscard]] Step wait_for_template(Ask& ask, Answer& ret_answer);
    void note_failure(const Failure& failure);
    [[nodiscard]] std::list<Ask>::iterator put_back(std::list<Ask>::iterator ask);
    void want_spares();
    bool serves_stale() const { return definition_.on_stale == WARMFORK_STALE_SERVE; }

    Definition definition_;
    ImageSet images_;
    std::list<Ask> asks_;                        ///< by turn
    std::uint64_t turn_ = 0;                     ///< of whoever has been served last
    std::list<Ask> answered_;                    ///< by the last call of `serve`
    std::vector<const TemplateProcess*> empty_;  ///< without a parked child, in this pass
    /// How many the images are told to keep beyond the definition's; empty: they are to be told
    /// again.
    std::optional<std::uint32_t> wanted_spares_ = 0;
    Outcome failure_;
    Clock::duration back_off_{};
    Clock::time_point not_before_{};
    Clock::time_point last_used_ = Clock::now();
};

}  // namespace warmfork::service
