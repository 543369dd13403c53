// The images of one template: the first, and its variants, which were started with other options of
// the interpreter or other values of the variables that preloading reads.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "owner/eligibility.hpp"
#include "owner/environment.hpp"
#include "owner/image_phase.hpp"
#include "owner/template_process.hpp"

namespace warmfork {

/// What a request wants its image to have been started with.
struct Selection {
    std::vector<std::string> options;  ///< of the interpreter
    bool is_isolated = false;          ///< by one of them
    std::span<char* const> environment;
    std::uint32_t children = 1;  ///< so many at once
};

class ImageSet {
  public:
    using Process = std::shared_ptr<TemplateProcess>;
    using Deadline = TemplateProcess::Deadline;

    /// What a layer begins as: a parked child of an image of its base.
    struct Foundation {
        Process base;
        Born spare;
    };
    /// Takes one that fits and is up to date. Fails with ETIMEDOUT where there is none yet, and
    /// `resume` is to be called when there may be, and with `ret_cold` where no image of the base
    /// fits, or may.
    using TakeFoundation =
        std::function<Outcome(const Selection&, Foundation&, ColdReason& ret_cold)>;

    struct Definition {
        bool is_python = false;
        std::string program;                 ///< full path of the interpreter or native program
        std::vector<std::string> arguments;  ///< native: behind the program
        std::string package;                 ///< Python: where the package warmfork lies
        std::vector<std::string> python_path, preload;
        bool names_search_path = false;     ///< `python_path` is not just the directory
        std::vector<std::string> options;   ///< Python: of the first image
        std::string before_fork, in_child;  ///< hooks, "module:function"; empty: none
        bool nested = false;                ///< each child keeps a twin of the template
        bool learns = false;                ///< preloads what children were seen to import
        std::string name;                   ///< of the program whose children these are, for that
        /// How many children that may be cold do not wait for the first image's first start.
        std::uint32_t most_cold_at_first = 0;
        std::optional<std::vector<std::string>>
            environment;  ///< nothing: the owner's at each start
        std::string directory;
        std::uint32_t spares_least = 1, spares_most = 8;
        std::uint32_t variants_most = 4;
        std::vector<std::string> allowed;
        bool is_shared = false;  ///< with the clients of a service
        /// Each image of Python is preloaded on top of what this gives. Where it is empty this is
        /// no layer.
        TakeFoundation take_foundation = {};
    };

    explicit ImageSet(Definition definition);
    /// Tells all of them to end, and waits until they have.
    ~ImageSet();

    /// Returns what the first image is started for. It is good until the environment is changed.
    [[nodiscard]] Selection plain_selection();

    /// Starts the first image unless it runs. A layer may wait for its base then.
    [[nodiscard]] Outcome start();
    /// Goes on with layers that wait for their base. The failure that it returns is that of the
    /// first image.
    [[nodiscard]] Outcome resume();

    /// Finds an image that fits and is ready, and starts what is missing. With `may_wait` it waits
    /// until there is one, or the deadline has passed (ETIMEDOUT); otherwise `ret_cold` is set
    /// where there is none yet. The first image's first start is waited for, unless it takes too
    /// long or a cold child is the sooner: see decide_to_wait. A failure comes with `ret_cold`
    /// where a cold child can be had in spite of it.
    [[nodiscard]] Outcome choose(const Selection& selection, bool may_wait, Deadline deadline,
                                 Process& ret_process, ColdReason& ret_cold);
    /// Returns what `choose` would find, without starting or waiting for anything. Reason NONE
    /// means an image that fits.
    [[nodiscard]] ColdReason explain(const Selection& selection);

    /// Begins another image, but not endlessly often, for one that children of the owner as it is
    /// now must not come from.
    void replace(const Process& process, const ColdReason& reason);
    /// Begins another image, but not endlessly often, for one that is out of date. With `serves_on`
    /// the old one is kept until the new one is ready.
    void renew(const Process& process, const std::string& change, bool serves_on);
    /// Begins another image, later each time, for one whose process did not answer and was killed.
    void abandon(const Process& process, const ColdReason& reason);
    /// Lets go of an image whose process is of no use any more. The next request starts another.
    void discard(const Process& process);

    /// Lets the environment count no more from now on, which is for the benchmark.
    void leave_unchecked() { is_unchecked_ = true; }

    /// Returns all that run, also those that have been told to end. Lets go of those that have
    /// ended.
    [[nodiscard]] std::vector<Process> processes();
    [[nodiscard]] Process first();
    [[nodiscard]] std::uint32_t parked();
    [[nodiscard]] int set_spares(std::uint32_t least, std::uint32_t most);
    [[nodiscard]] std::uint64_t starts() const { return starts_; }

  private:
    using Clock = TemplateProcess::Clock;
    struct Image;
    using ImagePointer = std::shared_ptr<Image>;
    struct Image {
        // What it was started for.
        std::vector<std::string> options;
        bool is_isolated = false;
        std::optional<std::vector<std::string>> environment;  ///< as in the definition
        std::uint64_t last_use = 0;

