// A spawn record as a template, or a parked child, receives it.
#include <vector>

#include "fuzz_input.hpp"
#include "protocol/record.hpp"

using namespace warmfork;

namespace {

std::vector<char*> point_at(std::span<char> strings, std::size_t count) {
    std::vector<char*> pointers(count + 1);
    point_at_strings(strings, count, pointers.data());
    for (std::size_t i = 0; i < count; ++i)
        fuzz::require(pointers[i] >= strings.data() &&
                          pointers[i] + std::strlen(pointers[i]) < strings.data() + strings.size(),
                      "each string of a record ends within the record");
    fuzz::require(pointers[count] == nullptr, "the pointers to strings end with a null");
    return pointers;
}

/// What was accepted can be written once more, and is then the same bytes.
void write_again(const RecordView& view, std::span<const std::byte> bytes) {
    const std::vector<char*> arguments = point_at(view.arguments, view.header.argument_count);
    const std::vector<char*> environment =
        point_at(view.environment, view.header.environment_count);
    RecordContents contents;
    contents.header = view.header;
    contents.limits.assign(view.limits.begin(), view.limits.end());
    contents.descriptor_targets.assign(view.descriptor_targets.begin(),
                                       view.descriptor_targets.end());
    contents.affinity.assign(view.affinity.begin(), view.affinity.end());
    if (view.executable) contents.executable = view.executable;
    if (view.directory) contents.directory = view.directory;
    contents.arguments = std::span(arguments.data(), view.header.argument_count);
    contents.environment = std::span(environment.data(), view.header.environment_count);
    contents.payload = view.payload;
    std::vector<std::byte> written;
    if (encode_record(contents, written)) return;
    RecordView again;
    fuzz::require(decode_record(written, again) == nullptr, "an encoded record can be decoded");
    fuzz::require(again.header.argument_count == view.header.argument_count &&
                      again.header.environment_count == view.header.environment_count &&
                      again.payload.size() == view.payload.size() &&
                      written.size() <= bytes.size() + 64,
                  "a record that is written anew says the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // A copy of exactly this size and alignment: what is read beyond it is seen.
    std::vector<std::byte> bytes(size);
    if (size) std::memcpy(bytes.data(), data, size);
    if (size >= sizeof(RecordHeader)) {
        // Which two words say is known to everybody, and is not what is looked for.
        const auto whole = static_cast<std::uint32_t>(size);
        std::memcpy(bytes.data(), &kRecordMagic, sizeof kRecordMagic);
        std::memcpy(bytes.data() + offsetof(RecordHeader, size), &whole, sizeof whole);
    }
    RecordView view;
    if (decode_record(bytes, view) == nullptr) write_again(view, bytes);
    return 0;
}
