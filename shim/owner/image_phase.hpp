// Where an image stands, and what that means for a request that it fits. This is a table, without
// processes.
#pragma once

#include <chrono>

namespace warmfork {

enum class ImagePhase {
    absent,         ///< it has no process, and is to have one
    put_off,        ///< likewise, but not yet: it was started too often
    failed,         ///< it could not be preloaded a short while ago
    no_template,    ///< what was started was no template: it is not started again for long
    awaiting_base,  ///< a layer whose base is not ready
    preloading,     ///< its process is not ready yet
    late,           ///< likewise, and longer than a spawn waits that need not come from it
    ready,          ///< its process serves
};

/// What is to come after an image's process, which is out of date and serves until then.
enum class Successor {
    none,
    put_off,        ///< it is to be started, but not yet
    awaiting_base,  ///< a layer whose base is not ready
    preloading,
};

enum class Patience {
    none,         ///< a cold child will do
    first_start,  ///< likewise, but the image is started for the first time, and may be worth it
    insists,      ///< on a warm child
};

/// What to do for a request.
enum class ImageStep {
    start,  ///< a process, and then look again
    serve,
    wait,           ///< for the process
    weigh,          ///< is the process sooner than a cold child? Then wait for it
    wait_for_time,  ///< until it may be started
    say_not_yet,    ///< to who calls again: what has to come first is nobody's here
    go_cold,
    refuse,  ///< the failure is the answer; who may be cold goes cold
};

[[nodiscard]] ImageStep next_step(ImagePhase phase, Patience patience);

/// When an image may be started.
struct ImageTimes {
    using Time = std::chrono::steady_clock::time_point;
    Time not_before{};
    Time failed_at{};  ///< when it could not be preloaded
};

/// An image that could not be preloaded is tried again after this time, or for whoever insists.
inline constexpr std::chrono::seconds kImageRetryPeriod{5};

/// Returns where an image stands at a time, from where it was last `known` to stand. Its process is
/// not looked at.
[[nodiscard]] ImagePhase phase_at(ImageTimes::Time now, ImagePhase known, const ImageTimes& times,
                                  bool insists);

}  // namespace warmfork
