// The memory that owner and template share: a sealed memfd, mapped.
#pragma once

#include <boost/interprocess/mapped_region.hpp>

#include "channel/descriptor.hpp"
#include "protocol/layout.hpp"

namespace warmfork {

/// Maps the first `size` bytes of an open file, which may be closed afterwards. Returns 0 or errno.
[[nodiscard]] int map_file(int number, boost::interprocess::mode_t mode, std::size_t size,
                           boost::interprocess::mapped_region& ret_region);

class Segment {
  public:
    Segment() = default;

    /// Makes a segment and maps it. The memfd is for the peer; the mapping does without it. Returns
    /// 0 or errno.
    [[nodiscard]] static int create(Segment& ret_segment, Descriptor& ret_memfd);

    /// Maps a segment that a peer made. Its size, seals, magic and version are checked, so that no
    /// later access can raise SIGBUS. Returns 0, errno, EPROTO (not a segment) or EPROTONOSUPPORT
    /// (of another version).
    [[nodiscard]] static int attach(const Descriptor& memfd, Segment& ret_segment);

    SegmentLayout& layout() const { return *static_cast<SegmentLayout*>(region_.get_address()); }

  private:
    [[nodiscard]] int map(int memfd);

    mutable boost::interprocess::mapped_region region_;
};

}  // namespace warmfork
