// An image of the service, as far as a client has to know it.
#pragma once

#include <atomic>
#include <boost/interprocess/mapped_region.hpp>
#include <memory>

#include "channel/descriptor.hpp"
#include "owner/environment.hpp"
#include "owner/kept_descriptor.hpp"
#include "owner/owner_state.hpp"
#include "owner/shadowing.hpp"
#include "protocol/service_bodies.hpp"

namespace warmfork {

class LeasedImage {
  public:
    /// Makes an image of a message's facts and `files`. Returns 0 or errno (EPROTO: they are not
    /// what they should be).
    [[nodiscard]] static int make(SharedImage facts, std::vector<Descriptor> files,
                                  std::shared_ptr<LeasedImage>& ret_image);

    const SharedImage& facts() const { return facts_; }
    const OwnerState& state_at_start() const { return state_; }
    const ModuleFiles& shadowable() const { return shadowable_; }
    const std::vector<int>& descriptors() const { return descriptors_; }

    /// Looks whether what was forked from it in the past is still what its files would give.
    /// Returns false also where it cannot be told from here: the service knows. It does not wait,
    /// and takes one system call.
    [[nodiscard]] bool check_freshness();

  private:
    LeasedImage() = default;

    SharedImage facts_;
    OwnerState state_;
    ModuleFiles shadowable_;
    std::vector<int> descriptors_;
    boost::interprocess::mapped_region segment_;
    KeptDescriptor inotify_, mounts_;
    bool has_inotify_ = false;
    std::atomic<bool> have_mounts_changed_{false};
};

}  // namespace warmfork
