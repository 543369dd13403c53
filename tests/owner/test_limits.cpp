// A limit that only warmfork has is a reason to be cold, and cold children are not bound by it.
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>

#include <functional>
#include <optional>
#include <thread>

#include "support/catch.hpp"
#include "support/processes.hpp"

namespace {

void set_limit(__rlimit_resource resource, rlim_t soft) {
    rlimit limit{};
    ::getrlimit(resource, &limit);
    limit.rlim_cur = soft;
    REQUIRE(::setrlimit(resource, &limit) == 0);
}

/// How a child that exits with 0 is served in an owner with that limit: the name of the reason, or
/// what went wrong.
std::string served_with(__rlimit_resource resource, rlim_t soft, ProbeRequest& request) {
    return in_an_owner([&]() -> std::string {
        set_limit(resource, soft);
        warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
        warmfork::Process child = table.spawn(request.get());
        return child.wait() == 0 ? warmfork_reason_name(child.reason()) : "failed";
    });
}

}  // namespace

TEST_CASE("More descriptors than a message carries reach a cold child", "[numbers]") {
    warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
    const warmfork::Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    ProbeRequest request({"count-descriptors"});
    for (int target = 3; target < 403; ++target)
        request.descriptors.push_back({null.get(), target});
    CHECK(output_of(table, request) == "403");
    CHECK(table.counts().cold_by_reason[WARMFORK_REASON_LIMITS] == 1);
}

