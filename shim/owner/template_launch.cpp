// How a template is started: its channel, its environment, its hello.
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <filesystem>

#include "channel/doorbell.hpp"
#include "channel/stopping_point.hpp"
#include "owner/cold.hpp"
#include "owner/companions.hpp"
#include "owner/launch_environment.hpp"
#include "owner/pointers.hpp"
#include "owner/template_process.hpp"
#include "owner/twin.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

bool is_main_thread() {
    return ::gettid() == ::getpid();
}

std::vector<std::string> current_environment() {
    std::vector<std::string> environment;
    for (char** variable = environ; variable && *variable; ++variable)
        environment.emplace_back(*variable);
    return environment;
}

}  // namespace

TemplateProcess::TemplateProcess()
    : serial_([] {
          static std::atomic<std::uint64_t> last{0};
          return ++last;
      }()) {}

Outcome TemplateProcess::start(const LaunchPlan& plan,
                               std::shared_ptr<TemplateProcess>& ret_process) {
    std::shared_ptr<TemplateProcess> process(new TemplateProcess);
    if (Outcome failure = process->launch(plan)) return failure;
    ret_process = std::move(process);
    return {};
}

/// Writes the hello into the control socket before the template exists; it reads it when it serves.
Outcome TemplateProcess::queue_hello(const LaunchPlan& plan, const Descriptor& segment) {
    const Descriptor owner = open_pidfd(::getpid());
    if (!owner) return make_failure(Stage::launch, errno, "cannot open a pidfd of this process");
    OwnerHello hello{};
    hello.magic = kHelloMagic;
    hello.version = kProtocolVersion;
    opened_by_main_thread_ = is_main_thread();
    hello.flags = opened_by_main_thread_ ? kHelloFromMainThread : 0;
    if (plan.nested) hello.flags |= kHelloNested;
    hello.owner_pid = ::getpid();
    hello.spares_least = plan.spares_least;
    hello.spares_most = plan.spares_most;
    std::string strings = find_companion("warmfork-keeper");
    for (const std::string& entry : plan.allowed) strings += '\0' + entry;
    std::vector<int> descriptors{segment.get(), command_bell_.get(), completion_bell_.get(),
                                 owner.get()};
    if (inotify_) descriptors.push_back(inotify_.get());
    if (int error = send_message(control_.get(), bytes_of(hello), std::as_bytes(std::span(strings)),
                                 descriptors, MSG_DONTWAIT))
        return make_failure(Stage::launch, error, "cannot greet the template");
    // One that receives it already has to know when the send has ended.
    ring(command_bell_.get());
    return {};
}

Outcome TemplateProcess::launch(const LaunchPlan& plan) {
    owner_ = ::getpid();
    if (Outcome failure = find_own_launch()) return failure;
    Descriptor memfd;
    if (Outcome failure = make_channel_files(plan, memfd)) return failure;
    state_at_start_ = read_owner_state();
    const Parent parent = plan.is_shared ? Parent::service : Parent::owner;
    if (const std::string obstacle = find_lasting_obstacle(state_at_start_, parent);
        !obstacle.empty())
        return Failure{Stage::launch, ENOTSUP, 0,
                       "no template can serve this process: " + obstacle};
    stopping_point("owner.before-launch");
    was_twin_ = take_over_twin(plan, memfd);
    if (!was_twin_)
        if (Outcome failure = start_program(plan, memfd)) return failure;
    stopping_point("owner.launched");
    could_look_ = can_look_at(process_.pid);
    return {};
}

Outcome TemplateProcess::make_channel_files(const LaunchPlan& plan, Descriptor& ret_memfd) {
    const auto failed = [](const char* what) { return make_failure(Stage::launch, errno, what); };
    log_ = KeptDescriptor(Descriptor(::memfd_create(kOutputName, MFD_CLOEXEC)));
    if (!log_ || ::fcntl(log_.get(), F_SETFL, O_APPEND) < 0)
        return failed("cannot make a file for the template's output");
    command_bell_ = KeptDescriptor(make_doorbell());
    completion_bell_ = KeptDescriptor(make_doorbell());
    if (!command_bell_ || !completion_bell_) return failed("cannot make doorbells");
    // Without (there are 128 for a user) the template compares its files at each fork.
    inotify_ = KeptDescriptor(Descriptor(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)));
    has_inotify_ = bool(inotify_);
    mounts_ = KeptDescriptor(Descriptor(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)));
    if (int error = Segment::create(segment_, ret_memfd))
        return make_failure(Stage::launch, error, "cannot make the shared segment");
    if (plan.is_shared) {
        const std::string path = "/proc/self/fd/" + std::to_string(ret_memfd.get());
        shown_segment_ = KeptDescriptor(Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC)));
        if (!shown_segment_) return failed("cannot open the shared segment for reading");
    }
    SegmentLayout& layout = segment_.layout();
    commands_.emplace(layout.command_ring, std::span<std::byte>(layout.command_bytes));
    completions_.emplace(layout.completion_ring, std::span<std::byte>(layout.completion_bytes));
    return {};
}

