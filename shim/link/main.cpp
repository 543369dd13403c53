// warmfork-exec: what links stand for. Called by a link's name it becomes the real program of this
// name, further on in PATH. It is started in front of every such command: a static program that
// allocates nothing and opens little.
#include <sys/auxv.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "link/execute.hpp"
#include "link/mark.hpp"
#include "link/real_program.hpp"

namespace {

using namespace warmfork::link;

/// By which other programs of this kind know this one: see mark.hpp.
struct Note {
    std::uint32_t name_size = sizeof "warmfork", mark_size = sizeof kMark, kind = 1;
    char name[(sizeof "warmfork" + 3) & ~3u] = "warmfork";
    char mark[(sizeof kMark + 3) & ~3u] = {};
};
constexpr Note make_note() {
    Note note;
    for (std::size_t i = 0; i < sizeof kMark; ++i) note.mark[i] = kMark[i];
    return note;
}
[[gnu::section(".note.warmfork"), gnu::used, gnu::aligned(4)]] constexpr Note note = make_note();

/// The name that it was called by: that of the file, unless this is the script whose interpreter it
/// is; arguments[0] may be anything.
const char* called_name(char* const* arguments) {
    const auto* file = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
    const bool is_own = file && is_link_program(file);
    return base_name(is_own ? file : arguments[0] ? arguments[0] : "");
}

/// Returns the status to end with.
int become_real(const char* name, char* const* arguments) {
    ProgramSearch search(name, std::getenv("PATH"));
    char failed[PATH_MAX];
    int error = 0;
    while (search.next()) {
        // As execvp goes on: it may have been deleted meanwhile, or its interpreter is missing.
        const int now = execute(search.path(), arguments, environ);
        if (error == 0 || error == ENOENT) {
            std::strcpy(failed, search.path());
            error = now;
        }
        if (now != ENOENT && now != ENOTDIR && now != EACCES) break;
    }
    if (error == 0 && *search.forbidden()) return report_failure(search.forbidden(), true, EACCES);
    return report_failure(error ? failed : name, error != 0, error);
}

}  // namespace

int main(int, char** argv) {
    return become_real(called_name(argv), argv);
}
