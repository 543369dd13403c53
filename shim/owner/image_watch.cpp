#include "owner/image_watch.hpp"

#include <poll.h>

namespace warmfork {

ImageWatch::Freshness ImageWatch::look() {
    // The events come first, and then the word: template/freshness.hpp says why.
    pollfd polled[2] = {{ends_.inotify.get(), POLLIN, 0}, {ends_.mounts.get(), POLLPRI, 0}};
    // Somebody has closed them: only the template still sees what happens.
    if ((ends_.has_inotify && polled[0].fd < 0) || polled[1].fd < 0) return Freshness::unknown;
    ::poll(polled, 2, 0);
    // Each open file tells of a change once, and this may be another spawn's look at it.
    if (polled[1].revents & POLLPRI) ++mount_changes_;
    const bool something_changed =
        (polled[0].revents & POLLIN) || mount_changes_ != mount_changes_checked_;
    switch (ends_.segment.layout().freshness.load()) {
        case kFreshnessStale:
            return Freshness::stale;
        case kFreshnessFresh:
            return something_changed ? Freshness::unknown : Freshness::fresh;
        default:
            return Freshness::unknown;
    }
}

void ImageWatch::mounts_checked(std::uint64_t changes) {
    std::uint64_t before = mount_changes_checked_;
    while (before < changes && !mount_changes_checked_.compare_exchange_weak(before, changes)) {
    }
}

}  // namespace warmfork