/// Where this process is the child of a nested template, and this is to be one of the same
/// definition: its twin becomes it. False: there is none, or it has gone.
bool TemplateProcess::take_over_twin(const LaunchPlan& plan, const Descriptor& segment) {
    std::optional<KeptTwin> twin = take_twin(plan);
    if (!twin) return false;
    const ProcessIdentity woken = wake_twin(*twin, log_.get());
    if (woken.pid == 0) return false;
    control_ = std::move(twin->channel);
    pidfd_ = KeptDescriptor(open_process(woken));
    if (!pidfd_ || queue_hello(plan, segment)) {
        control_.reset();
        end_child(woken);
        return false;
    }
    process_ = woken;
    directory_ = std::move(twin->directory);
    environment_ = std::move(twin->environment);
    state_at_start_ = std::move(twin->state);
    return true;
}

/// Makes the control socket, the hello in it. `ret_far`: the template's end.
Outcome TemplateProcess::connect(const LaunchPlan& plan, const Descriptor& segment,
                                 OwnedSocket& ret_far) {
    if (int error = make_owned_pair(control_, ret_far))
        return make_failure(Stage::launch, error, "cannot make the control socket");
    if (Outcome failure = queue_hello(plan, segment)) return failure;
    // While it preloads the template cannot watch its owner. Its end of the control socket raises
    // SIGKILL for it when this end is closed, however that happens; nothing is sent meanwhile. It
    // takes that back when it begins to serve.
    ::fcntl(ret_far.get(), F_SETSIG, SIGKILL);
    ::fcntl(ret_far.get(), F_SETFL, O_ASYNC);
    return {};
}

void TemplateProcess::note_launch(const LaunchPlan& plan) {
    std::error_code unknown;
    directory_ = std::filesystem::absolute(plan.directory.empty() ? "." : plan.directory, unknown);
    environment_ = plan.environment ? *plan.environment : current_environment();
}

Outcome TemplateProcess::start_program(const LaunchPlan& plan, const Descriptor& segment) {
    const std::string preload_library = find_companion("libwarmfork-preload.so");
    if (preload_library.empty())
        return make_failure(Stage::launch, ENOENT, "cannot find libwarmfork-preload.so");
    OwnedSocket far;
    if (Outcome failure = connect(plan, segment, far)) return failure;
    note_launch(plan);
    const std::vector<std::string> environment = with_launch(environment_, preload_library);
    const std::vector<const char*> argument_pointers = pointers_to(plan.arguments);
    const std::vector<const char*> environment_pointers = pointers_to(environment);
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) return make_failure(Stage::launch, errno, "cannot open /dev/null");

    RecordContents contents;
    contents.header.flags = kRecordProcessGroup;    // a group of its own: Ctrl-C does not reach it
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
    cold.sources = {null.get(), log_.get(), log_.get(), far.get()};
    cold.lifeline = far.get();
    cold.candidates = executable_candidates(
        plan.arguments[0], std::span(const_cast<char* const*>(environment_pointers.data()),
                                     environment_pointers.size()));
    ColdProcess started;
    if (Outcome failure = spawn_cold(cold, started)) {
        failure->stage = Stage::launch;
        failure->text = "the template did not start: " + failure->text;
        return failure;
    }
    pidfd_ = KeptDescriptor(std::move(started.pidfd));
    if (!pidfd_) {
        Failure failure =
            make_failure(Stage::launch, EMFILE, "cannot open a pidfd of the template");
        end_child(started.identity);
        return failure;
    }
    process_ = started.identity;
    // A native program says hello when it begins to serve, which may be long after.
    if (plan.is_python) hello_by_ = Clock::now() + kHelloPatience;
    program_ = plan.arguments[0];
    return {};
}

}  // namespace warmfork
