// The one place where a template is forked: the fork handlers around the system call, the look
// whether it is safe at that moment, and the first steps of the new process.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "channel/descriptor.hpp"
#include "protocol/stage.hpp"
#include "template/atfork.hpp"
#include "template/child.hpp"
#include "template/clone.hpp"
#include "template/gate.hpp"
#include "template/handler_timer.hpp"
#include "template/image_facts.hpp"

namespace warmfork {

/// What is said to an owner whose child was not forked.
struct ForkFailure {
    Stage stage = Stage::none;
    int error_number = 0;
    std::string text;
};

/// What came of a fork, in each of the processes that go on from it.
struct ForkResult {
    enum class Self {
        server,  ///< the template, as before
        child,   ///< its plan is all that this process needs
        twin,    ///< a copy that was woken: a template to be, by `channel`
    };
    Self self = Self::server;
    int pid = -1;           ///< server: the child's, with its `pidfd`; or there is a `failure`
    Descriptor pidfd{};     ///< server
    ForkFailure failure{};  ///< server
    Descriptor channel{};   ///< twin: the control socket
};

class Forker {
  public:
    /// `facts` must stay. With `leaves_twins` each child keeps a copy of the template.
    Forker(const PreloadInterface& preload, Host& host, AllowList allowed, int owner_pidfd,
           bool leaves_twins, const ImageFacts& facts);

    /// Looks at what has to be right before the first fork. `own` are the descriptors that are not
    /// the image's, sorted; `shared` is memory that is the channel's. Returns what is in the way,
    /// or an empty text.
    [[nodiscard]] std::string find_obstacle(const std::vector<int>& own, const void* shared);

    /// Forks. Returns in the template, in the child and, when it is woken, in the child's twin. In
    /// the last two the caller goes on without anything that the template owns: its descriptors are
    /// closed, or will be, and their numbers may be those of others by then, so that no owner of
    /// one may be destroyed there. `shown_pid` is where the kernel writes the pid before the child
    /// runs. All signals are blocked, before and after, in each of the processes.
    [[nodiscard]] ForkResult fork(const ChildPlan& plan, std::atomic<std::int32_t>& shown_pid,
                                  std::vector<int> own);

    const InheritedState& inherited() const { return inherited_; }
    const AllowList& allowed() const { return check_.allowed(); }
    double last_microseconds() const { return microseconds_; }  ///< of the last system call

  private:
    [[nodiscard]] std::string try_handlers(const std::vector<int>& own);
    [[nodiscard]] ForkResult begin_child(const ChildPlan& plan);
    [[nodiscard]] ForkResult result_in_template(int pid, bool is_safe, Descriptor pidfd);

    const PreloadInterface& preload_;
    Host& host_;
    const bool leaves_twins_;
    const ImageFacts& facts_;
    InheritedState inherited_;
    int limit_error_ = 0;  ///< why the limit on open files is not what it should be
    CloneContext clone_;
    ForkCheck check_;
    HandlerTimer timer_;
    AtforkRun handlers_;
    double microseconds_ = 0;
};

}  // namespace warmfork
