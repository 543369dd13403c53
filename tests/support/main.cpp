#define WARMFORK_TEST_MAIN
#include <sys/resource.h>

#include <algorithm>

#include "support/catch.hpp"
#include "support/leak_guard.hpp"

namespace {

/// Looks after every test: what it leaves open is an error of its own.
class LeakListener : public TestListener {
  public:
    using TestListener::TestListener;
    void testCaseStarting(Catch::TestCaseInfo const&) override { guard_.start(); }
    void testCaseEnded(Catch::TestCaseStats const& stats) override {
        guard_.finish(name_of_test(stats));
    }

  private:
    LeakGuard guard_;
};

/// A thousand spares, or hundreds of spawns at once, take more files than the 1024 that sessions
/// and units are given to begin with.
void raise_limit_on_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
    limit.rlim_cur = std::max(limit.rlim_cur, std::min<rlim_t>(limit.rlim_max, 8192));
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

CATCH_REGISTER_LISTENER(LeakListener)

int main(int argc, char** argv) {
    raise_limit_on_files();
    const int failures = Catch::Session().run(argc, argv);
    return failures ? failures : LeakGuard::failures();
}
