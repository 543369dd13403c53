// The one place that knows which Catch2 this is. The file with `main` defines WARMFORK_TEST_MAIN
// first.
#pragma once

#if __has_include(<catch2/catch_test_macros.hpp>)

#include <catch2/catch_test_macros.hpp>
#ifdef WARMFORK_TEST_MAIN
#include <catch2/catch_session.hpp>
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
using TestListener = Catch::EventListenerBase;
inline const std::string& name_of_test(const Catch::TestCaseStats& stats) {
    return stats.testInfo->name;
}
#endif

#else

#ifdef WARMFORK_TEST_MAIN
#define CATCH_CONFIG_RUNNER
#endif
#include <catch2/catch.hpp>
#ifdef WARMFORK_TEST_MAIN
using TestListener = Catch::TestEventListenerBase;
inline const std::string& name_of_test(const Catch::TestCaseStats& stats) {
    return stats.testInfo.name;
}
#endif

#endif
