// warmfork-exec is what links lead to. Called by a link's name it becomes the real program of this
// name, further on in PATH, or, where the user's service has a template for it, `warmfork run`,
// which does the same by a warm child. It is started in front of every such command: a static
// program that allocates nothing and opens little. libwarmfork-exec.so calls it by its own name,
// with the file that is to be executed in front of its arguments.
#include <alloca.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>

#include "channel/standard_numbers.hpp"
#include "link/ask_service.hpp"
#include "link/cold_interpreter.hpp"
#include "link/execute.hpp"
#include "link/mark.hpp"
#include "link/python_program.hpp"
#include "link/real_program.hpp"
#include "link/terminal_job.hpp"
#include "link/use_count.hpp"
#include "protocol/variables.hpp"

namespace {

using namespace warmfork::link;

/// Other programs of this kind know this one by it: see mark.hpp.
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

/// Returns the name that it was called by: that of the file, unless this is the script whose
/// interpreter it is. arguments[0] may be anything.
const char* called_name(char* const* arguments) {
    const auto* file = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
    const bool is_own = file && is_link_program(file);
    return base_name(is_own ? file : arguments[0] ? arguments[0] : "");
}

/// Finds the command line's own program, which lies beside this one. Returns false where it is not
/// there.
bool find_command_line(char (&ret_path)[PATH_MAX]) {
    const ssize_t size = ::readlink("/proc/self/exe", ret_path, sizeof ret_path);
    if (size <= 0 || static_cast<std::size_t>(size) >= sizeof ret_path) return false;
    ret_path[size] = '\0';
    const auto folder = static_cast<std::size_t>(base_name(ret_path) - ret_path);
    // The first is where it is installed or built, the second in a wheel.
    for (const char* place : {WARMFORK_PROGRAMS_FROM_LIBEXEC "/warmfork", "../_command"}) {
        if (folder + std::strlen(place) >= sizeof ret_path) return false;
        std::strcpy(ret_path + folder, place);
        if (::access(ret_path, X_OK) == 0) return true;
    }
    return false;
}

bool is_cold_asked_for() {
    const char* backend = std::getenv(warmfork::kBackendVariable);
    return backend && std::strcmp(backend, "cold") == 0;
}

/// Must the command have this terminal? A child of the service has no controlling terminal, and is
/// in no job of a shell. Whether it may have a terminal of its own, a person chooses.
bool must_stay_at_terminal() {
    if (!::isatty(STDIN_FILENO) && !::isatty(STDOUT_FILENO) && !::isatty(STDERR_FILENO))
        return false;
    const char* chosen = std::getenv("WARMFORK_LINKS_AT_TERMINAL");
    return !chosen || std::strcmp(chosen, "warm") != 0 || !is_whole_job_at_terminal();
}

/// Does somebody know it by its process id? Workers of multiprocessing and loky tell their parent
/// theirs, by which it knows them: they cannot be others than it has started.
bool is_known_by_its_process_id(char* const* arguments) {
    static constexpr char loky[] = "loky.backend.popen_loky_posix";
    for (; *arguments; ++arguments) {
        const std::size_t size = std::strlen(*arguments);
        if (std::strcmp(*arguments, "--multiprocessing-fork") == 0 ||
            (size >= sizeof loky - 1 &&
             std::strcmp(*arguments + size - (sizeof loky - 1), loky) == 0))
            return true;
    }
    return false;
}

/// Where there is a template for the command `name`, whose program is the file `path`: becomes what
/// gets a warm child from it. Returns where it is to be cold: what this program can tell by itself
/// costs no start of another one.
void become_warm(const char* name, const char* path, char* const* arguments) {
    char found[kTemplateNameSize], command_line[PATH_MAX];
    if (is_cold_asked_for() || must_stay_at_terminal() || is_known_by_its_process_id(arguments) ||
        is_plainly_cold(is_python_name(base_name(path)), arguments) || !arguments[0] ||
        !find_template(name, path, arguments, found) || !find_command_line(command_line))
        return;
    const char* const front[] = {"warmfork",      "run", "--template", found,
                                 "--in-place-of", path,  "--"};
    std::size_t count = 0;
    while (arguments[count]) ++count;
    auto** const given = static_cast<char**>(::alloca(sizeof front + (count + 1) * sizeof(char*)));
    std::memcpy(given, front, sizeof front);
    std::memcpy(given + std::size(front), arguments, (count + 1) * sizeof(char*));
    ::execve(command_line, given, environ);
}

/// Becomes the real program. Returns the status to end with where that fails.
int become_real(const char* name, char* const* arguments) {
    ProgramSearch search(name, std::getenv("PATH"));
    char failed[PATH_MAX];
    int error = 0;
    bool is_first = true;
    while (search.next()) {
        if (std::exchange(is_first, false)) {
            become_warm(name, search.path(), arguments);
            count_use(name, false);
        }
        // It goes on as execvp does: the file may have been deleted meanwhile, or its interpreter
        // is missing.
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

/// Does what libwarmfork-exec.so calls this for: arguments[0] is the file of the command, and its
/// own follow.
int become_file(char* const* arguments) {
    const char* const path = arguments[0];
    become_warm(base_name(path), path, arguments + 1);
    count_use(base_name(path), false);
    return report_failure(path, true, execute(path, arguments + 1, environ));
}

}  // namespace

int main(int count, char** argv) {
    warmfork::hold_standard_numbers();
    const char* const name = called_name(argv);
    const bool is_own_name = std::strcmp(name, "warmfork-exec") == 0;
    if (is_own_name && count > 2 && argv[1][0] == '/') return become_file(argv + 1);
    return become_real(name, argv);
}
