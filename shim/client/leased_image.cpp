#include "client/leased_image.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "channel/segment.hpp"

namespace warmfork {
namespace {

// The size of the segment's header, which is all that is looked at.
constexpr std::size_t kHeaderSize = offsetof(SegmentLayout, newborns);

}  // namespace

int LeasedImage::make(SharedImage facts, std::vector<Descriptor> files,
                      std::shared_ptr<LeasedImage>& ret_image) {
    if (files.empty()) return EPROTO;
    // It must be sealed, so that reading it cannot raise SIGBUS.
    const int seals = ::fcntl(files[0].get(), F_GET_SEALS);
    struct stat status;
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || ::fstat(files[0].get(), &status) < 0 ||
        status.st_size != static_cast<off_t>(sizeof(SegmentLayout)))
        return EPROTO;
    std::shared_ptr<LeasedImage> image(new LeasedImage);
    if (int error =
            map_file(files[0].get(), boost::interprocess::read_only, kHeaderSize, image->segment_))
        return error;
    image->has_inotify_ = files.size() > 1;
    if (image->has_inotify_) image->inotify_ = KeptDescriptor(std::move(files[1]));
    image->mounts_ =
        KeptDescriptor(Descriptor(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)));
    image->state_ = decode_owner_state(facts.owner_state);
    for (const std::string& entry : facts.shadowable)
        if (const std::size_t equals = entry.find('='); equals != std::string::npos)
            image->shadowable_.emplace(entry.substr(0, equals), entry.substr(equals + 1));
    for (std::uint64_t number : facts.descriptors)
        image->descriptors_.push_back(static_cast<int>(number));
    image->facts_ = std::move(facts);
    ret_image = std::move(image);
    return 0;
}

bool LeasedImage::check_freshness() {
    // The events come first, and then the word: template/freshness.hpp says why. The instance lives
    // on without the template, and so do its watches: then nobody takes the events away.
    if (!has_inotify_ || !inotify_ || !mounts_) return false;
    pollfd polled[2] = {{inotify_.get(), POLLIN, 0}, {mounts_.get(), POLLPRI, 0}};
    ::poll(polled, 2, 0);
    if (polled[1].revents & POLLPRI) have_mounts_changed_ = true;
    if ((polled[0].revents & POLLIN) || have_mounts_changed_) return false;
    return static_cast<const SegmentLayout*>(segment_.get_address())->freshness.load() ==
           kFreshnessFresh;
}

}  // namespace warmfork
