// The program that the tests spawn. `probe serve [OPTION…]` is a template; the same words as a
// child's command line, warm or cold:
//
//   view             prints what the process sees of itself, as JSON
//   exit N           ends with status N
//   raise N          ends by signal N
//   wait             sleeps until a signal ends it; `stubborn`: ignores SIGTERM
//   payload          prints the payload
//   cgroup           prints which cgroups it is in, as it was when it began
//   count-descriptors
//   search N         prints how often the text of `secret` for N lies in its writable memory
//   search-below N   has a child of its own template do so, without the variable SECRET
//   fork-handlers    prints how often the prepare and child handlers of `atfork` have run
//   nest N           prints who it is, its parent and who has made its image; with N > 0, opens its
//   own
//                    template and spawns nest N-1 from it
//   own              opens its own template, spawns a child that waits, has another parked, prints
//   the
//                    pids of the template and the child and sleeps
//   wait-for-any     prints what a wait for any child says: its errno
//   exec             becomes another program
//   cue WORD…        reads a line first
//   mark TEXT WORD…  first prints the text, a colon, and how many descriptors are open
//
// Options of serve are the words of `misbehave`.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "warmfork.hpp"

/// In the sanitizer build: no signal handlers of the sanitizer's own, which a child would show.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
    return "detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:use_sigaltstack=0";
}

namespace {

using Json = nlohmann::json;

std::string file_text(const char* path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

Json open_descriptors() {
    std::vector<std::pair<int, int>> found;  // number, close-on-exec
    for (int number = 0; number < 4096; ++number)
        if (const int flags = ::fcntl(number, F_GETFD); flags >= 0)
            found.emplace_back(number, flags);
    return found;
}

Json dispositions() {
    Json found = Json::object();
    for (int signal = 1; signal <= 64; ++signal) {
        struct sigaction action;
        if (::sigaction(signal, nullptr, &action) < 0 || action.sa_handler == SIG_DFL) continue;
        found[std::to_string(signal)] = action.sa_handler == SIG_IGN ? "ignored" : "handled";
    }
    return found;
}

Json limits() {
    Json found;
    for (int resource = 0; resource < 16; ++resource) {
        rlimit limit{};
        ::getrlimit(static_cast<__rlimit_resource>(resource), &limit);
        found.push_back({limit.rlim_cur, limit.rlim_max});
    }
    return found;
}

Json view(int argc, char** argv) {
    sigset_t mask;
    ::sigprocmask(SIG_BLOCK, nullptr, &mask);
    Json blocked = Json::array();
    for (int signal = 1; signal <= 64; ++signal)
        if (::sigismember(&mask, signal) == 1) blocked.push_back(signal);
    Json environment = Json::array();
    for (char** variable = environ; *variable; ++variable) environment.push_back(*variable);
    const mode_t file_mode_mask = ::umask(0);
    stack_t alternate{};
    ::sigaltstack(nullptr, &alternate);
    cpu_set_t processors;
    ::sched_getaffinity(0, sizeof processors, &processors);
    int parent_death_signal = 0;
    ::prctl(PR_GET_PDEATHSIG, &parent_death_signal);
    return {{"arguments", std::vector<std::string>(argv, argv + argc)},
            {"environment", environment},
            {"cmdline", file_text("/proc/self/cmdline")},
            {"environ", file_text("/proc/self/environ")},
            {"comm", file_text("/proc/self/comm")},
            {"directory", std::filesystem::current_path().string()},
            {"descriptors", open_descriptors()},
            {"blocked", blocked},
            {"dispositions", dispositions()},
            {"limits", limits()},
            {"umask", file_mode_mask},
            {"nice", ::getpriority(PRIO_PROCESS, 0)},
            {"processors", CPU_COUNT(&processors)},
            {"parent", ::getppid()},
            {"tid is pid", ::gettid() == ::getpid()},
            {"session", ::getsid(0) == ::getpid() ? -1 : ::getsid(0)},
            {"group", ::getpgrp() == ::getpid() ? -1 : ::getpgrp()},
            {"alternate stack", alternate.ss_flags},
            {"oom_score_adj", file_text("/proc/self/oom_score_adj")},
            {"no_new_privs", ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)},
            {"parent death signal", parent_death_signal},
            {"is_leaked", std::getenv("LD_PRELOAD") || std::getenv("WARMFORK_CHANNEL")}};
}

int prepare_runs = 0, child_runs = 0, forks_before_block = 0;

pid_t image_maker = 0;                      ///< who has run main
std::vector<std::string> template_command;  ///< and with which arguments

warmfork::Template open_own_template() {
    const auto program = warmfork::detail::pointers(template_command);
    warmfork_template_options options;
    warmfork_template_options_init(&options);
    options.program = program.data();
    options.backend = WARMFORK_BACKEND_WARM;
    options.spares = 1;
    options.nested = 1;
    return warmfork::Template(options);
}

int nest(int depth) {
    std::printf("%d %d %d\n", ::getpid(), ::getppid(), image_maker);
    std::fflush(stdout);
    if (depth == 0) return 0;
    warmfork::Template table = open_own_template();
    return WEXITSTATUS(
        table.spawn({template_command[0], "nest", std::to_string(depth - 1)}).wait());
}

[[noreturn]] void own() {
    warmfork::Template table = open_own_template();
    const char* const arguments[] = {template_command[0].c_str(), "wait", nullptr};
    const warmfork_descriptor silence{-1, 1};
    warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments;
    request.descriptors = &silence;
    request.descriptor_count = 1;
    warmfork::Process child = table.spawn(request);
    table.wait_parked(1);
    std::printf("%d %d\n", warmfork_template_pid(table.handle()), child.pid());
    std::fflush(stdout);
    while (true) ::pause();
}

/// How often the text that test_siblings.cpp has for `seed` lies in this process's writable memory.
/// Compared letter by letter, so that looking for it does not put it there.
int count_secrets(int seed) {
    constexpr int kSize = 32;
    std::ifstream maps("/proc/self/maps");
    std::ifstream memory("/proc/self/mem", std::ios::binary);
    int found = 0;
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin = 0, end = 0;
        char permissions[5] = {};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, permissions) != 3 ||
            std::string_view(permissions) != "rw-p")
            continue;
        for (unsigned long at = begin; at < end; at += 4096) {
            char page[4096 + kSize] = {};
            memory.clear();
            memory.seekg(static_cast<std::streamoff>(at));
            memory.read(page, static_cast<std::streamsize>(std::min(end - at, sizeof page)));
            for (int start = 0; start < 4096; ++start) {
                int same = 0;
                while (same < kSize && page[start + same] == 'a' + (same * 7 + seed) % 26) ++same;
                found += same == kSize;
            }
        }
    }
    return found;
}