        // Where it stands, as it was last seen: see phase_at.
        ImagePhase phase = ImagePhase::absent;
        ImageTimes times;
        Process process;                        ///< of one that is preloading, or ready
        Outcome failure;                        ///< of one that has failed, or is no template
        Successor successor = Successor::none;  ///< serves once it is ready
        Process next;                           ///< of a successor that is preloading
        ColdReason restarting;  ///< why it is preloaded again; NONE: it is the first time

        // Why a layer had no base when that was last asked for.
        Outcome base_failure;
        ColdReason base_reason;
        Clock::time_point base_failed_at{};

        // What it depends on.
        std::vector<std::string> started_with;
        std::vector<std::string> fitting;   ///< the last environment that was found to fit
        std::optional<ReadVariables> read;  ///< of the last process that was ready

        // How often it was started, and how long that took.
        Clock::time_point renewed_at{};
        Clock::duration delay{};
        Clock::duration start_took{};  ///< of the last process that was ready; 0: none was
        /// How many children did not wait since it was last ready. UINT32_MAX: all wait, as it has
        /// failed.
        std::uint32_t cold_meanwhile = 0;
    };
    /// A request for an image, while one is chosen.
    struct Choice {
        const Selection& selection;
        const bool may_wait;
        const Deadline deadline;
        std::unique_lock<std::mutex> lock;
        ImagePointer image{};
        Outcome unready{};               ///< why there was no process, or why it was not ready
        bool is_to_be_repeated = false;  ///< with what has become of the image
    };

    [[nodiscard]] std::vector<std::string> search_path_for(const Image& image) const;
    // These are called with the mutex held.
    /// Returns those entries that are allowed which let modules depend on the directory: a template
    /// that learns has to know them.
    [[nodiscard]] std::vector<std::string> allowed_directories() const;
    [[nodiscard]] LaunchPlan plan_for(const Image& image) const;
    [[nodiscard]] Outcome start_process(Image& image, Process& ret_process);
    [[nodiscard]] Outcome start_layer(Image& image, Process& ret_process);
    void adopt(Image& image, Process process);
    [[nodiscard]] Outcome restart(Image& image);
    [[nodiscard]] Outcome start_successor(Image& image);
    void look_at(Image& image);
    [[nodiscard]] static bool is_starting(const Image& image);
    [[nodiscard]] bool fits(Image& image, const Selection& selection);
    [[nodiscard]] ImagePointer find(const Selection& selection);
    [[nodiscard]] ImagePointer add_variant(const Selection& selection, bool insists);
    [[nodiscard]] bool decide_to_wait(Image& image, const TemplateProcess& process,
                                      std::uint32_t children);
    [[nodiscard]] Outcome try_image(Choice& choice, Process& ret_process, ColdReason& ret_cold);
    [[nodiscard]] bool is_first_start(const Choice& choice) const;
    [[nodiscard]] Outcome start_for(Choice& choice, ColdReason& ret_cold);
    [[nodiscard]] static ImagePhase look_whether_ready(Choice& choice, TemplateProcess& process,
                                                       Deadline deadline);
    [[nodiscard]] Outcome wait_for_time(Choice& choice, ColdReason& ret_cold);
    [[nodiscard]] Outcome take_ready(Choice& choice, const Process& process, Process& ret_process);
    [[nodiscard]] Outcome settle_failure(Choice& choice, const Process& process,
                                         ColdReason& ret_cold);
    [[nodiscard]] ColdReason difference(const Selection& selection);
    [[nodiscard]] ColdReason reason_to_wait(const Image& image, const Selection& selection);
    [[nodiscard]] ColdReason reason_without_base(Image& image, const Selection& selection);
    static void put_off_next_start(Image& image, Clock::duration first_delay);
    void give_up_program(Image& image, const Failure& failure);
    [[nodiscard]] Image* image_of(const Process& process);
    void learn(Image& image, TemplateProcess& process);
    void discard(Process& process);
    void drop_process(Image& image);
    void drop_successor(Image& image);
    void release_ended();
    void let_go_of_lost(Image& image);

    const pid_t owner_;
    const std::vector<std::string> owners_path_;  ///< PYTHONPATH when the template was opened
    bool is_unchecked_ = false;
    Definition definition_;
    std::mutex mutex_;
    std::vector<ImagePointer> images_;  ///< [0]: the first
    ReadVariables known_reads_;         ///< of all images that there were
    std::vector<Process> ending_;       ///< told to end; let go of once they have
    std::uint64_t uses_ = 0;
    std::deque<std::size_t> refused_;       ///< selections that no image gave way to, hashed
    std::vector<char*> plain_environment_;  ///< pointers into the definition's, or the owner's
    std::atomic<std::uint64_t> starts_{0};
};

}  // namespace warmfork
