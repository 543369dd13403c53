// The program that a link stands in front of. A link, /some/directory/pytest, leads to
// warmfork-exec; the real pytest is another file of this name in PATH. Nothing here allocates,
// takes a lock or changes more than what is given.
#pragma once

#include <climits>

namespace warmfork::link {

/// What is searched where there is no PATH, as execvp does.
inline constexpr const char* kDefaultPath = "/bin:/usr/bin";

/// Returns what stands behind the last slash.
[[nodiscard]] const char* base_name(const char* path);

/// Does the file, or what it is a link to, belong to warmfork-exec, of this installation or of
/// another one?
[[nodiscard]] bool is_link_program(const char* path);

/// The files of a name in PATH that are executable and no links to warmfork-exec, in order. Where
/// there is such a link in PATH they are those behind the first one: what stands before it would
/// have been found in its place, or has called it.
class ProgramSearch {
  public:
    /// `name` and `path`, the value of PATH or null, are borrowed.
    ProgramSearch(const char* name, const char* path);

    /// Returns false when there are no more. The path stays valid until the next call.
    [[nodiscard]] bool next();
    [[nodiscard]] const char* path() const { return candidate_; }
    /// Returns a file of this name that was passed over as it has no execute permission; empty
    /// where there was none.
    [[nodiscard]] const char* forbidden() const { return forbidden_; }

  private:
    [[nodiscard]] bool next_candidate();

    const char* name_;
    const char* rest_;  ///< of PATH; null: at its end
    char candidate_[PATH_MAX];
    char forbidden_[PATH_MAX];
};

}  // namespace warmfork::link
