// Descriptors that came from somebody else, and how they are closed. close(2) of the last
// descriptor of a file can take as long as its owner likes: a TCP connection with SO_LINGER waits
// for its far end, a network or FUSE file system for its server. The same goes for a socket in
// whose queue such descriptors lie.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "channel/descriptor.hpp"

namespace warmfork::service {

/// Closes what one user has sent, one after the other, in a thread of its own, so that nobody else
/// waits for it. It is for use by the loop's thread.
class Disposal {
  public:
    Disposal();
    /// What is left is closed all the same; nobody waits for it.
    ~Disposal();
    Disposal(const Disposal&) = delete;
    Disposal& operator=(const Disposal&) = delete;

    /// Closes a descriptor: at once where there can be no thread.
    void close(Descriptor descriptor);
    /// Returns how many are yet to be closed.
    [[nodiscard]] std::size_t waiting() const;
    /// Waits a little until all are closed, before exec(2), which would close them. What is not
    /// closed by then stays open for good.
    void prepare_for_exec(std::chrono::milliseconds patience);

  private:
    struct Queue;
    static void run(const std::shared_ptr<Queue>& queue);
    [[nodiscard]] bool start();

    std::shared_ptr<Queue> queue_;  // the thread's as well, which may outlive this
    bool has_thread_ = false;
};

/// Descriptors of a user, which close as that user's do.
class ForeignDescriptors {
  public:
    ForeignDescriptors() = default;
    ForeignDescriptors(std::vector<Descriptor> descriptors, std::shared_ptr<Disposal> disposal)
        : descriptors_(std::move(descriptors)), disposal_(std::move(disposal)) {}
    ForeignDescriptors(ForeignDescriptors&&) = default;
    ForeignDescriptors& operator=(ForeignDescriptors&& other) noexcept {
        descriptors_.swap(other.descriptors_);
        disposal_.swap(other.disposal_);
        return *this;
    }
    ~ForeignDescriptors() {
        for (Descriptor& descriptor : descriptors_) disposal_->close(std::move(descriptor));
    }
    const std::vector<Descriptor>& get() const { return descriptors_; }

  private:
    std::vector<Descriptor> descriptors_;
    std::shared_ptr<Disposal> disposal_;  ///< set where there are any
};

}  // namespace warmfork::service
