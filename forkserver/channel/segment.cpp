#include "channel/segment.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <boost/interprocess/exceptions.hpp>

namespace warmfork {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

/// Lets Boost.Interprocess map a descriptor that is already open.
class OpenMemfd {
  public:
    explicit OpenMemfd(int number) : number_(number) {}
    boost::interprocess::mapping_handle_t get_mapping_handle() const {
        return boost::interprocess::ipcdetail::mapping_handle_from_file_handle(number_);
    }
    static boost::interprocess::mode_t get_mode() { return boost::interprocess::read_write; }

  private:
    int number_;
};

}  // namespace

int Segment::map(int memfd) {
    try {
        region_ = boost::interprocess::mapped_region(
            OpenMemfd(memfd), boost::interprocess::read_write, 0, sizeof(SegmentLayout));
    } catch (const boost::interprocess::interprocess_exception& error) {
        return error.get_native_error() ? error.get_native_error() : ENOMEM;
    }
    // No child has any business in the channel: a process that forks leaves the mapping behind.
    return ::madvise(region_.get_address(), region_.get_size(), MADV_DONTFORK) < 0 ? errno : 0;
}

int Segment::create(Segment& ret_segment, Descriptor& ret_memfd) {
    Segment segment;
    Descriptor memfd(::memfd_create("warmfork-channel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memfd) return errno;
    if (::ftruncate(memfd.get(), sizeof(SegmentLayout)) < 0) return errno;
    if (::fcntl(memfd.get(), F_ADD_SEALS, kSeals) < 0) return errno;
    if (int error = segment.map(memfd.get())) return error;
    segment.layout().magic = kSegmentMagic;
    segment.layout().version = kProtocolVersion;
    ret_segment = std::move(segment);
    ret_memfd = std::move(memfd);
    return 0;
}

int Segment::attach(const Descriptor& memfd, Segment& ret_segment) {
    struct stat status;
    if (::fstat(memfd.get(), &status) < 0) return errno;
    const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
    if (seals < 0 || (seals & kSeals) != kSeals) return EPROTO;
    if (status.st_size != static_cast<off_t>(sizeof(SegmentLayout))) return EPROTO;
    Segment segment;
    if (int error = segment.map(memfd.get())) return error;
    if (segment.layout().magic != kSegmentMagic) return EPROTO;
    if (segment.layout().version != kProtocolVersion) return EPROTONOSUPPORT;
    ret_segment = std::move(segment);
    return 0;
}

}  // namespace warmfork
