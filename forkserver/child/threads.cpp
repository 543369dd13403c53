#include "child/threads.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "child/proc_entries.hpp"

namespace warmfork {
namespace {

// No more threads than this are set up, nor is a process that starts new ones whenever it is looked
// at.
constexpr std::size_t kMostThreads = 1024;
constexpr int kMostLooks = 16;

// What no thread can block.
constexpr std::uint64_t kNeverBlocked = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1);

bool set_up_thread(int id, const RecordView& record, ChildFailure& failure) {
    const bool failed =
        (!record.affinity.empty() &&
         ::sched_setaffinity(id, record.affinity.size(),
                             reinterpret_cast<const cpu_set_t*>(record.affinity.data())) < 0) ||
        ((record.header.flags & kRecordNice) &&
         ::setpriority(PRIO_PROCESS, static_cast<id_t>(id), record.header.nice) < 0);
    if (!failed || errno == ESRCH) return true;  // it has ended
    failure = {Stage::limits, errno, id};
    return false;
}

}  // namespace

bool is_single_threaded() {
    // The kernel counts the threads in the link count of this directory. It is the system call
    // itself, as the preload library interposes stat.
    struct statx status;
    return ::syscall(SYS_statx, AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &status) == 0 &&
           (status.stx_mask & STATX_NLINK) != 0 && status.stx_nlink == 3;
}

bool set_up_other_threads(const RecordView& record, ChildFailure& ret_failure) {
    const RecordHeader& header = record.header;
    const bool has_mask =
        (header.flags & kRecordSignalMask) && (header.signal_mask & ~kNeverBlocked) != 0;
    if (has_mask || (header.flags & kRecordNoNewPrivileges)) {
        ret_failure = {Stage::gate, EBUSY, 0};
        return false;
    }
    if (record.affinity.empty() && !(header.flags & kRecordNice)) return true;
    std::array<int, kMostThreads> known;
    std::size_t count = 0;
    known[count++] = ::gettid();
    // A thread that is not set up yet may have started another one meanwhile, which is not set up
    // either.
    for (int look = 0; look < kMostLooks; ++look) {
        bool has_new = false, is_right = true;
        const int error = visit_numbered_entries("/proc/self/task", [&](int id) {
            const auto end = known.begin() + static_cast<std::ptrdiff_t>(count);
            if (std::find(known.begin(), end, id) != end || count == kMostThreads) return;
            known[count++] = id;
            has_new = true;
            is_right = is_right && set_up_thread(id, record, ret_failure);
        });
        if (!is_right) return false;
        if (error != 0 || count == kMostThreads) break;
        if (!has_new) return true;
    }
    ret_failure = {Stage::gate, EBUSY, 0};
    return false;
}

}  // namespace warmfork
