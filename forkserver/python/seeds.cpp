#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x03090000
#include "python/seeds.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "template/atfork.hpp"

namespace warmfork::python {
namespace {

// Names and numbers as in Matsumoto's and Nishimura's mt19937ar.c, which both libraries have.
constexpr std::size_t kWords = 624;
constexpr std::size_t kMiddle = 397;
constexpr std::uint32_t kMatrix = 0x9908b0df;
constexpr std::uint32_t kUpper = 0x80000000;
constexpr std::uint32_t kOfNumber = 1812433253;
constexpr std::uint32_t kOfNumberBack = 2520285293;  // times kOfNumber: 1
constexpr std::uint32_t kOfFirstPass = 1664525;
constexpr std::uint32_t kOfSecondPass = 1566083941;
constexpr std::uint32_t kBeforeKey = 19650218;
static_assert(kOfNumber * kOfNumberBack == 1);

// Blocks of numbers that are taken back: three million numbers, some hundredths of a second.
constexpr int kMostBlocks = 5000;
// A number or text of more words is not recognised; those of a key have to come again in the state.
constexpr std::size_t kMostKey = 128;

using State = std::array<std::uint32_t, kWords>;
using Key = std::vector<std::uint32_t>;

std::uint32_t mixed(std::uint32_t word) {
    return word ^ word >> 30;
}

/// Words that differ from a number's by what the one before has done to them.
State seeded_by(std::uint32_t seed) {
    State state{seed};
    for (std::uint32_t i = 1; i < kWords; ++i) state[i] = kOfNumber * mixed(state[i - 1]) + i;
    return state;
}

/// The state before the last 624 numbers. Of the first word only the highest bit is known where
/// that was the beginning.
void take_back(State& state) {
    for (std::size_t i = kWords; i-- > 0;) {
        const auto part = [&state](std::size_t at) {
            return state[at % kWords] ^ state[(at + kMiddle) % kWords];
        };
        std::uint32_t high = part(i);
        if (high & kUpper) high ^= kMatrix;
        std::uint32_t low = part(i + kWords - 1);
        const bool is_odd = low & kUpper;
        if (is_odd) low ^= kMatrix;
        state[i] = (high << 1 & kUpper) | (low << 1 & ~kUpper) | (is_odd ? 1 : 0);
    }
}

/// Of a generator that was seeded with one word, as numpy does; false: it was not.
bool find_number(const State& state, Key& ret_key) {
    for (std::uint32_t i = 2; i < kWords; ++i)
        if (state[i] != kOfNumber * mixed(state[i - 1]) + i) return false;
    ret_key = {mixed((state[1] - 1) * kOfNumberBack)};
    return true;
}

/// What the key has added to each word, from the third on, if it was seeded with a key: word n of
/// the key and n, over and over again.
std::array<std::uint32_t, kWords - 3> added_by_key(const State& state) {
    static const State before = seeded_by(kBeforeKey);
    State first = state;  // after the first of the two passes
    first[1] = (state[1] + 1) ^ mixed(state[kWords - 1]) * kOfSecondPass;
    for (std::uint32_t i = 2; i < kWords; ++i) {
        const std::uint32_t last = i == 2 ? first[1] : state[i - 1];
        first[i] = (state[i] + i) ^ mixed(last) * kOfSecondPass;
    }
    std::array<std::uint32_t, kWords - 3> added;
    for (std::size_t i = 3; i < kWords; ++i)
        added[i - 3] = first[i] - (before[i] ^ mixed(first[i - 1]) * kOfFirstPass);
    return added;
}

/// Is it the key of as many words that these bytes are? The first two words and the last one leave
/// no trace.
bool are_key(const DrawnBytes& draw, const std::array<std::uint32_t, kWords - 3>& added) {
    State key;
    std::memcpy(key.data(), draw.bytes, sizeof key);
    for (std::uint32_t i = 0; i < added.size(); ++i)
        if (added[i] != key[i + 2] + i + 2) return false;
    return true;
}

bool are_state(const DrawnBytes& draw, const State& state) {
    constexpr std::size_t kFirst = sizeof state[0];
    return std::memcmp(draw.bytes + kFirst, state.data() + 1, sizeof state - kFirst) == 0;
}

/// Random bytes that are this state, or its key; false: none.
bool find_draw(const State& state, const std::array<std::uint32_t, kWords - 3>& added,
               const std::vector<DrawnBytes>& draws, Key& ret_key) {
    for (const DrawnBytes& draw : draws) {
        if (!are_key(draw, added) && !are_state(draw, state)) continue;
        ret_key.resize(kWords);
        std::memcpy(ret_key.data(), draw.bytes, draw.size);
        return true;
    }
    return false;
}

/// Of a generator that was seeded with a key of some words, as Python does; false: it was not.
bool find_key(const std::array<std::uint32_t, kWords - 3>& added, Key& ret_key) {
    for (std::size_t size = 1; size <= kMostKey; ++size) {
        if (std::memcmp(added.data(), added.data() + size,
                        (added.size() - size) * sizeof added[0]) != 0)
            continue;
        ret_key.resize(size);
        for (std::uint32_t i = 2; i < size + 2; ++i)
            ret_key[i % size] = added[i - 2] - static_cast<std::uint32_t>(i % size);
        return true;
    }
    return false;
}

/// Draws that fill a state, behind these.
void add_draws_of_a_state(std::vector<DrawnBytes>& draws) {
    const PreloadInterface* preload = find_preload();
    for (std::size_t i = 0; preload && i < preload->asked->draw_count; ++i)
        if (preload->asked->draws[i].size == sizeof(State))
            draws.push_back(preload->asked->draws[i]);
}

bool find_seed(State state, const std::vector<DrawnBytes>& draws, Key& ret_key) {
    for (int block = 0; block < kMostBlocks; ++block) {
        if (find_number(state, ret_key)) return true;
        const auto added = added_by_key(state);
        if (find_key(added, ret_key) || find_draw(state, added, draws, ret_key)) return true;
        take_back(state);
    }
    return false;
}

}  // namespace

PyObject* seed_of(PyObject*, PyObject* arguments) {
    const unsigned char *words, *others;
    Py_ssize_t size, others_size;
    if (!PyArg_ParseTuple(arguments, "y#y#", &words, &size, &others, &others_size)) return nullptr;
    State state;
    constexpr auto kSize = static_cast<Py_ssize_t>(sizeof state);
    if (size != kSize || others_size % kSize != 0) {
        PyErr_SetString(PyExc_ValueError, "not 624 words");
        return nullptr;
    }
    std::memcpy(state.data(), words, sizeof state);
    std::vector<DrawnBytes> draws;
    for (Py_ssize_t at = 0; at < others_size; at += kSize)
        draws.push_back({others + at, sizeof state});
    add_draws_of_a_state(draws);
    Key key;
    if (!find_seed(state, draws, key)) Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(key.data()),
                                     static_cast<Py_ssize_t>(key.size() * sizeof key[0]));
}

}  // namespace warmfork::python
