// A warmfork_request, read once: its defaults are filled in, its pointers collected, and a record
// can be made of it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "owner/failure.hpp"
#include "protocol/record.hpp"
#include "warmfork.h"

namespace warmfork {

class Request {
  public:
    /// Copies the struct and makes the child's environment. The strings stay the caller's and must
    /// live as long as this object. Fails with EINVAL where there are no arguments, or values out
    /// of range.
    [[nodiscard]] Outcome read(const warmfork_request& request);

    /// Makes the same request with another command line, whose first word is the program.
    /// `executed` is the file that gives the child its name. All of these, and this request, must
    /// live as long as the result.
    [[nodiscard]] Request with_command(const std::string& executed,
                                       std::span<const std::string> arguments) const;

    warmfork_backend backend() const { return request_.backend; }
    bool nonblocking() const { return request_.flags & WARMFORK_NONBLOCK; }
    /// Is a cold child not wanted at all, so that the spawn fails instead?
    bool may_not_be_cold() const {
        return request_.flags & (WARMFORK_NOT_COLD | WARMFORK_TERMINAL);
    }
    /// Is the child to have a terminal of its own?
    bool has_terminal() const { return request_.flags & WARMFORK_TERMINAL; }
    Lifetime lifetime() const { return contents_.header.lifetime; }
    std::string program() const {
        return request_.executable ? request_.executable : arguments_[0];
    }
    /// Returns the child's directory, which may be relative to the owner's.
    std::string directory() const;
    std::span<char* const> arguments() const;
    std::span<char* const> environment() const;
    std::uint64_t signals_default() const { return request_.signals_default; }
    /// Returns where a child of multiprocessing will look for modules, null-terminated, or null for
    /// where its environment says.
    const char* const* python_path() const { return request_.python_path; }
    bool has_signal_mask() const { return request_.flags & WARMFORK_SIGNAL_MASK; }
    /// Has it limits that only take effect at exec, or that the image has outgrown already?
    bool has_exec_limits() const;

    /// Returns descriptors of the owner, [i] for contents().descriptor_targets[i].
    const std::vector<int>& sources() const { return sources_; }
    /// Returns the owner's descriptor that becomes `target` in the child, or -1 where that is
    /// closed.
    int source_of(int target) const;
    /// Returns what the request itself says, and nothing of the owner's state.
    const RecordContents& contents() const { return contents_; }

  private:
    void make_environment();
    void make_descriptor_map();

    warmfork_request request_{};
    RecordContents contents_;
    std::vector<const char*> arguments_;
    std::vector<const char*> environment_;
    std::vector<int> sources_;
};

}  // namespace warmfork
