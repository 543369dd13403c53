// How a layer is started: a parked child of its base becomes a template.
#include <algorithm>

#include "owner/cold.hpp"
#include "owner/hand_off.hpp"
#include "owner/pointers.hpp"
#include "owner/template_process.hpp"
#include "protocol/messages.hpp"

namespace warmfork {
namespace {

/// One that no file of the image has.
int channel_number(const std::vector<int>& image_descriptors) {
    int number = kChannelNumber;
    while (std::find(image_descriptors.begin(), image_descriptors.end(), number) !=
           image_descriptors.end())
        ++number;
    return number;
}

}  // namespace

Outcome TemplateProcess::extend(const LaunchPlan& plan, TemplateProcess& base, Born spare,
                                std::shared_ptr<TemplateProcess>& ret_process) {
    std::shared_ptr<TemplateProcess> process(new TemplateProcess);
    const ProcessIdentity child = spare.identity();
    if (Outcome failure = process->start_layer(plan, base, std::move(spare))) {
        process.reset();
        end_child(child);
        return failure;
    }
    ret_process = std::move(process);
    return {};
}

Outcome TemplateProcess::start_layer(const LaunchPlan& plan, TemplateProcess& base, Born spare) {
    owner_ = ::getpid();
    Descriptor segment;
    OwnedSocket far;
    if (Outcome failure = make_channel_files(plan, segment)) return failure;
    if (Outcome failure = connect(plan, segment, far)) return failure;
    ::fcntl(far.get(), F_SETOWN, spare.pid);
    note_launch(plan);
    // It stays what its base was started as, and its children are brought up to date from there.
    state_at_start_ = base.state_at_start();
    pidfd_ = KeptDescriptor(open_process(spare.identity()));
    const Descriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    ReplyPipe reply;
    if (!pidfd_ || !null) return make_failure(Stage::launch, errno, "cannot extend a template");
    if (int error = reply.open())
        return make_failure(Stage::launch, error, "cannot make a pipe for the reply");

    const std::vector<const char*> arguments = pointers_to(plan.arguments);
    const std::vector<const char*> environment = pointers_to(environment_);
    RecordContents contents;
    contents.header.flags =
        kRecordProcessGroup | kRecordSignalMask | kRecordSignalsIgnored | kRecordLayer;
    contents.header.lifetime = Lifetime::detached;  // it watches its owner itself
    contents.header.signals_ignored = state_at_start_.signals_ignored;
    contents.descriptor_targets = {0, 1, 2, channel_number(base.image_descriptors())};
    contents.arguments = arguments;
    contents.environment = environment;
    contents.directory = directory_;
    ChildRecord record;
    record.descriptors = {null.get(), log_.get(), log_.get(), far.get()};
    if (Outcome failure = encode(contents, record)) {
        failure->stage = Stage::launch;
        return failure;
    }
    if (Outcome failure = send_record(record, spare, reply.write_end())) return failure;
    started_ = Descriptor(::fcntl(reply.read_end(), F_DUPFD_CLOEXEC, 0));
    process_ = spare.identity();
    extended_ = std::move(spare);
    could_look_ = can_look_at(process_.pid);
    return {};
}

}  // namespace warmfork
