// Where a spawn gets its image from. It is all in which an embedded template and one of the service
// differ; Spawner says what is the same for both.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "owner/child_record.hpp"
#include "owner/request.hpp"
#include "owner/request_eligibility.hpp"
#include "owner/template_process.hpp"

namespace warmfork {

class ServedChild;

/// A parked child that dies in the moment of its hand-off is replaced by the next. Where this many
/// die it is the record that kills them.
inline constexpr int kHandOffTries = 4;

/// Who insists on a warm child, or on an image that is up to date, waits so long for it.
inline constexpr std::chrono::minutes kWarmPatience{5};

/// A child that has been spawned.
struct Spawned {
    pid_t pid = 0;
    bool is_warm = false;
    ColdReason reason;
    std::shared_ptr<ServedChild> served;  ///< of a service; null: this process's own
    std::uint64_t mark = 0;               ///< of this process's own

    ProcessIdentity identity() const { return {pid, mark}; }
};

/// What the images of a template run.
struct TemplateProgram {
    bool is_python = false;
    std::string path;  ///< of the interpreter or the native program
    bool is_fixed =
        false;  ///< this user may have the template's own command line run, and no other
};

/// What a spawn wants of a source of images.
struct Wish {
    const Selection& selection;
    Lifetime lifetime;
    WaitClock::time_point began{};  ///< when the spawn did
    bool may_wait = false;          ///< kWarmPatience, also for an image that is preloaded again
    bool is_repeated = false;       ///< what was had before was of no use
    bool is_question = false;       ///< nothing is started or waited for that a spawn would not be
};

/// Why no child of an image would be what a cold one of this moment is. Where it would, the text is
/// empty.
struct OwnerChange {
    std::string text;
    bool is_lasting = true;  ///< nor would a child of another image be, or for other threads only
};

/// An image that was chosen for one spawn, and the parked child that was taken from it. What has
/// not started ends with this object.
class ChosenImage {
  public:
    /// What `traits` and `state_at_start` refer to must live as long as this object.
    ChosenImage(ImageTraits traits, const OwnerState& state_at_start, ChildTies ties,
                bool is_checked = true)
        : traits_(std::move(traits)),
          state_at_start_(state_at_start),
          ties_(ties),
          is_checked_(is_checked) {}
    virtual ~ChosenImage() = default;
    ChosenImage(const ChosenImage&) = delete;
    ChosenImage& operator=(const ChosenImage&) = delete;

    const ImageTraits& traits() const { return traits_; }
    const OwnerState& state_at_start() const { return state_at_start_; }
    const ChildTies& ties() const { return ties_; }
    /// Are files looked for that have come in place of preloaded modules? Only the benchmark does
    /// without.
    bool is_checked() const { return is_checked_; }
    /// Its one parked child is all that can be had of it: nothing is forked on command.
    bool is_leased() const { return ties_.is_of_service; }

    /// Compares what the owner is `now` with what it was when the image was started.
    [[nodiscard]] virtual OwnerChange find_change(const OwnerState& now) = 0;
    /// Begins another image in its place, because of such a change.
    virtual void replace(const OwnerChange&) {}

    /// Looks whether its files have changed. May ask the template, and wait for its answer.
    [[nodiscard]] virtual bool ask_whether_stale() { return false; }
    /// Asks the same without a wait. Fails at stage stale where they have, and a child must not
    /// come from it. With `serves_stale` it may, and another image is begun behind it. Clears
    /// `ret_is_known` where only the template could tell, which it does when it forks.
    [[nodiscard]] virtual Outcome check_freshness([[maybe_unused]] bool serves_stale,
                                                  [[maybe_unused]] bool& ret_is_known) {
        return {};
    }

    /// Takes a parked child, which is this object's. Returns null where there is none.
    [[nodiscard]] virtual Born* take_parked() = 0;
    /// Gives the child, which has started, to the caller.
    [[nodiscard]] virtual Spawned release_started() = 0;
    /// Ends the child, which is late, and returns when it can run no more.
    virtual void end_parked() = 0;
    /// Notes that the child was late. From now on only children that have proved to be prepared are
    /// taken.
    virtual void note_late_child() {}
    /// Has the template fork children, all or none. Fails at stage stale where its files have
    /// changed, at hand_off with EPIPE where it has ended, and with ETIMEDOUT where it does not
    /// answer, or its children do not start.
    [[nodiscard]] virtual Outcome fork_on_command(
        const ChildRecord&, const Request&, [[maybe_unused]] std::uint32_t count,
        [[maybe_unused]] bool serves_stale, [[maybe_unused]] std::vector<Spawned>& ret_spawned) {
        return Failure{Stage::hand_off, ECHILD, 0, "no child is parked"};
    }

    /// Sees to it that there will be another image, where this one is stale, has ended, or does not
    /// answer.
    virtual void note_failure(const Failure&) {}

  private:
    const ImageTraits traits_;
    const OwnerState& state_at_start_;
    const ChildTies ties_;
    const bool is_checked_;
};

class ImageSource {
  public:
    virtual ~ImageSource() = default;

    /// Here and in `choose` a failure comes with `ret_cold` where a cold child can be had in spite
    /// of it.
    [[nodiscard]] virtual Outcome find_program(TemplateProgram& ret_program,
                                               ColdReason& ret_cold) = 0;
    /// Sets `ret_image` or `ret_cold`. For a question it may set neither: an image would fit that
    /// does not run yet.
    [[nodiscard]] virtual Outcome choose(const Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                                         ColdReason& ret_cold) = 0;

    /// Returns how many children can be spawned together, all of them warm or all cold.
    [[nodiscard]] virtual std::uint32_t most_at_once() const { return UINT32_MAX; }
    /// Runs the template's own command, where the program `is_fixed`. Of the request only the
    /// standard streams count.
    [[nodiscard]] virtual Outcome run_own_command(const Request&, Spawned&) {
        return Failure{Stage::eligibility, ENOTSUP, 0, "the template has no command of its own"};
    }
    /// Ends one of several children, of which another could not be had.
    virtual void end(const Spawned& child) = 0;
    /// Gives back what is held ahead of need, where the caller lacks descriptors that a cold child
    /// needs as well.
    virtual void free_descriptors() {}
    /// Notes that a child was served cold.
    virtual void note_cold(warmfork_reason) {}
};

/// What a warmfork_template of the C ABI is as well: a source that can be asked, and waited for.
class OpenTemplate : public ImageSource {
  public:
    using Deadline = TemplateProcess::Deadline;

    /// Is this still the process that opened it? Otherwise calls return -ECHILD.
    [[nodiscard]] virtual bool is_usable() const = 0;
    /// Waits for the image for the owner's own environment, without options.
    [[nodiscard]] virtual Outcome wait_ready(Deadline deadline) = 0;
    [[nodiscard]] virtual Outcome wait_parked(std::uint32_t count, Deadline deadline) = 0;
    [[nodiscard]] virtual Outcome report(std::string& ret_json) = 0;
    [[nodiscard]] virtual int set_spares(std::uint32_t least, std::uint32_t most) = 0;
    [[nodiscard]] virtual pid_t pid() = 0;
    /// Returns what TemplateProcess::progress says.
    [[nodiscard]] virtual std::string progress() = 0;
    [[nodiscard]] virtual std::uint32_t parked() = 0;
    /// Returns how often a template was started for it.
    [[nodiscard]] virtual std::uint64_t starts() const = 0;
    /// Leaves out the checks of environment, freshness and shadowing: the benchmark measures what
    /// they cost.
    virtual void leave_unchecked() = 0;
};

}  // namespace warmfork
