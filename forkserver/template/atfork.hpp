// The pthread_atfork handlers that the preload library recorded, run around a raw clone.
#pragma once

#include <string>
#include <vector>

#include "protocol/preload_interface.hpp"

namespace warmfork {

/// Returns the preload library's interface, or null where it is not loaded (a static program,
/// LD_PRELOAD not honoured).
[[nodiscard]] const PreloadInterface* find_preload();

/// The handlers of one fork, in order of registration. They lie where no child destroys them, as
/// that would free memory.
class AtforkRun {
  public:
    /// Takes what is registered now. A handler whose code is no longer mapped is left out: its
    /// library was unloaded without running its finalizers. Returns 0, or errno: whether that is so
    /// of one cannot be told, and nothing may be forked.
    [[nodiscard]] int take(const PreloadInterface& preload);

    void prepare() const;  ///< last registered first, as glibc does
    void parent() const;
    void child() const;

  private:
    std::vector<AtforkHandlers> handlers_;
};

/// Returns the file names of libraries that register their handlers with glibc directly
/// (RTLD_DEEPBIND) and so escape the recorder.
[[nodiscard]] std::vector<std::string> libraries_past_the_recorder(const PreloadInterface& preload);

}  // namespace warmfork
