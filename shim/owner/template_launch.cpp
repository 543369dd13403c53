#include "owner/template_launch.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <filesystem>

#include "channel/stopping_point.hpp"
#include "owner/cold.hpp"
#include "owner/companions.hpp"
#include "owner/launch_environment.hpp"
#include "owner/pointers.hpp"
#include "owner/twin.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

std::vector<std::string> current_environment() {
    std::vector<std::string> environment;
    for (char** variable = environ; variable && *variable; ++variable)
        environment.emplace_back(*variable);
    return environment;
}

/// Makes this process's twin the template, where this is the child of a nested one of the same
/// definition. Returns false where there is none, or it has gone.
bool take_over_twin(const LaunchPlan& plan, const Descriptor& segment, LaunchedTemplate& launched) {
    std::optional<KeptTwin> twin = take_twin(plan);
    if (!twin) return false;
    const ProcessIdentity woken = wake_twin(*twin, launched.log.get());
    if (woken.pid == 0) return false;
    launched.channel.control = std::move(twin->channel);
    // That the pid was still its own is known when it is opened after it has been tied.
    const int error = launched.lifeline.tie(woken.pid);
    launched.pidfd = KeptDescriptor(open_process(woken));
    if (error || !launched.pidfd ||
        queue_hello(plan, segment, launched.lifeline, launched.channel)) {
        launched.channel.control.reset();
        end_child(woken);
        return false;
    }
    LaunchFacts& facts = launched.facts;
    facts.process = woken;
    facts.directory = std::move(twin->directory);
    facts.environment = std::move(twin->environment);
    facts.state = std::move(twin->state);
    facts.was_twin = true;
    return true;
}

/// Executes the template, tied to its lifeline, with its end of the control socket.
Outcome execute(const LaunchPlan& plan, const std::string& preload_library, const OwnedSocket& far,
                LaunchedTemplate& launched) {
    const std::vector<std::string> environment =
        with_launch(launched.facts.environment, preload_library);
    const std::vector<const char*> argument_pointers = pointers_to(plan.arguments);
    const std::vector<const char*> environment_pointers = pointers_to(environment);
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) return make_failure(Stage::launch, errno, "cannot open /dev/null");

    RecordContents contents;
    contents.header.flags =
        kRecordProcessGroup;  // it gets a group of its own: Ctrl-C does not reach it
    contents.header.lifetime = Lifetime::detached;  // it watches its owner itself
    contents.descriptor_targets = {0, 1, 2, kChannelNumber};
    contents.arguments = argument_pointers;
    contents.environment = environment_pointers;
    contents.directory = plan.directory;
    ColdPlan cold;
    if (int error = view_values(contents, cold.record))
        return make_failure(Stage::launch, error, "cannot describe the template's command");
    cold.arguments = argument_pointers;
    cold.environment = environment_pointers;
    cold.sources = {null.get(), launched.log.get(), launched.log.get(), far.get()};
    cold.lifeline = &launched.lifeline;
    cold.candidates = executable_candidates(
        plan.arguments[0], std::span(const_cast<char* const*>(environment_pointers.data()),
                                     environment_pointers.size()));
    ColdProcess started;
    if (Outcome failure = spawn_cold(cold, started)) {
        failure->stage = Stage::launch;
        failure->text = "the template did not start: " + failure->text;
        return failure;
    }
    launched.pidfd = KeptDescriptor(std::move(started.pidfd));
    if (!launched.pidfd) {
        Failure failure =
            make_failure(Stage::launch, EMFILE, "cannot open a pidfd of the template");
        end_child(started.identity);
        return failure;
    }
    launched.facts.process = started.identity;
    return {};
}

Outcome start_program(const LaunchPlan& plan, const Descriptor& segment,
                      LaunchedTemplate& launched) {
    const std::string preload_library = find_companion("libwarmfork-preload.so");
    if (preload_library.empty())
        return make_failure(Stage::launch, ENOENT, "cannot find libwarmfork-preload.so");
    OwnedSocket far;
    if (Outcome failure = connect(plan, segment, launched.lifeline, launched.channel, far))
        return failure;
    note_surroundings(plan, launched.facts);
    if (Outcome failure = execute(plan, preload_library, far, launched)) return failure;
    // A native program says hello when it begins to serve, which may be long after.
    if (plan.is_python) launched.hello_by = WaitClock::now() + kHelloPatience;
    launched.facts.program = plan.arguments[0];
    return {};
}

}  // namespace

Outcome prepare_launch(const LaunchPlan& plan, LaunchedTemplate& launched,
                       Descriptor& ret_segment) {
    launched.log = KeptDescriptor(Descriptor(::memfd_create(kOutputName, MFD_CLOEXEC)));
    if (!launched.log || ::fcntl(launched.log.get(), F_SETFL, O_APPEND) < 0)
        return make_failure(Stage::launch, errno, "cannot make a file for the template's output");
    if (int error = launched.lifeline.open())
        return make_failure(Stage::launch, error, "cannot make the template's lifeline");
    return make_channel_ends(plan.is_shared, launched.channel, ret_segment);
}

void note_surroundings(const LaunchPlan& plan, LaunchFacts& facts) {
    std::error_code unknown;
    facts.directory =
        std::filesystem::absolute(plan.directory.empty() ? "." : plan.directory, unknown);
    facts.environment = plan.environment ? *plan.environment : current_environment();
}

Outcome launch_template(const LaunchPlan& plan, LaunchedTemplate& ret_launched) {
    LaunchedTemplate launched;
    LaunchFacts& facts = launched.facts;
    Descriptor segment;
    if (Outcome failure = find_own_launch()) return failure;
    if (Outcome failure = prepare_launch(plan, launched, segment)) return failure;
    facts.state = read_owner_state();
    const Parent parent = plan.is_shared ? Parent::service : Parent::owner;
    if (const std::string obstacle = find_lasting_obstacle(facts.state, parent);
        !obstacle.empty()) {
        const int error = facts.state.unknown_error;
        const bool lacks_numbers = error == EMFILE || error == ENFILE;
        return Failure{Stage::launch, lacks_numbers ? error : ENOTSUP, 0,
                       "no template can serve this process: " + obstacle};
    }
    stopping_point("owner.before-launch");
    if (!take_over_twin(plan, segment, launched))
        if (Outcome failure = start_program(plan, segment, launched)) return failure;
    stopping_point("owner.launched");
    facts.could_look = can_look_at(facts.process.pid);
    ret_launched = std::move(launched);
    return {};
}

}  // namespace warmfork
