#include "channel/segment.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <boost/interprocess/exceptions.hpp>

namespace warmfork {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

/// Lets Boost.Interprocess map a descriptor that is already open.
class OpenFile {
  public:
    OpenFile(int number, boost::interprocess::mode_t mode) : number_(number), mode_(mode) {}
    boost::interprocess::mapping_handle_t get_mapping_handle() const {
        return boost::interprocess::ipcdetail::mapping_handle_from_file_handle(number_);
    }
    boost::interprocess::mode_t get_mode() const { return mode_; }

  private:
    int number_;
    boost::interprocess::mode_t mode_;
};

}  // namespace

int map_file(int number, boost::interprocess::mode_t mode, std::size_t size,
             boost::interprocess::mapped_region& ret_region) {
    try {
        ret_region = boost::interprocess::mapped_region(OpenFile(number, mode), mode, 0, size);
    } catch (const boost::interprocess::interprocess_exception& error) {
        return error.get_native_error() ? error.get_native_error() : ENOMEM;
    }
    return 0;
}

int Segment::map(int memfd) {
    if (int error =
            map_file(memfd, boost::interprocess::read_write, sizeof(SegmentLayout), region_))
        return error;
    // No child has any business in the channel: a process that forks leaves the mapping behind.
    return ::madvise(region_.get_address(), region_.get_size(), MADV_DONTFORK) < 0 ? errno : 0;
}

int Segment::create(Segment& ret_segment, Descriptor& ret_memfd) {
    Segment segment;
    if (!may_make_file_of(sizeof(SegmentLayout))) return errno;
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