int search_below(const char* seed) {
    warmfork::Template table = open_own_template();
    const char* const arguments[] = {template_command[0].c_str(), "search", seed, nullptr};
    const char* const changes[] = {"SECRET", nullptr};
    warmfork_request request;
    warmfork_request_init(&request);
    request.arguments = arguments;
    request.environment_changes = changes;
    return WEXITSTATUS(table.spawn(request).wait());
}

int act(int argc, char** argv, std::string_view payload) {
    const std::string_view word = argc > 1 ? argv[1] : "";
    if (word == "view") {
        std::printf("%s\n", view(argc, argv).dump(1).c_str());
    } else if (word == "exit") {
        return std::atoi(argv[2]);
    } else if (word == "raise") {
        ::raise(std::atoi(argv[2]));
    } else if (word == "fork-handlers") {
        std::printf("%d %d\n", prepare_runs > 0, child_runs);
    } else if (word == "payload") {
        std::printf("%.*s", static_cast<int>(payload.size()), payload.data());
    } else if (word == "cgroup") {
        std::printf("%s", file_text("/proc/self/cgroup").c_str());
    } else if (word == "count-descriptors") {
        std::printf("%zu", open_descriptors().size());
    } else if (word == "search") {
        std::printf("%d", count_secrets(std::atoi(argv[2])));
    } else if (word == "search-below") {
        return search_below(argv[2]);
    } else if (word == "nest") {
        return nest(std::atoi(argv[2]));
    } else if (word == "own") {
        own();
    } else if (word == "wait-for-any") {
        const bool has_none = ::waitpid(-1, nullptr, WNOHANG) < 0;
        std::printf("%d\n", has_none ? errno : 0);
    } else if (word == "exec") {
        ::execl("/bin/sleep", "sleep", "1000", nullptr);
    } else if (word == "cue") {
        std::getchar();
        return act(argc - 1, argv + 1, payload);
    } else if (word == "mark") {
        std::printf("%s:%zu\n", argv[2], open_descriptors().size());
        std::fflush(stdout);
        return act(argc - 2, argv + 2, payload);
    } else if (word == "wait" || word == "stubborn") {
        if (word == "stubborn") ::signal(SIGTERM, SIG_IGN);
        std::printf("%d\n", ::getpid());
        std::fflush(stdout);
        while (true) ::pause();
    } else {
        return 64;
    }
    return 0;
}

void* sleep_for_ever(void*) {
    while (true) ::pause();
}

bool closes_when_it_blocks = false;

/// What does not return, a fork handler or the template itself.
void block() {
    if (closes_when_it_blocks) ::close_range(3, ~0u, 0);
    ::prctl(PR_SET_NAME, "blocked");
    sleep_for_ever(nullptr);
}

