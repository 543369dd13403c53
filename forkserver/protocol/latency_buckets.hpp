// A histogram of microseconds in log-linear buckets: one a microsecond below 8, then eight to each
// doubling, so that a bucket's middle is within 6.25 % of everything in it.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace warmfork {

inline constexpr std::uint64_t kBucketsPerOctave = 8;
inline constexpr unsigned kBucketBits = 3;  // log2 of the above

/// The buckets reach up to 2^30 µs, 18 minutes; the last one takes what is longer.
inline constexpr unsigned kLatencyOctaves = 30;
inline constexpr std::size_t kLatencyBuckets =
    kBucketsPerOctave * (kLatencyOctaves - kBucketBits + 1);

using LatencyCounts = std::array<std::uint64_t, kLatencyBuckets>;

constexpr std::size_t latency_bucket(std::uint64_t microseconds) {
    if (microseconds < kBucketsPerOctave) return microseconds;
    const unsigned shift = static_cast<unsigned>(std::bit_width(microseconds)) - 1 - kBucketBits;
    const std::size_t bucket = kBucketsPerOctave * shift + (microseconds >> shift);
    return bucket < kLatencyBuckets ? bucket : kLatencyBuckets - 1;
}

/// Returns the least microseconds of a bucket; for kLatencyBuckets, those at which the last one
/// ends.
constexpr std::uint64_t latency_floor(std::size_t bucket) {
    if (bucket < kBucketsPerOctave) return bucket;
    const std::size_t shift = bucket / kBucketsPerOctave - 1;
    return (kBucketsPerOctave + bucket % kBucketsPerOctave) << shift;
}
static_assert(latency_bucket(7) == 7 && latency_bucket(8) == 8 && latency_bucket(16) == 16);
static_assert(latency_floor(latency_bucket(1000)) <= 1000);
static_assert(latency_floor(latency_bucket(1000) + 1) > 1000);
static_assert(latency_floor(kLatencyBuckets) == std::uint64_t{1} << kLatencyOctaves);

constexpr std::uint64_t latency_total(const LatencyCounts& counts) {
    std::uint64_t total = 0;
    for (std::uint64_t count : counts) total += count;
    return total;
}

/// Returns the microseconds that a part (0.5: the median) of what was counted did not exceed: by
/// nearest rank, the middle of its bucket. Returns 0 if nothing was counted.
inline double latency_percentile(const LatencyCounts& counts, double part) {
    const double rank = std::ceil(part * static_cast<double>(latency_total(counts)));
    double below = 0;
    for (std::size_t bucket = 0; bucket < kLatencyBuckets; ++bucket) {
        if (!counts[bucket]) continue;
        below += static_cast<double>(counts[bucket]);
        // Below 16 a bucket is one whole microsecond.
        if (below >= rank)
            return static_cast<double>(latency_floor(bucket) + latency_floor(bucket + 1) - 1) / 2;
    }
    return 0;
}

}  // namespace warmfork
