// Calls beside the loop.
#include "service/background_calls.hpp"

#include <vector>

#include "support/catch.hpp"

using namespace warmfork::service;

TEST_CASE("calls are made in order, and what comes then runs in the loop", "[background]") {
    EventLoop loop;
    BackgroundCalls calls(loop);
    std::vector<int> called, then;
    const std::thread::id self = std::this_thread::get_id();
    for (int number = 0; number < 100; ++number)
        calls.add([&called, number] { called.push_back(number); },
                  [&, number] {
                      if (std::this_thread::get_id() == self) then.push_back(number);
                      if (number == 99) loop.leave(0);
                  });
    REQUIRE(loop.run() == 0);
    REQUIRE(called.size() == 100);
    CHECK(called == then);
}

TEST_CASE("finish waits for calls that are added meanwhile", "[background]") {
    EventLoop loop;
    BackgroundCalls calls(loop);
    bool is_second_done = false;
    calls.add([] {}, [&] { calls.add([] {}, [&] { is_second_done = true; }); });
    calls.finish();
    CHECK(is_second_done);
}

TEST_CASE("calls that wait are made before they are given up", "[background]") {
    EventLoop loop;
    int made = 0;
    {
        BackgroundCalls calls(loop);
        for (int number = 0; number < 10; ++number) calls.add([&made] { ++made; }, {});
    }
    CHECK(made == 10);
}
