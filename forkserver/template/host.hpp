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
    /// Is called in the child, right after glibc's part. Only this thread exists.
    virtual void after_fork_in_child() {}
    /// Renews in every child, before its record is known, what siblings must not share (random
    /// streams).
    virtual void part_from_siblings() {}
    /// Does in a spare, ahead of need, all that a record will ask for, with one of our own, so that
    /// the pages which that writes are the child's own already. Descriptors 0 to 2 are a pipe's
    /// ends.
    virtual void rehearse() {}
    /// Sets the host's signal dispositions, now that the record's ignored signals are known. All
    /// signals are blocked and have the default action, or are ignored as the record says.
    virtual void install_signals(std::uint64_t /*ignored*/) {}
    /// Runs user code, after which the process ends, in a child that is as its record says, whose
    /// owner knows that it has started, and in which all signals are blocked still. A host that
    /// leaves that to the program comes back, and then `serve` returns in the child.
    virtual void run(const ChildCommand& /*command*/) {}
    /// Takes, in a newborn child of a nested template, the twin that is its own child now, the
    /// channel to it, and what the image depends on, which stays. Returns the number under which
    /// the channel is to stay open, or -1 where the twin is not wanted.
    virtual int keep_twin(const ProcessIdentity& /*twin*/, Descriptor /*channel*/,
                          const ImageFacts& /*facts*/) {
        return -1;
    }
    /// Returns why children would not be as cold ones are; empty where they are. It is asked once,
    /// before the first fork.
    virtual std::string obstacle() { return {}; }
    /// Returns what else the gate is to be asked about.
    virtual std::vector<Finding> findings() { return {}; }
    /// Adds what the host alone knows of the image. It is asked once, before the first fork.
    virtual void describe(ImageFacts& /*facts*/) {}
    /// Returns more for the report that `warmfork doctor` prints: a JSON object's text, or an empty
    /// one.
    virtual std::string report() { return {}; }
};

}  // namespace warmfork
