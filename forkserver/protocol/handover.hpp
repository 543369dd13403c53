// What a service that execs itself leaves to the next one, in a sealed memfd: README.md beside this
// file draws it. Each part names its members once, in their order; the writer and the reader both
// go by that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "protocol/fields.hpp"

namespace warmfork {

/// Raised when the bytes change. A newer service has to read what the one before it left, or the
/// statuses of all children are lost: so it keeps the old reader for as long as people upgrade from
/// that.
inline constexpr std::uint64_t kHandoverVersion = 1;

/// Names the descriptor of the memfd.
inline constexpr const char* kHandoverVariable = "WARMFORKD_HANDOVER";

/// A descriptor that stays open across exec, under its number; -1: there is none. It is borrowed
/// from whoever writes, and owned by whoever takes it over.
struct HandedDescriptor {
    int number = -1;
};

/// A message that its client has not been sent yet.
struct HandedMessage {
    std::uint64_t kind = 0, id = 0;
    std::string body;
    std::vector<HandedDescriptor> descriptors;

    static void members(auto& self, auto& each) {
        each(self.kind, self.id, self.body, self.descriptors);
    }
};

struct HandedClient {
    std::uint64_t id = 0;
    HandedDescriptor socket;
    std::uint64_t uid = 0, pid = 0;
    HandedDescriptor pidfd;
    std::string name;
    std::uint64_t has_greeted = 0, spawned = 0;
    std::vector<HandedMessage> waiting = {};

    static void members(auto& self, auto& each) {
        each(self.id, self.socket, self.uid, self.pid, self.pidfd, self.name, self.has_greeted,
             self.spawned, self.waiting);
    }
};

struct HandedChild {
    std::uint64_t id = 0, pid = 0;
    HandedDescriptor pidfd;
    std::uint64_t client = 0, is_detached = 0, is_used = 0;
    std::string template_name;
    HandedDescriptor reply, mailbox;
    std::uint64_t request = 0;

    static void members(auto& self, auto& each) {
        each(self.id, self.pid, self.pidfd, self.client, self.is_detached, self.is_used,
             self.template_name, self.reply, self.mailbox, self.request);
    }
};

/// A request that has not been answered.
struct HandedAsk {
    std::uint64_t client = 0, request = 0, size = 0, is_run = 0;
    std::string wanted;  ///< the body of a LeaseRequest
    std::vector<HandedDescriptor> descriptors;

    static void members(auto& self, auto& each) {
        each(self.client, self.request, self.size, self.is_run, self.wanted, self.descriptors);
    }
};

struct HandedTemplate {
    std::string name;
    std::vector<HandedAsk> asks = {};

    static void members(auto& self, auto& each) { each(self.name, self.asks); }
};

/// Since when something is waited for, so that its wait ends when it would have ended.
struct HandedWait {
    std::uint64_t client = 0;
    /// Whose answer the client waits for. 0: the client is to say hello, or, where it has gone, its
    /// children are to end.
    std::uint64_t request = 0;
    std::uint64_t since = 0;  ///< nanoseconds of CLOCK_MONOTONIC

    static void members(auto& self, auto& each) { each(self.client, self.request, self.since); }
};

struct Handover {
    std::uint64_t generation = 0, last_client = 0, last_child = 0;
    HandedDescriptor listener, lock;
    std::string path;  ///< of the listener
    HandedDescriptor keeper;
    std::vector<HandedClient> clients = {};
    std::vector<HandedChild> children = {};
    std::vector<HandedTemplate> templates = {};
    std::vector<std::uint64_t> untold = {};  ///< children that the keeper is yet to be told of
    HandedDescriptor sight = {};             ///< -1 also where the service before had none
    std::vector<std::string> retired_sights = {};
    std::vector<HandedWait> waits = {};  ///< what is not among them begins anew
    bool is_whole = true;                ///< false: what was read is cut short

    static void members(auto& self, auto& each) {
        each(self.generation, self.last_client, self.last_child, self.listener, self.lock,
             self.path, self.keeper, self.clients, self.children, self.templates, self.untold);
        each.optional(self.sight, self.retired_sights);
        each.optional(self.waits);
    }
};

/// Writes a handover, and remembers which descriptors are to stay open.
class HandoverWriter {
  public:
    explicit HandoverWriter(const Handover& handover) {
        fields_.number(kHandoverVersion);
        Handover::members(handover, *this);
    }
    const std::vector<std::byte>& bytes() const { return fields_.bytes(); }
    const std::vector<int>& descriptors() const { return descriptors_; }

    void operator()(const auto&... values) { (add(values), ...); }
    void optional(const auto&... values) { (add(values), ...); }

  private:
    void add(std::uint64_t number) { fields_.number(number); }
    void add(const std::string& text) { fields_.text(text); }
    void add(HandedDescriptor descriptor) {
        fields_.number(static_cast<std::uint64_t>(descriptor.number));
        if (descriptor.number >= 0) descriptors_.push_back(descriptor.number);
    }
    template <typename Value>
    void add(const std::vector<Value>& values) {
        fields_.number(values.size());
        for (const Value& value : values) add(value);
    }
    template <typename Part>
    requires std::is_class_v<Part>
    void add(const Part& part) { Part::members(part, *this); }

    FieldWriter fields_;
    std::vector<int> descriptors_;
};

/// Reads what a HandoverWriter has written. Nothing of what is cut short is made up: it is 0, empty
/// or -1.
class HandoverReader {
  public:
    explicit HandoverReader(std::span<const std::byte> bytes) : fields_(bytes) {}

    /// Returns false if it is of another version: then nothing else can be read from it.
    [[nodiscard]] bool read(Handover& ret_handover) {
        if (fields_.number() != kHandoverVersion) return false;
        Handover::members(ret_handover, *this);
        ret_handover.is_whole = fields_.is_whole();
        return true;
    }

    void operator()(auto&... ret_values) { (take(ret_values), ...); }
    /// Reads what stands behind all that the first services of this version wrote.
    void optional(auto&... ret_values) {
        if (fields_.has_more()) (take(ret_values), ...);
    }

  private:
    void take(std::uint64_t& ret_number) { ret_number = fields_.number(); }
    void take(std::string& ret_text) { ret_text = fields_.text(); }
    void take(HandedDescriptor& ret_descriptor) {
        const auto number = static_cast<int>(fields_.number());
        if (fields_.is_whole()) ret_descriptor.number = number;
    }
    template <typename Value>
    void take(std::vector<Value>& ret_values) {
        for (std::uint64_t left = fields_.number(); left > 0 && fields_.is_whole(); --left)
            take(ret_values.emplace_back());
    }
    template <typename Part>
    requires std::is_class_v<Part>
    void take(Part& ret_part) { Part::members(ret_part, *this); }

    FieldReader fields_;
};

}  // namespace warmfork
