// The daemon and its templates, by what clients get of it.
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "service/requests.hpp"
#include "support/catch.hpp"
#include "support/service.hpp"

using namespace warmfork;
using Settings = TestService::Settings;

TEST_CASE("A client spawns from a template by its name and gets the exact status") {
    TestService service;
    REQUIRE(service.is_ready());
    CHECK(spawns_in(service) == 7);
    CHECK(as_client(service, [] {
              Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
              return WTERMSIG(table.spawn({WARMFORK_PROBE, "raise", "10"}).wait());
          }) == 10);
}

TEST_CASE("The children of a client end with it, unless they are detached") {
    TestService service;
    ClientProcess client(service, [] {
        Template table = Template::connect("probe", WARMFORK_BACKEND_WARM);
        Process child = table.spawn({WARMFORK_PROBE, "wait"});
        ProbeRequest request({"wait"});
        request.request.flags |= WARMFORK_DETACHED;
        Process detached = table.spawn(request.get());
        say(fmt::format("{}", child.pid()));
        say(fmt::format("{}", detached.pid()));
        await_cue();
        return 0;
    });
    const pid_t child = std::stoi(client.next_line()), detached = std::stoi(client.next_line());
    const Descriptor ends = open_pidfd(child), stays = open_pidfd(detached);
    client.kill();
    CHECK(has_ended(ends));
    CHECK(is_running(detached));
    signal_pidfd(stays.get(), SIGKILL);
}

TEST_CASE("What ignores SIGTERM ends with its client all the same") {
    TestService service;
    ClientProcess client(service, hold_stubborn_child);
    const Descriptor pidfd = open_pidfd(std::stoi(client.next_line()));
    client.kill();
    CHECK(has_ended(pidfd));
}

TEST_CASE("A bad file of the configuration shows in the status and in the refusal") {
    Settings settings;
    settings.templates["bad"] = "preloads = [\"json\"]\n";
    TestService service(std::move(settings));
    CHECK(service.log().find("bad.toml:1") != std::string::npos);
    RawClient client(service.socket());
    CHECK(service.has_said("errors in the configuration"));
    client.send(ServiceKind::find, 5, FieldWriter().text("bad").bytes());
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(refused.id == 5);
    CHECK(error_of(refused) == ENOENT);
    CHECK(text_of_refusal(refused).find("preload") != std::string::npos);
    CHECK(spawns_in(service) == 7);
}

TEST_CASE("A client may signal its own children only") {
    if (::geteuid() != 0) return;
    TestService service;
    RawClient one(service.socket()), other(service.socket());
    const ServiceMessage leased = lease_one(one);
    REQUIRE(leased.kind == ServiceKind::leased);
    other.send(ServiceKind::signal, read_leased_child(leased.body)->child,
               FieldWriter().number(SIGKILL).bytes());
    // Answered in order: so the signal has been dealt with.
    ServiceMessage found;
    other.send(ServiceKind::find, 2, FieldWriter().text("probe").bytes());
    REQUIRE(other.receive(ServiceKind::found, found) == 0);
    CHECK(is_running(pid_of(leased)));
}

TEST_CASE("A template whose program is not there is refused with that") {
    Settings settings;
    settings.templates["lost"] = "program = [\"/no/such/program\"]\n";
    TestService service(std::move(settings));
    RawClient client(service.socket());
    client.send(ServiceKind::find, 5, FieldWriter().text("lost").bytes());
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(text_of_refusal(refused).find("/no/such/program") != std::string::npos);
}

TEST_CASE("A template that does not start fails its spawns at once with its last lines") {
    Settings settings;
    settings.templates["sick"] = probe_definition("", {"die"});
    TestService service(std::move(settings));
    RawClient client(service.socket());
    for (std::uint64_t request = 1; request <= 50; ++request) {
        const ServiceMessage refused = lease_one(client, request, "sick");
        REQUIRE(refused.kind == ServiceKind::refused);
        REQUIRE(text_of_refusal(refused).find("no table today") != std::string::npos);
    }
    // It has been started once, or a few times if this took seconds; not with each.
    const std::string log = service.log();
    int starts = 0;
    for (std::size_t at = log.find("no table today"); at != std::string::npos;
         at = log.find("no table today", at + 1))
        ++starts;
    CHECK(starts < 5);
    client.send(ServiceKind::manage, 60, FieldWriter().text("list").text("").bytes());
    ServiceMessage list;
    REQUIRE(client.receive(ServiceKind::managed, list) == 0);
    const auto json = nlohmann::json::parse(FieldReader(list.body).text());
    for (const auto& entry : json.at("templates"))
        if (entry.at("name") == "sick") CHECK(entry.at("state") == "failing");
    CHECK(spawns_in(service) == 7);
}

TEST_CASE(
    "Who waits for a template that is stopped is told, and one that is reloaded serves them") {
    Settings settings;
    settings.templates["slow"] = probe_definition("", {"hang"});
    TestService service(std::move(settings));
    RawClient client(service.socket());
    const auto manage = [&](std::uint64_t id, const char* verb, const char* name) {
        client.send(ServiceKind::manage, id, FieldWriter().text(verb).text(name).bytes());
    };
    client.send(ServiceKind::lease, 1, lease_body(1, kLeaseMayWait, "slow"));
    manage(2, "stop", "slow");
    ServiceMessage refused;
    REQUIRE(client.receive(ServiceKind::refused, refused) == 0);
    CHECK(refused.id == 1);
    CHECK(error_of(refused) == ESHUTDOWN);
    client.send(ServiceKind::lease, 3, lease_body());
    manage(4, "reload", "probe");
    ServiceMessage leased;
    REQUIRE(client.receive(ServiceKind::leased, leased) == 0);
    CHECK(leased.id == 3);
}

TEST_CASE("What a client asks behind a reload is answered by the service as it is then") {
    TestService service;
    RawClient client(service.socket());
    service.files().write("config/templates.d/new.toml", probe_definition());
    ::kill(service.pid(), SIGSTOP);  // so that it finds both at once
    client.send(ServiceKind::manage, 1, FieldWriter().text("reload").text("").bytes());
    client.send(ServiceKind::manage, 2, FieldWriter().text("list").text("").bytes());
    ::kill(service.pid(), SIGCONT);
    ServiceMessage answer;
    do REQUIRE(client.receive(ServiceKind::managed, answer) == 0);
    while (answer.id != 2);
    CHECK(FieldReader(answer.body).text().find("\"new\"") != std::string::npos);
}

TEST_CASE("A template that nobody uses ends, and starts again for the next") {
    Settings settings;
    settings.templates["probe"] = probe_definition("idle_timeout = \"100ms\"\n");
    TestService service(std::move(settings));
    CHECK(spawns_in(service) == 7);
    CHECK(service.has_logged("nobody has spawned from this template"));
    for (int tries = 0; tries < 2000 && !children_of(service.pid()).empty(); ++tries)
        ::poll(nullptr, 0, 5);
    CHECK(children_of(service.pid()).empty());
    CHECK(spawns_in(service) == 7);
}