TEST_CASE("Arguments of more than a record holds reach a cold child, where the kernel takes them") {
    const std::string piece(100'000, 'x');
    ProbeRequest request({"exit", "0"});
    request.pointers.insert(request.pointers.end() - 1, 40, piece.c_str());
    request.request.arguments = request.pointers.data();
    CHECK(served_with(RLIMIT_STACK, 64u << 20, request) == "limits");
}

TEST_CASE("What the kernel does not take at exec is the same error warm and cold") {
    const std::string piece(100'000, 'x');
    for (warmfork_backend backend : {WARMFORK_BACKEND_AUTO, WARMFORK_BACKEND_COLD}) {
        ProbeRequest request({"exit", "0"});
        request.request.backend = backend;
        request.pointers.insert(request.pointers.end() - 1, 5, piece.c_str());
        request.request.arguments = request.pointers.data();
        CHECK(in_an_owner([&]() -> std::string {
                  set_limit(RLIMIT_STACK, 1u << 20);  // a quarter is for arguments
                  warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
                  try {
                      table.spawn(request.get()).wait();
                  } catch (const warmfork::Error& error) {
                      const bool is_right =
                          error.stage() == WARMFORK_STAGE_EXEC && error.error_number() == E2BIG;
                      return is_right ? "" : error.what();
                  }
                  return "no error";
              }) == "");
    }
}

TEST_CASE("A limit on the size of files keeps a template from starting, and nothing else") {
    ProbeRequest request({"exit", "0"});
    CHECK(served_with(RLIMIT_FSIZE, 100u << 10, request) == "limits");
    CHECK(served_with(RLIMIT_FSIZE, 1u << 20, request) == "none");
}

TEST_CASE("With few descriptors to be had children are cold") {
    ProbeRequest request({"exit", "0"});
    for (rlim_t limit : {10, 12, 14, 16, 18, 20, 24, 28, 32}) {
        const std::string served = served_with(RLIMIT_NOFILE, limit, request);
        CAPTURE(limit, served);
        CHECK((served == "limits" || (served == "none" && limit > 16)));
    }
}

TEST_CASE(
    "With a limit of 64 files two templates have parked children, and more say why they have "
    "none") {
    CHECK(in_an_owner([]() -> std::string {
              const rlimit few{64, 64};
              ::setrlimit(RLIMIT_NOFILE, &few);
              std::vector<warmfork::Template> tables;
              try {
                  for (int i = 0; i < 8; ++i) {
                      tables.push_back(probe_template(1));
                      tables.back().wait_parked(1);
                  }
                  return "there is room for all";
              } catch (const warmfork::Error& error) {
                  if (tables.size() < 2) return "not two";
                  return error.error_number() == EMFILE ? "" : error.what();
              }
          }) == "");
}

TEST_CASE("A descriptor above a limit that was lowered later is inherited, by a cold child",
          "[numbers]") {
    CHECK(in_an_owner([]() -> std::string {
              const int number = ::fcntl(0, F_DUPFD, 200);
              set_limit(RLIMIT_NOFILE, 64);
              warmfork::Template table = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              table.wait_parked(1);
              ProbeRequest request({"exit", "0"});
              request.descriptors.push_back({number, number});
              warmfork::Process child = table.spawn(request.get());
              return child.wait() != 0 ? "failed" : warmfork_reason_name(child.reason());
          }) == "limits");
}

TEST_CASE("Where too many descriptors are in flight children are cold until there are fewer") {
    if (::geteuid() != 0) return;
    CHECK(in_an_owner([]() -> std::string {
              // Of a user whose descriptors nobody else has in flight, and whom the limit binds.
              if (::setuid(2'000'000'013) < 0 || ::access(WARMFORK_PROBE, X_OK) < 0) return "";
              set_limit(RLIMIT_NOFILE, 64);
              ProbeRequest request({"exit", "0"});
              std::string served;
              const auto serve = [&](warmfork::Template& table) {
                  warmfork::Process child = table.spawn(request.get());
                  served += child.wait() != 0 ? "failed" : warmfork_reason_name(child.reason());
                  served +=
                      child.reason_text().find("descriptor 0") == std::string::npos ? ' ' : '!';
              };
              warmfork::Template parking = probe_template(1, {}, WARMFORK_BACKEND_AUTO);
              warmfork::Template forking = probe_template(0, {}, WARMFORK_BACKEND_AUTO);
              parking.wait_parked(1);
              std::optional<InFlight> in_flight(65);
              serve(parking);
              serve(forking);
              in_flight.reset();
              serve(parking);
              serve(forking);
              return served == "limits limits none none " ? "" : served;
          }) == "");
}

TEST_CASE("Who waits for a template, or wants no other child, waits for descriptors in flight") {
    if (::geteuid() != 0) return;
    for (const bool is_ready : {false, true}) {
        CAPTURE(is_ready);
        CHECK(in_an_owner([&]() -> std::string {
                  if (::setuid(2'000'000'014) < 0 || ::access(WARMFORK_PROBE, X_OK) < 0) return "";
                  set_limit(RLIMIT_NOFILE, 64);
                  std::optional<warmfork::Template> table;
                  if (is_ready) {
                      table = probe_template(1);
                      table->wait_parked(1);
                  }
                  std::optional<InFlight> in_flight(65);
                  std::thread receiver([&] {
                      // For them to be met: else this test tells nothing, and passes.
                      for (int round = 0; round < 20; ++round) ::poll(nullptr, 0, 1);
                      in_flight.reset();
                  });
                  ProbeRequest request({"exit", "0"});
                  std::string wrong;
                  try {
                      if (!is_ready) table = probe_template(1);
                      if (table->spawn(request.get()).wait() != 0) wrong = "failed";
                  } catch (const std::exception& error) {
                      wrong = error.what();
                  }
                  receiver.join();
                  return wrong;
              }) == "");
    }
}

TEST_CASE("Where few numbers are free the child is cold, and not an error", "[numbers]") {
    CHECK(in_an_owner([]() -> std::string {
              set_limit(RLIMIT_NOFILE, 256);
              warmfork::Template table = probe_template(0, {}, WARMFORK_BACKEND_AUTO);
              table.wait_ready();
              ProbeRequest request({"exit", "0"});
              // From then on there is a keeper.
              request.request.backend = WARMFORK_BACKEND_COLD;
              if (table.spawn(request.get()).wait() != 0) return "failed cold";
              request.request.backend = WARMFORK_BACKEND_AUTO;
              if (table.spawn(request.get()).wait() != 0) return "failed warm";
              std::vector<warmfork::Descriptor> taken;
              while (warmfork::Descriptor one{::open("/dev/null", O_RDWR | O_CLOEXEC)})
                  taken.push_back(std::move(one));
              std::string reasons;
              for (int free = 1; free < 9; ++free) {
                  taken.pop_back();  // one is for the wait
                  warmfork::Process child = table.spawn(request.get());
                  if (child.wait() != 0) return "failed";
                  reasons += child.reason() == WARMFORK_REASON_LIMITS ? 'c' : 'w';
              }
              return reasons.starts_with('c') && reasons.ends_with('w') ? "" : reasons;
          }) == "");
}