void handle(int) {
    ::_exit(99);
}

/// What preloading does wrong.
void misbehave(std::string_view option) {
    if (option == "thread") {
        pthread_t thread;
        ::pthread_create(&thread, nullptr, sleep_for_ever, nullptr);
        ::pthread_setname_np(thread, "busybody");
    } else if (option == "socket") {
        int pair[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0) std::abort();
    } else if (option == "ring") {
        char parameters[120] = {};
        if (::syscall(SYS_io_uring_setup, 4, parameters) < 0) std::exit(77);
    } else if (option == "device") {
        if (::open("/dev/ptmx", O_RDWR) < 0) std::exit(77);
    } else if (option == "hang") {
        sleep_for_ever(nullptr);
    } else if (option == "close-when-blocked") {
        closes_when_it_blocks = true;
    } else if (option == "block") {
        block();
    } else if (option == "die") {
        std::fprintf(stderr, "no table today\n");
        std::exit(3);
    } else if (option == "noisy") {
        std::printf("output of the template\n");  // not flushed
    } else if (option == "leave-file") {
        if (::open("/etc/passwd", O_RDONLY) < 0) std::abort();
    } else if (option == "change-state") {
        // A template's own state, which no child may show.
        static char stack[65536];
        stack_t alternate{stack, 0, sizeof stack};
        ::sigaltstack(&alternate, nullptr);
        ::signal(SIGUSR1, handle);
        ::signal(SIGUSR2, SIG_IGN);
        ::umask(0777);
        if (::chdir("/") < 0) std::abort();
        ::setenv("PROBE_TEMPLATE", "1", 1);
    } else if (option == "exit-handler") {
        std::atexit([] { std::printf("exit handler of the image\n"); });
    } else if (option == "unload") {
        // Its handlers are code that is no longer there.
        void* library = ::dlopen(TEST_ATFORK_LIBRARY, RTLD_NOW);
        if (!library || ::dlclose(library) != 0) std::abort();
    } else if (option == "deepbind") {
        if (!::dlopen(TEST_ATFORK_LIBRARY, RTLD_NOW | RTLD_DEEPBIND)) std::abort();
    } else if (option.starts_with("ask:")) {
        // ask:FUNCTION:PATH
        const std::string rest(option.substr(4));
        const std::size_t colon = rest.find(':');
        void* library = ::dlopen(TEST_READING_LIBRARY, RTLD_NOW);
        using Ask = int (*)(const char*, const char*);
        const auto ask =
            library ? reinterpret_cast<Ask>(::dlsym(library, "ask_for_file")) : nullptr;
        if (!ask) std::abort();
        ask(rest.substr(0, colon).c_str(), rest.substr(colon + 1).c_str());
    } else if (option.starts_with("load:")) {
        if (!::dlopen(option.data() + option.find(':') + 1, RTLD_NOW)) std::abort();
    } else if (option == "atfork") {
        ::pthread_atfork([] { ++prepare_runs; }, nullptr, [] { ++child_runs; });
    } else if (option == "chatty") {
        ::pthread_atfork(
            [] {
                static const std::string text(1u << 20, '.');
                if (::write(1, text.data(), text.size()) < 0) std::abort();
            },
            nullptr, nullptr);
    } else if (option.starts_with("block-prepare:")) {
        // From that fork on; the gate's, before the first, counts.
        forks_before_block = std::atoi(option.data() + option.find(':') + 1);
        ::pthread_atfork([] { prepare_runs++ >= forks_before_block ? block() : void(); }, nullptr,
                         nullptr);
    } else if (option == "block-child") {
        ::pthread_atfork(nullptr, nullptr, block);
    } else if (option == "block-twin") {
        // Of all that is forked it alone has a group of its own by then.
        ::pthread_atfork(nullptr, nullptr, [] { ::getpgrp() == ::getpid() ? block() : void(); });
    } else if (option == "die-at-fork") {
        // Both, right after the clone.
        const auto die = [] { ::kill(::getpid(), SIGKILL); };
        ::pthread_atfork(nullptr, die, die);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2 || std::string_view(argv[1]) != "serve") return act(argc, argv, "");
    image_maker = ::getpid();
    template_command.assign(argv, argv + argc);
    for (int i = 2; i < argc; ++i) misbehave(argv[i]);
    warmfork_command command{};
    command.size = sizeof command;
    warmfork_failure failure{};
    switch (warmfork_template_serve(&command, &failure)) {
        case 0:
            return 0;
        case 1:
            std::exit(act(command.argument_count, command.arguments,
                          {static_cast<const char*>(command.payload), command.payload_size}));
        default:
            std::fprintf(stderr, "%s\n", failure.text);
            return 1;
    }
}
