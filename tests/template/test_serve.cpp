// What the gate and the template runtime do, seen from an owner.
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "support/catch.hpp"
#include "support/processes.hpp"

using warmfork::Error;
using Json = nlohmann::json;

namespace {

warmfork_stage stage_of_failure(const std::vector<std::string>& options, std::string& ret_text) {
    warmfork::Template table = probe_template(1, options);
    try {
        output_of(table, {"exit", "0"});
    } catch (const Error& error) {
        ret_text = error.what();
        return error.stage();
    }
    return WARMFORK_STAGE_NONE;
}

/// How much memory the files hold that the templates of this process print to, in bytes.
long output_size() {
    long size = 0;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
        struct stat status;
        const std::string target = std::filesystem::read_symlink(entry.path(), error).string();
        if (target.find("warmfork-template-output") != std::string::npos &&
            ::stat(entry.path().c_str(), &status) == 0)
            size += status.st_blocks * 512;
    }
    return size;
}

}  // namespace

TEST_CASE("What hooks print at each fork does not fill the memory") {
    warmfork::Template table = probe_template(0, {"chatty"});
    for (int i = 0; i < 8; ++i) CHECK(output_of(table, {"exit", "0"}).empty());
    table.wait_parked(0);  // it is behind the last fork
    CHECK(output_size() > 0);
    CHECK(output_size() < 1 << 20);
}

TEST_CASE("The gate refuses a thread and names it") {
    std::string text;
    CHECK(stage_of_failure({"thread"}, text) == WARMFORK_STAGE_GATE);
    CHECK(text.find("busybody") != std::string::npos);
}

TEST_CASE("The gate refuses a connected socket") {
    std::string text;
    CHECK(stage_of_failure({"socket"}, text) == WARMFORK_STAGE_GATE);
    CHECK(text.find("socket:") != std::string::npos);
}

TEST_CASE("The gate refuses a device") {
    std::string text;
    const warmfork_stage stage = stage_of_failure({"device"}, text);
    if (text.find("status 77") != std::string::npos) return;  // a container without
    CHECK(stage == WARMFORK_STAGE_GATE);
    CHECK(text.find("ptmx") != std::string::npos);
}

TEST_CASE("The gate refuses io_uring") {
    std::string text;
    const warmfork_stage stage = stage_of_failure({"ring"}, text);
    const bool is_forbidden_here = text.find("status 77") != std::string::npos;
    CHECK((stage == WARMFORK_STAGE_GATE || is_forbidden_here));
}

TEST_CASE(
    "Under auto a template that cannot fork is cold with the reason, and is not started again") {
    warmfork::Template table = probe_template(1, {"thread"}, WARMFORK_BACKEND_AUTO);
    for (int i = 0; i < 3; ++i) {
        ProbeRequest request({"exit", "5"});
        warmfork::Process child = table.spawn(request.get());
        CHECK(WEXITSTATUS(child.wait()) == 5);
        CHECK(child.backend() == WARMFORK_BACKEND_COLD);
        CHECK(child.reason() == WARMFORK_REASON_GATE);
        CHECK(child.reason_text().find("busybody") != std::string::npos);
    }
    CHECK(table.counts().template_starts == 1);
}

TEST_CASE("A template that ends while it preloads fails the spawn with its last lines") {
    std::string text;
    CHECK(stage_of_failure({"die"}, text) == WARMFORK_STAGE_LAUNCH);
    CHECK(text.find("status 3") != std::string::npos);
    CHECK(text.find("no table today") != std::string::npos);
}

TEST_CASE("What a template printed while it preloaded is not printed again by its children") {
    warmfork::Template table = probe_template(1, {"noisy"});
    for (int i = 0; i < 3; ++i) CHECK(output_of(table, {"exit", "0"}).empty());
}

TEST_CASE("Exit handlers of the image do not run in its children") {
    warmfork::Template table = probe_template(1, {"exit-handler"});
    CHECK(output_of(table, {"exit", "0"}).empty());
}

TEST_CASE("Recorded fork handlers run around each clone, once in each child") {
    warmfork::Template table = probe_template(1, {"atfork"});
    for (int i = 0; i < 3; ++i) CHECK(output_of(table, {"fork-handlers"}) == "1 1\n");
}

TEST_CASE("Fork handlers of a library that was unloaded are not run") {
    warmfork::Template table = probe_template(1, {"unload"});
    int status = 0;
    output_of(table, {"exit", "3"}, &status);
    CHECK(WEXITSTATUS(status) == 3);
}

#ifndef __SANITIZE_ADDRESS__  // which does not let RTLD_DEEPBIND pass
TEST_CASE("The gate refuses a library whose fork handlers escape the recorder, and names it") {
    std::string text;
    CHECK(stage_of_failure({"deepbind"}, text) == WARMFORK_STAGE_GATE);
    CHECK(text.find("test-atfork") != std::string::npos);
}
#endif

TEST_CASE("Nothing of the template's own state shows in its children") {
    warmfork::Template plain = probe_template(1);
    warmfork::Template changed = probe_template(1, {"change-state"});
    const Json expected = Json::parse(output_of(plain, {"view"}));
    const Json seen = Json::parse(output_of(changed, {"view"}));
    CHECK(expected == seen);
}

TEST_CASE(
    "Descriptors that preloading opened are kept, and their numbers are not given away warm") {
    warmfork::Template table = probe_template(1, {"leave-file"}, WARMFORK_BACKEND_AUTO);
    int left = -1;
    // One is cold where too many descriptors of this user are under way, in whatever programs.
    for (int tries = 0; left < 0 && tries < 100; ++tries) {
        const Json view = Json::parse(output_of(table, {"view"}));
        for (const Json& entry : view["descriptors"])
            if (entry[0] > 2) left = entry[0];
    }
    REQUIRE(left > 2);
    ProbeRequest request({"view"});
    request.descriptors.push_back({0, left});
    warmfork::Process child = table.spawn(request.get());
    child.wait();
    CHECK(child.reason() == WARMFORK_REASON_DESCRIPTORS);
}

TEST_CASE("Recursive mutexes and the thread id are right in a child") {
    warmfork::Template table = probe_template(0);
    CHECK(Json::parse(output_of(table, {"view"}))["tid is pid"] == true);
}
