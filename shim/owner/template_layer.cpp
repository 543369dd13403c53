// How a layer is started: a parked child of its base becomes a template.
#include <fcntl.h>

#include <algorithm>

#include "owner/child_record.hpp"
#include "owner/child_start.hpp"
#include "owner/cold.hpp"
#include "owner/pointers.hpp"
#include "owner/template_launch.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

/// Returns a number that no file of the image has.
int channel_number(const std::vector<int>& image_descriptors) {
    int number = kChannelNumber;
    while (std::find(image_descriptors.begin(), image_descriptors.end(), number) !=
           image_descriptors.end())
        ++number;
    return number;
}

Outcome start_layer(const LaunchPlan& plan, const LaunchFacts& base,
                    const std::vector<int>& image_descriptors, Born spare,
                    LaunchedTemplate& ret_launched) {
    LaunchedTemplate launched;
    LaunchFacts& facts = launched.facts;
    Descriptor segment;
    OwnedSocket far;
    if (Outcome failure = prepare_launch(plan, launched, segment)) return failure;
    if (Outcome failure = connect(plan, segment, launched.lifeline, launched.channel, far))
        return failure;
    if (int error = launched.lifeline.tie(spare.pid))
        return make_failure(Stage::launch, error, "cannot tie the layer to this process");
    // That the pid was still its own is known when it is opened after that.
    launched.pidfd = KeptDescriptor(open_process(spare.identity()));
    if (!launched.pidfd) return make_failure(Stage::launch, errno, "cannot extend a template");
    note_surroundings(plan, facts);
    // The layer stays what its base was started as, and its children are brought up to date from
    // there.
    facts.state = base.state;
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!null) return make_failure(Stage::launch, errno, "cannot open /dev/null");
    ReplyPipe reply;
    if (int error = reply.open())
        return make_failure(Stage::launch, error, "cannot make a pipe for the reply");

    const std::vector<const char*> arguments = pointers_to(plan.arguments);
    const std::vector<const char*> environment = pointers_to(facts.environment);
    RecordContents contents;
    contents.header.flags =
        kRecordProcessGroup | kRecordSignalMask | kRecordSignalsIgnored | kRecordLayer;
    contents.header.lifetime = Lifetime::detached;  // it watches its owner itself
    contents.header.signals_ignored = facts.state.signals_ignored;
    contents.descriptor_targets = {0, 1, 2, channel_number(image_descriptors)};
    contents.arguments = arguments;
    contents.environment = environment;
    contents.directory = facts.directory;
    ChildRecord record;
    record.descriptors = {null.get(), launched.log.get(), launched.log.get(), far.get()};
    if (Outcome failure = encode(contents, record)) {
        failure->stage = Stage::launch;
        return failure;
    }
    if (Outcome failure = send_record(record, spare, reply.write_end())) return failure;
    facts.process = spare.identity();
    facts.could_look = can_look_at(facts.process.pid);
    launched.layer =
        LayerStart{std::move(spare), Descriptor(::fcntl(reply.read_end(), F_DUPFD_CLOEXEC, 0))};
    ret_launched = std::move(launched);
    return {};
}

}  // namespace

Outcome launch_layer(const LaunchPlan& plan, const LaunchFacts& base,
                     const std::vector<int>& image_descriptors, Born spare,
                     LaunchedTemplate& ret_launched) {
    const ProcessIdentity child = spare.identity();
    Outcome failure = start_layer(plan, base, image_descriptors, std::move(spare), ret_launched);
    if (failure) end_child(child);
    return failure;
}

}  // namespace warmfork
