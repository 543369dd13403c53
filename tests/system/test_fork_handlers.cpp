// Libraries whose fork handlers hold locks, or do not return.
#include <signal.h>
#include <sys/wait.h>

#include "support/catch.hpp"
#include "support/processes.hpp"

namespace {

/// Preloaded by what this process starts.
class PreloadedLibrary {
  public:
    explicit PreloadedLibrary(const char* path) { ::setenv("LD_PRELOAD", path, 1); }
    ~PreloadedLibrary() { ::unsetenv("LD_PRELOAD"); }
};

#ifndef __SANITIZE_ADDRESS__  // its malloc is another one

TEST_CASE("Nothing allocates while a fork handler holds the lock of malloc") {
    const PreloadedLibrary library(TEST_LOCKED_MALLOC_LIBRARY);
    int status = 0;
    SECTION("in forks on command and of spares") {
        for (int spares : {0, 2}) {
            warmfork::Template table = probe_template(spares, {"leave-file"});
            for (int i = 0; i < 4; ++i) {
                output_of(table, {"exit", "5"}, &status);
                CHECK(WEXITSTATUS(status) == 5);
            }
        }
    }
    SECTION("when it finds something in the way") {
        warmfork::Template table = probe_template(0, {"thread", "socket"}, WARMFORK_BACKEND_AUTO);
        warmfork::Process process = table.spawn({WARMFORK_PROBE, "exit", "0"});
        CHECK(process.wait() == 0);
        CHECK(process.reason() == WARMFORK_REASON_GATE);
    }
    SECTION("in a twin that becomes a template") {
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_WARM, true);
        output_of(table, {"nest", "2"}, &status);
        CHECK(status == 0);
    }
}

#endif

}  // namespace
