// Nested templates: each child keeps a twin of the template, parked, for what it spawns itself. The
// test process takes orphans over, so that whoever is left behind is its own child in the end, and
// the leak guard's business.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "support/catch.hpp"
#include "support/processes.hpp"

using warmfork::Descriptor;
using Json = nlohmann::json;

namespace {

/// To be declared before everything else in a test: whatever is left behind has to end by itself.
class Adoption {
  public:
    Adoption() { ::prctl(PR_SET_CHILD_SUBREAPER, 1); }
    ~Adoption() {
        bool end = true;
        for (std::vector<int> left; end && !(left = children_of(::getpid())).empty();) {
            const Descriptor pidfd = warmfork::open_pidfd(left.front());
            INFO("child " << left.front() << " (" << name_of(left.front()) << ")");
            CHECK((end = has_ended(pidfd)));
            if (end) ::waitpid(left.front(), nullptr, 0);
        }
        ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    }
};

warmfork::Template nested_template(int spares) {
    return probe_template(spares, {}, WARMFORK_BACKEND_WARM, true);
}

/// A child, watched with all that comes to be below it.
class Child {
  public:
    Child(warmfork::Template& from, std::vector<std::string> words)
        : request_(std::move(words)), process_(nullptr) {
        request_.put_output_on(output_);
        request_.descriptors.push_back({input_.read_end.get(), 0});
        process_ = from.spawn(request_.get());
        output_.write_end.reset();
        input_.read_end.reset();
    }
    pid_t pid() const { return process_.pid(); }
    warmfork::Process& process() { return process_; }
    void cue() { REQUIRE(::write(input_.write_end.get(), "\n", 1) == 1); }
    std::vector<int> read_line() {
        std::string line;
        for (char byte; ::read(output_.read_end.get(), &byte, 1) == 1 && byte != '\n';)
            line += byte;
        std::istringstream stream(line);
        std::vector<int> numbers;
        for (int number; stream >> number;) numbers.push_back(number);
        return numbers;
    }
    void kill() {
        process_.signal(SIGKILL);
        CHECK(process_.wait() == SIGKILL);
    }
    ~Child() {
        int status;
        if (!process_.poll(status)) process_.signal(SIGKILL);
    }

  private:
    Pipe input_, output_;
    ProbeRequest request_;
    warmfork::Process process_;
};

/// Of a child that has no other children; 0: it has none.
int twin_of(pid_t child) {
    const std::vector<int> children = children_of(child);
    return children.empty() ? 0 : children.front();
}

}  // namespace

TEST_CASE("Children of children come from the image of the first template, as their parents' own") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    for (int spares : {1, 0}) {
        warmfork_template_set_spares(table.handle(), spares);
        std::istringstream output(output_of(table, {"nest", "4"}));
        int parent = ::getpid();
        for (int depth = 4; depth >= 0; --depth) {
            int pid = 0, seen_parent = 0, image_maker = 0;
            output >> pid >> seen_parent >> image_maker;
            CHECK(seen_parent == parent);
            CHECK(image_maker == warmfork_template_pid(table.handle()));
            parent = pid;
        }
    }
}

TEST_CASE("No wait of the child sees its parked twin") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    CHECK(output_of(table, {"wait-for-any"}) == std::to_string(ECHILD) + "\n");
}

TEST_CASE("Nothing but a socket at a high number shows in the child of a nested template") {
    const Adoption adoption;
    warmfork::Template plain = probe_template(1);
    warmfork::Template nested = nested_template(1);
    Json expected = Json::parse(output_of(plain, {"view"}));
    Json seen = Json::parse(output_of(nested, {"view"}));
    Json& descriptors = seen["descriptors"];
    REQUIRE(!descriptors.empty());
    CHECK(descriptors.back()[0] > 500);
    CHECK(descriptors.back()[1] == FD_CLOEXEC);
    descriptors.erase(descriptors.size() - 1);
    CHECK(expected == seen);
}

TEST_CASE("A twin ends with its child, however that ends") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    table.wait_parked(1);
    for (const char* how : {"killed", "exits", "becomes another program"}) {
        INFO(how);
        const std::string word = how;
        Child child(table, {"cue",
                            word == "exits"    ? "exit"
                            : word == "killed" ? "wait"
                                               : "exec",
                            "0"});
        const Descriptor twin = warmfork::open_pidfd(twin_of(child.pid()));
        REQUIRE(twin);
        if (word != "killed") child.cue();
        if (word == "exits") child.process().wait();
        if (word == "killed") child.kill();
        CHECK(has_ended(twin));
        if (word == "becomes another program") child.kill();
    }
}

