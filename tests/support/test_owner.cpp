// An owner for the tests to kill. Spawns one child of warmfork-probe for each of its words, and
// then prints a line: the template's pid and the children's. Waits until it is killed, or does as
// its first word says: exec (replaces itself), thread (opens and spawns from a thread that ends),
// cold, wait-fork (leaves a forked worker with all its descriptors behind).
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <string_view>
#include <thread>

#include "warmfork.hpp"

namespace {

std::vector<int> spawn_all(warmfork::Template& table, const std::vector<std::string>& words,
                           bool cold) {
    std::vector<int> pids;
    for (const std::string& word : words) {
        const bool detached = word == "detached";
        const std::vector<std::string> command{WARMFORK_PROBE, detached ? "wait" : word};
        const auto arguments = warmfork::detail::pointers(command);
        warmfork_request request;
        warmfork_request_init(&request);
        request.arguments = arguments.data();
        if (detached) request.flags |= WARMFORK_DETACHED;
        if (cold) request.backend = WARMFORK_BACKEND_COLD;
        const warmfork_descriptor null{-1, 1};  // the probes' own output is not wanted
        request.descriptors = &null;
        request.descriptor_count = 1;
        pids.push_back(table.spawn(request).pid());
    }
    return pids;
}

void print(const std::vector<int>& pids) {
    for (int pid : pids) std::printf("%d ", pid);
    std::printf("\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const std::string mode = words.empty() ? "" : words.front();
    words.erase(words.begin());
    warmfork::Template* table = nullptr;  // never closed: the process is killed
    const auto run = [&] {
        table = new warmfork::Template(warmfork::Template::native({WARMFORK_PROBE, "serve"}));
        const std::vector<int> children = spawn_all(*table, words, mode == "cold");
        table->wait_parked(1);
        std::vector<int> pids{warmfork_template_pid(table->handle())};
        pids.insert(pids.end(), children.begin(), children.end());
        print(pids);
    };
    if (mode == "thread")
        std::thread(run).join();
    else
        run();
    if (mode == "close") {
        std::getchar();  // not before whoever watches the template has got hold of it
        delete table;
        print({});
    }
    if (mode == "worker" && ::fork() == 0) {
        ::setsid();
        print({::getpid()});
    }
    if (mode == "exec") {
        std::getchar();
        ::execl("/bin/sleep", "sleep", "1000", nullptr);
    }
    while (true) ::pause();
}
