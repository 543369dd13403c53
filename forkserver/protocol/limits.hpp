// Every size that both ends of a channel must agree on, with the source of the number.
#pragma once

#include <cstddef>
#include <cstdint>

namespace warmfork {

/// Raised whenever the meaning or place of a byte in this folder changes; both hellos carry it.
inline constexpr std::uint16_t kProtocolVersion = 11;

/// The size of a whole record. Linux's own limit for arguments and environment together is 6 MiB.
inline constexpr std::size_t kMaximumRecordSize = 2u << 20;

/// Up to this size a record travels inline; a larger one in a sealed memfd. A SEQPACKET message
/// holds 212,960 bytes with the default net.core.wmem_default, and the command ring must hold
/// several records.
inline constexpr std::size_t kInlineRecordSize = 64u << 10;

/// One argument or environment string with its NUL: MAX_ARG_STRLEN of linux/binfmts.h, which execve
/// enforces, so that a record is accepted by every backend or by none.
inline constexpr std::size_t kMaximumStringSize = 128u << 10;

/// Descriptors of one message: SCM_MAX_FD of net/scm.h.
inline constexpr std::size_t kMaximumMessageDescriptors = 253;

/// Descriptors that a record may place: the message also carries the directory, the memfd and the
/// pipe for the reply.
inline constexpr std::size_t kMaximumRecordDescriptors = kMaximumMessageDescriptors - 3;

/// Children of one command: their mailboxes travel in one message.
inline constexpr std::uint32_t kMaximumBatch = 250;

/// How many children may not have been announced: those of one command, as a template takes the
/// next command when all children of the last have been.
inline constexpr std::uint32_t kNewborns = 256;
static_assert(kNewborns >= kMaximumBatch);

/// Spares that one template keeps.
inline constexpr std::uint32_t kMaximumSpares = 4096;

/// CPU mask of a record: 8,192 CPUs, the kernel's largest NR_CPUS.
inline constexpr std::size_t kMaximumAffinitySize = 1024;

/// RLIM_NLIMITS of asm-generic/resource.h.
inline constexpr std::uint32_t kResourceLimitCount = 16;

/// Ring capacities, powers of two.
inline constexpr std::size_t kCommandRingSize = 256u << 10;
inline constexpr std::size_t kCompletionRingSize = 64u << 10;

/// Text that travels in a frame (a gate's refusal, a preload error).
inline constexpr std::size_t kMaximumTextSize = 4096;

}  // namespace warmfork