TEST_CASE("The twins of spares end with them") {
    const Adoption adoption;
    for (bool closes : {true, false}) {
        std::vector<Descriptor> twins;
        {
            warmfork::Template table = nested_template(3);
            table.wait_parked(3);
            for (int spare : spares()) twins.push_back(warmfork::open_pidfd(twin_of(spare)));
            REQUIRE(twins.size() == 3);
            if (!closes) {
                warmfork_template_set_spares(table.handle(), 0);
                for (const Descriptor& twin : twins) CHECK(has_ended(twin));
                table.wait_parked(0);
            }
        }
        for (const Descriptor& twin : twins) {
            REQUIRE(twin);
            CHECK(has_ended(twin));
        }
    }
}

TEST_CASE("When the owner is killed the twins of its spares and children end too") {
    const Adoption adoption;
    Pipe output;
    const pid_t owner = ::fork();
    if (owner == 0) {
        warmfork::Template table = nested_template(2);
        ProbeRequest request({"wait"});
        request.descriptors.push_back({-1, 1});
        const warmfork::Process child = table.spawn(request.get());
        table.wait_parked(2);
        if (::write(output.write_end.get(), "", 1) < 0) ::_exit(1);
        while (true) ::pause();
    }
    char byte;
    REQUIRE(::read(output.read_end.get(), &byte, 1) == 1);
    std::vector<Descriptor> twins;
    for (int child : children_of(owner))
        if (const int twin = twin_of(child)) twins.push_back(warmfork::open_pidfd(twin));
    CHECK(twins.size() == 3);
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    for (const Descriptor& twin : twins) CHECK(has_ended(twin));
}

TEST_CASE("When a child with a template of its own is killed its children and that template end") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    Child child(table, {"own"});
    const std::vector<int> below = child.read_line();
    REQUIRE(below.size() == 2);
    std::vector<Descriptor> all;
    for (int pid : children_of(child.pid())) {
        all.push_back(warmfork::open_pidfd(pid));
        if (const int twin = twin_of(pid)) all.push_back(warmfork::open_pidfd(twin));
    }
    CHECK(all.size() == 5);  // template, child and spare, and a twin of each of these two
    child.kill();
    for (const Descriptor& pidfd : all) CHECK(has_ended(pidfd));
}

TEST_CASE("A child that is killed at any moment of opening its template leaves nothing") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    for (int round = 0; round < 40; ++round) {
        Child child(table, {"cue", "own"});
        child.cue();
        spin(round * 400'000);
        child.kill();
    }
}

TEST_CASE("A child whose twin was killed preloads a template of its own") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    Child child(table, {"cue", "nest", "1"});
    const Descriptor twin = warmfork::open_pidfd(twin_of(child.pid()));
    warmfork::signal_pidfd(twin.get(), SIGKILL);
    REQUIRE(has_ended(twin));
    child.cue();
    CHECK(child.read_line().at(2) == warmfork_template_pid(table.handle()));
    const std::vector<int> grandchild = child.read_line();
    CHECK(grandchild.at(1) == child.pid());
    CHECK(grandchild.at(2) != warmfork_template_pid(table.handle()));
    CHECK(child.process().wait() == 0);
}

TEST_CASE("A twin that is killed in the moment in which it is woken costs nothing but time") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    for (int round = 0; round < 20; ++round) {
        Child child(table, {"cue", "nest", "1"});
        const Descriptor twin = warmfork::open_pidfd(twin_of(child.pid()));
        child.cue();
        CHECK(child.read_line().at(1) == ::getpid());
        spin(round * 100'000);
        warmfork::signal_pidfd(twin.get(), SIGKILL);
        CHECK(child.read_line().at(1) == child.pid());
        CHECK(child.process().wait() == 0);
    }
}

TEST_CASE("A twin that does not answer is given up") {
    const Adoption adoption;
    warmfork::Template table = nested_template(1);
    Child child(table, {"cue", "nest", "1"});
    const Descriptor pidfd = warmfork::open_pidfd(twin_of(child.pid()));
    REQUIRE(warmfork::signal_pidfd(pidfd.get(), SIGSTOP) == 0);
    child.cue();
    child.read_line();
    CHECK(has_ended(pidfd));
    const std::vector<int> grandchild = child.read_line();
    CHECK(grandchild.at(1) == child.pid());
    CHECK(grandchild.at(2) != warmfork_template_pid(table.handle()));
    CHECK(child.process().wait() == 0);
}
