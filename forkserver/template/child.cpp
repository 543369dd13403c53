#include "template/child.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "channel/message_socket.hpp"
#include "channel/stopping_point.hpp"
#include "child/setup.hpp"
#include "child/threads.hpp"
#include "protocol/layout.hpp"
#include "template/parking_token.hpp"
#include "template/terminal.hpp"

namespace warmfork {
namespace {

// How much of the stack lies above what a parked child uses of it.
constexpr std::size_t kFrames = 16u << 10;

constexpr std::size_t kMessageSize = sizeof(MailboxHeader) + kInlineRecordSize;

// It lies in .bss, costs nothing until it is written, and stays for the life of the child, whose
// arguments and environment lie in it.
alignas(8) std::byte message_buffer[kMessageSize];
std::array<char*, 2048> pointer_buffer;

/// Answers the owner. Returns false where nobody hears it. All signals are blocked, SIGPIPE too.
bool say(int reply, ReplyKind kind, const ChildFailure& failure) {
    static ProcessIdentity self;  // a spare finds out while it has time
    if (self.pid == 0) self = identify_self();
    const MailboxReply said{kind, failure.stage, failure.error_number, failure.detail, self.pid,
                            0,    self.mark};
    return ::write(reply, &said, sizeof said) == sizeof said;
}

[[noreturn]] void fail(int reply, const ChildFailure& failure) {
    say(reply, ReplyKind::failed, failure);
    ::_exit(kFailedStatus);
}

/// Closes whatever the template had open and is not for its children.
void close_template_descriptors(const ChildPlan& plan) {
    std::array<int, kMostKept> kept;
    std::size_t count = 0;
    for (int own : {0, 1, 2, plan.mailbox, plan.inherited->owner_pidfd, plan.parking_token})
        kept[count++] = own;
    for (int number : plan.inherited->image_descriptors) kept[count++] = number;
    for (int number : plan.descriptors) kept[count++] = number;
    if (int error = close_all_but(std::span(kept).first(count)))
        fail(plan.mailbox, {Stage::descriptors, error, -1});
}

/// Gives a regular file or a directory an open file of its own under the same number: siblings
/// would share its position. Where it may not be opened again it stays as it is. Returns false with
/// errno set where it cannot.
bool open_anew(int number) {
    struct stat status;
    if (::fstat(number, &status) < 0) return true;
    const int flags = ::fcntl(number, F_GETFL);
    const bool has_position = S_ISREG(status.st_mode) || S_ISDIR(status.st_mode);
    if (!has_position || flags < 0 || flags & O_PATH) return true;
    std::array<char, 32> path;
    std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", number);
    const int kept_flags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DSYNC | O_SYNC | O_DIRECT;
    const Descriptor file(::open(path.data(), (flags & kept_flags) | O_CLOEXEC));
    if (!file) return true;
    const int close_on_exec = ::fcntl(number, F_GETFD) & FD_CLOEXEC ? O_CLOEXEC : 0;
    const off_t position = ::lseek(number, 0, SEEK_CUR);
    // It has none, or, of a directory, one that its file system takes from nobody else.
    if (position < 0 || ::lseek(file.get(), position, SEEK_SET) < 0) return true;
    return ::dup3(file.get(), number, close_on_exec) >= 0;
}

/// From now on `exit` in this process runs only what was registered since: the exit handlers of the
/// image belong to the template and must not run once a child. False: there is no memory for it.
bool leave_before_image_handlers() {
    // Handlers run last registered first: this one before any that the image registered.
    return ::on_exit(
               [](int status, void*) {
                   std::fflush(nullptr);
                   ::_exit(status);
               },
               nullptr) == 0;
}

void leave_template_state(const InheritedState& inherited, int mailbox) {
    for (int number : inherited.image_descriptors)
        if (!open_anew(number)) fail(mailbox, {Stage::descriptors, errno, number});
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    if (!reset_dispositions() || ::sigaltstack(&none, nullptr) < 0)
        fail(mailbox, {Stage::signals, errno, 0});
    const rlimit limit{inherited.soft_descriptor_limit, inherited.hard_descriptor_limit};
    if (::setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail(mailbox, {Stage::limits, errno, RLIMIT_NOFILE});
    if (!leave_before_image_handlers()) fail(mailbox, {Stage::limits, ENOMEM, 0});
}

/// Waits for a message in the mailbox. Signals are taken only while asleep here: one that kills a
/// parked child does so before it has a record, and one that comes later meets the record's mask.
void wait_for_message(int mailbox, int owner_pidfd) {
    sigset_t none;
    ::sigemptyset(&none);
    pollfd polled[2] = {{mailbox, POLLIN, 0}, {owner_pidfd, POLLIN, 0}};
    for (;;) {
        if (::ppoll(polled, 2, nullptr, &none) < 0) continue;  // EINTR
        if (polled[0].revents & POLLIN) return;
        if (polled[0].revents || polled[1].revents) ::_exit(0);  // owner or template has gone
    }
}

struct Delivery {
    std::span<std::byte> record;
    std::span<int> descriptors;
    std::array<int, kMaximumMessageDescriptors> numbers;
};

std::span<std::byte> map_memory(std::size_t size, int reply) {
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail(reply, {Stage::record, errno, 0});
    return {static_cast<std::byte*>(memory), size};
}

std::span<std::byte> map_large_record(int memfd, int mailbox) {
    std::size_t size = 0;
    const std::span<std::byte> buffer = map_memory(kMaximumRecordSize, mailbox);
    if (int error = read_sealed_memfd(memfd, buffer, size))
        fail(mailbox, {Stage::record, error, 0});
    return buffer.first(size);
}

/// Moves the environment of what becomes a template out of the place of the next record, which its
/// children will get: libraries may have noted where a variable is.
void move_out_of_buffer(std::span<std::byte>& record, int reply) {
    const std::span<std::byte> memory = map_memory(record.size(), reply);
    std::copy(record.begin(), record.end(), memory.begin());
    wipe(record);
    record = memory;
}

/// Takes the record out of the mailbox, and closes it. The mailbox is replaced by the descriptor
/// for the reply.
void receive_record(int& mailbox, Delivery& ret_delivery) {
    ReceivedMessage received;
    while (int error = receive_message(mailbox, message_buffer, ret_delivery.numbers, 0, received))
        if (error != EINTR) ::_exit(0);
    if (received.size == 0) ::_exit(0);
    if (received.descriptors_truncated) fail(mailbox, {Stage::descriptors, EMFILE, 0});
    std::span<int> descriptors = std::span(ret_delivery.numbers).first(received.descriptor_count);
    MailboxHeader header;
    if (received.truncated || received.size < sizeof header || descriptors.empty())
        fail(mailbox, {Stage::record, EBADMSG, 0});
    std::memcpy(&header, message_buffer, sizeof header);
    if (header.magic != kMailboxMagic) fail(mailbox, {Stage::record, EBADMSG, 0});
    // This must not come after the reply: where descriptors of sockets are under way anywhere, the
    // kernel looks for those that nobody can reach any more, on this processor, and then runs the
    // owner instead of this child.
    ::close(std::exchange(mailbox, descriptors.front()));
    descriptors = descriptors.subspan(1);
    if (header.record_size == 0 && !descriptors.empty()) {
        ret_delivery.record = map_large_record(descriptors.front(), mailbox);
        ::close(descriptors.front());
        descriptors = descriptors.subspan(1);
    } else if (header.record_size == received.size - sizeof header) {
        ret_delivery.record = std::span(message_buffer).subspan(sizeof header, header.record_size);
    } else {
        fail(mailbox, {Stage::record, EBADMSG, 0});
    }
    ret_delivery.descriptors = descriptors;
}

void take_record_of_plan(const ChildPlan& plan, Delivery& ret_delivery) {
    // The bytes lie in the template's memory, of which this is a private copy by now.
    ret_delivery.record = plan.record;
    std::copy(plan.descriptors.begin(), plan.descriptors.end(), ret_delivery.numbers.begin());
    ret_delivery.descriptors = std::span(ret_delivery.numbers).first(plan.descriptors.size());
}

char** make_pointers(std::span<char> strings, std::size_t count, std::span<char*>& free_pointers) {
    const std::size_t size = count + 1;
    char** pointers;
    if (size <= free_pointers.size()) {
        pointers = free_pointers.data();
        free_pointers = free_pointers.subspan(size);
    } else {
        pointers = static_cast<char**>(std::malloc(size * sizeof(char*)));
        if (!pointers) ::_exit(kFailedStatus);
    }
    point_at_strings(strings, count, pointers);
    return pointers;
}

/// Sets the child up as its record says. `reply` may get another number. `has_threads` says that
/// fork handlers have started some.
ChildCommand apply_record(const InheritedState& inherited, Delivery& delivery, bool has_threads,
                          int& reply) {
    RecordView record;
    const char* invalid = decode_record(delivery.record, record);
    if (!invalid && (record.header.flags & kRecordLayer)) {
        move_out_of_buffer(delivery.record, reply);
        invalid = decode_record(delivery.record, record);
    }
    if (invalid) fail(reply, {Stage::record, EBADMSG, 0});
    const bool has_directory = record.header.flags & kRecordDirectoryDescriptor;
    if (delivery.descriptors.size() != record.descriptor_targets.size() + (has_directory ? 1 : 0))
        fail(reply, {Stage::descriptors, EBADMSG, 0});

    ChildDescriptors descriptors;
    descriptors.sources = delivery.descriptors.first(record.descriptor_targets.size());
    if (has_directory) descriptors.directory = delivery.descriptors.back();
    descriptors.reply = reply;
    descriptors.image = inherited.image_descriptors;
    std::array<int, kMostKept> kept;
    descriptors.kept = kept;
    ChildFailure failure;
    const bool is_set_up = set_up_child(record, descriptors, failure) &&
                           (!has_threads || set_up_other_threads(record, failure)) &&
                           (!(record.header.flags & kRecordTerminal) || take_terminal(failure));
    reply = descriptors.reply;
    if (!is_set_up) fail(reply, failure);

    std::span<char*> pointers(pointer_buffer);
    char** arguments = make_pointers(record.arguments, record.header.argument_count, pointers);
    environ = make_pointers(record.environment, record.header.environment_count, pointers);
    show_title(inherited.image, record.executable, record.arguments, record.environment);
    return {{arguments, record.header.argument_count},
            record.payload,
            record.executable,
            record.header.flags & kRecordSignalMask ? record.header.signal_mask : 0,
            record.header.flags & kRecordSignalsIgnored ? record.header.signals_ignored : 0,
            record.header.flags & kRecordLayer ? record.descriptor_targets.back() : -1};
}

void tell_started(int reply) {
    // An owner that does not hear of its child must not have it.
    if (!say(reply, ReplyKind::started, {})) ::_exit(kFailedStatus);
    ::close(reply);
}

/// Puts what most children get on the standard streams, so that a host can rehearse with it.
/// Failure is harmless.
void put_pipes_on_standard_streams() {
    int pipe[2];
    if (::pipe(pipe) < 0) return;
    ::dup2(pipe[0], 0);
    for (int number : {1, 2}) ::dup2(pipe[1], number);
    for (int number : pipe)
        if (number > 2) ::close(number);
}

/// Writes once to the pages that the hand-off will write to.
void touch_buffers() {
    message_buffer[0] = std::byte{0};
    pointer_buffer[0] = nullptr;
    // The code that will read from the mailbox is tried on nothing.
    ReceivedMessage received;
    static_cast<void>(receive_message(-1, message_buffer, {}, 0, received));
    // A child of a native program returns through this on its way to user code.
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const auto page_size = static_cast<std::uintptr_t>(::getpagesize());
    ::madvise(reinterpret_cast<void*>(frame / page_size * page_size), kFrames, MADV_POPULATE_WRITE);
}

}  // namespace

ChildCommand run_child(const ChildPlan& plan) {
    const InheritedState& inherited = *plan.inherited;
    int mailbox = plan.mailbox;  // of a spare: later its pipe for the reply
    close_template_descriptors(plan);
    leave_template_state(inherited, mailbox);
    // A child that is stopped while it is parked goes on when its owner ends, and then ends too.
    if (plan.record.empty() && ::prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0) < 0)
        fail(mailbox, {Stage::signals, errno, SIGCONT});
    Delivery delivery;
    inherited.host->part_from_siblings();
    // A single thread starts no other on the way from here to user code.
    const bool has_threads = !is_single_threaded();
    if (plan.record.empty()) {
        put_pipes_on_standard_streams();
        inherited.host->rehearse();
        touch_buffers();
        ::prctl(PR_SET_NAME, kSpareName, 0, 0, 0);
        stopping_point("child.before-parking");
        if (!say(mailbox, ReplyKind::parked, {})) ::_exit(0);
        stopping_point("child.parked");
        wait_for_message(mailbox, inherited.owner_pidfd);
        // The child was given up meanwhile: the owner finds the mailbox closed, and takes another
        // one.
        if (!take_parking_token(plan.parking_token)) ::_exit(0);
        receive_record(mailbox, delivery);
    } else {
        take_record_of_plan(plan, delivery);
    }
    stopping_point("child.record-taken");
    const ChildCommand command = apply_record(inherited, delivery, has_threads, mailbox);
    inherited.host->install_signals(command.signals_ignored);
    stopping_point("child.before-start");
    tell_started(mailbox);
    stopping_point("child.before-user-code");
    inherited.host->run(command);
    return command;
}

}  // namespace warmfork
