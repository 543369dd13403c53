#define WARMFORK_TEST_MAIN
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

}  // namespace

CATCH_REGISTER_LISTENER(LeakListener)

int main(int argc, char** argv) {
    const int failures = Catch::Session().run(argc, argv);
    return failures ? failures : LeakGuard::failures();
}
