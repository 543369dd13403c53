// What the program that a template runs in has to say at each step of a child's birth. A native
// program says nothing; the Python extension puts the interpreter right.
#pragma once

#include "channel/process_identity.hpp"
#include "template/gate.hpp"
#include "template/image.hpp"

namespace warmfork {

struct ChildCommand;

class Host {
  public:
    virtual ~Host() = default;

    virtual void before_fork() {}
    virtual void after_fork_in_template() {}
    /// In the child, right after glibc's part. Only this thread exists.
    virtual void after_fork_in_child() {}
    /// In every child, before its record is known: what siblings must not share (random streams).
    virtual void part_from_siblings() {}
    /// In a spare, ahead of need: all that the record will ask for, for one of our own, so that the
    /// pages which that writes are the child's own already. Descriptors 0 to 2 are a pipe's ends.
    virtual void rehearse() {}
    /// The host's signal dispositions, with the record's ignored signals known; all signals are
    /// blocked and have the default action, or are ignored as the record says.
    virtual void install_signals(std::uint64_t /*ignored*/) {}
    /// In a child that is as its record says, and whose owner knows that it has started, with all
    /// signals blocked still: its user code, after which the process ends. A host that leaves that
    /// to the program comes back, and then `serve` returns in the child.
    virtual void run(const ChildCommand& /*command*/) {}
    /// In a newborn child of a nested template: the twin that is its own child now, the channel to
    /// it, and what the image depends on, which stays. Returns the number under which the channel
    /// is to stay open; -1: the twin is not wanted.
    virtual int keep_twin(const ProcessIdentity& /*twin*/, Descriptor /*channel*/,
                          const ImageFacts& /*facts*/) {
        return -1;
    }
    /// Once, before the first fork: why children would not be as cold ones are; empty: they are.
    virtual std::string obstacle() { return {}; }
    /// What the gate is to be asked about besides.
    virtual std::vector<Finding> findings() { return {}; }
    /// Once, before the first fork: what the host alone knows of the image.
    virtual void describe(ImageFacts& /*facts*/) {}
    /// More for the report that `warmfork doctor` prints: a JSON object's text, or empty.
    virtual std::string report() { return {}; }
};

}  // namespace warmfork
