#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/sequence_pool.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace warmfork::python {
namespace {

// The hash begins with the first of these and goes on by the second; two words become one by the
// others. As O'Neill's seed_seq_fe has them; numpy promises not to change this (NEP 19).
constexpr std::uint32_t kFirst = 0x43b0d7e5;
constexpr std::uint32_t kNext = 0x931e8875;
constexpr std::uint32_t kOfOne = 0xca01f9dd;
constexpr std::uint32_t kOfOther = 0x4973f715;

// Numpy has no limit; its own pools have four.
constexpr Py_ssize_t kMostWords = 1024;

std::uint32_t folded(std::uint32_t word) {
    return word ^ word >> 16;
}

/// Another one with each call.
class Hash {
  public:
    std::uint32_t operator()(std::uint32_t word) {
        word ^= factor_;
        factor_ *= kNext;
        return folded(word * factor_);
    }

  private:
    std::uint32_t factor_ = kFirst;
};

void mix(std::uint32_t& one, std::uint32_t other) {
    one = folded(kOfOne * one - kOfOther * other);
}

std::vector<std::uint32_t> mixed(const std::vector<std::uint32_t>& words, std::size_t size) {
    Hash hash;
    std::vector<std::uint32_t> pool(size);
    for (std::size_t i = 0; i < size; ++i) pool[i] = hash(i < words.size() ? words[i] : 0);
    for (std::size_t source = 0; source < size; ++source)
        for (std::size_t target = 0; target < size; ++target)
            if (source != target) mix(pool[target], hash(pool[source]));
    for (std::size_t i = size; i < words.size(); ++i)
        for (std::uint32_t& target : pool) mix(target, hash(words[i]));
    return pool;
}

}  // namespace

PyObject* mix_pool(PyObject*, PyObject* arguments) {
    const char* data;
    Py_ssize_t bytes, size;
    if (!PyArg_ParseTuple(arguments, "y#n", &data, &bytes, &size)) return nullptr;
    if (size < 1 || size > kMostWords) {
        PyErr_SetString(PyExc_ValueError, "a pool of this size is not mixed here");
        return nullptr;
    }
    std::vector<std::uint32_t> words(static_cast<std::size_t>(bytes) / sizeof(std::uint32_t));
    if (!words.empty()) std::memcpy(words.data(), data, words.size() * sizeof(std::uint32_t));
    const auto pool = mixed(words, static_cast<std::size_t>(size));
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(pool.data()),
                                     size * static_cast<Py_ssize_t>(sizeof(std::uint32_t)));
}

}  // namespace warmfork::python
