#include "owner/image_phase.hpp"

#include <cstddef>

namespace warmfork {

ImageStep next_step(ImagePhase phase, Patience patience) {
    using enum ImageStep;
    // The rows are by phase, the columns for none, first_start and insists.
    constexpr ImageStep kSteps[][3] = {
        /* absent        */ {start, start, start},
        /* put_off       */ {go_cold, wait_for_time, wait_for_time},
        /* failed        */ {go_cold, go_cold, go_cold},
        /* no_template   */ {refuse, refuse, refuse},
        /* awaiting_base */ {go_cold, say_not_yet, say_not_yet},
        /* preloading    */ {go_cold, weigh, wait},
        /* late          */ {go_cold, go_cold, wait},
        /* ready         */ {serve, serve, serve},
    };
    static_assert(std::size(kSteps) == static_cast<std::size_t>(ImagePhase::ready) + 1);
    return kSteps[static_cast<std::size_t>(phase)][static_cast<std::size_t>(patience)];
}

ImagePhase phase_at(ImageTimes::Time now, ImagePhase known, const ImageTimes& times, bool insists) {
    const bool is_its_time = now >= times.not_before;
    switch (known) {
        case ImagePhase::absent:
        case ImagePhase::put_off:
        case ImagePhase::awaiting_base:  // its base is asked anew
            return is_its_time ? ImagePhase::absent : ImagePhase::put_off;
        case ImagePhase::failed:
            if (!insists && now < times.failed_at + kImageRetryPeriod) return known;
            return is_its_time ? ImagePhase::absent : ImagePhase::put_off;
        case ImagePhase::no_template:
            return is_its_time ? ImagePhase::absent : known;
        case ImagePhase::preloading:
        case ImagePhase::late:
        case ImagePhase::ready:
            return known;
    }
    return known;
}

}  // namespace warmfork
