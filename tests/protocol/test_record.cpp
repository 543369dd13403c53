#include <cstring>
#include <random>

#include "protocol/record.hpp"
#include "support/catch.hpp"

using namespace warmfork;

namespace {

std::vector<std::byte> example_record() {
    static const char* const arguments[] = {"python3", "-c", "pass"};
    static const char* const environment[] = {"A=1", "B="};
    static const std::byte payload[] = {std::byte{1}, std::byte{0}, std::byte{2}};
    RecordContents contents;
    contents.header.flags = kRecordUmask | kRecordProcessGroup;
    contents.header.file_mode_mask = 027;
    contents.header.process_group = 7;
    contents.descriptor_targets = {0, 1, 2};
    contents.limits = {{7, 0, 100, 200}};
    contents.affinity.resize(8, std::byte{3});
    contents.directory = "/tmp";
    contents.arguments = arguments;
    contents.environment = environment;
    contents.payload = payload;
    std::vector<std::byte> record;
    REQUIRE(encode_record(contents, record) == 0);
    return record;
}

template <typename Field>
void overwrite(std::vector<std::byte>& record, std::size_t offset, Field value) {
    std::memcpy(record.data() + offset, &value, sizeof value);
}

}  // namespace

TEST_CASE("A record is decoded to what it was encoded from") {
    std::vector<std::byte> record = example_record();
    RecordView view;
    REQUIRE(decode_record(record, view) == nullptr);
    CHECK(view.header.file_mode_mask == 027);
    CHECK(view.descriptor_targets.size() == 3);
    CHECK(view.limits[0].hard == 200);
    CHECK(view.executable == nullptr);
    CHECK(std::string(view.directory) == "/tmp");
    CHECK(std::string(view.arguments.data(), view.arguments.size()) ==
          std::string("python3\0-c\0pass\0", 16));
    CHECK(std::string(view.environment.data(), view.environment.size()) ==
          std::string("A=1\0B=\0", 7));
    CHECK(view.payload.size() == 3);
    char* pointers[4];
    point_at_strings(view.arguments, 3, pointers);
    CHECK(std::string(pointers[2]) == "pass");
    CHECK(pointers[3] == nullptr);
}

TEST_CASE("A record that was cut short is refused at every length") {
    const std::vector<std::byte> record = example_record();
    for (std::size_t size = 0; size < record.size(); ++size) {
        std::vector<std::byte> shorter(record.begin(),
                                       record.begin() + static_cast<std::ptrdiff_t>(size));
        RecordView view;
        REQUIRE(decode_record(shorter, view) != nullptr);
    }
}

TEST_CASE("A record whose lengths lie is refused") {
    for (std::size_t field = offsetof(RecordHeader, limit_count);
         field <= offsetof(RecordHeader, payload_bytes); field += 4)
        for (std::uint32_t lie : {0u, 1u, 5u, 4096u, 0x7fffffffu, 0xfffffff8u, 0xffffffffu}) {
            std::vector<std::byte> record = example_record();
            std::uint32_t truth;
            std::memcpy(&truth, record.data() + field, 4);
            if (truth == lie) continue;
            overwrite(record, field, lie);
            RecordView view;
            INFO("field at " << field << " says " << lie);
            CHECK(decode_record(record, view) != nullptr);
        }
}

TEST_CASE("No bytes make the decoder look outside of them") {
    // The sanitizer build watches the bounds.
    std::mt19937 random(1);
    for (int round = 0; round < 20000; ++round) {
        std::vector<std::byte> record = example_record();
        for (int changes = 0; changes < 1 + round % 8; ++changes)
            record[random() % record.size()] = static_cast<std::byte>(random());
        RecordView view;
        if (decode_record(record, view) == nullptr) {
            std::vector<char*> pointers(view.header.argument_count + 1);
            point_at_strings(view.arguments, view.header.argument_count, pointers.data());
        }
    }
}

TEST_CASE("Values out of range are refused when a record is made") {
    const char* const arguments[] = {"true"};
    RecordContents contents;
    contents.arguments = arguments;
    std::vector<std::byte> record;
    SECTION("nothing wrong") {
        CHECK(encode_record(contents, record) == 0);
    }
    SECTION("umask") {
        contents.header.file_mode_mask = 01000;
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("nice") {
        contents.header.nice = 20;
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("a descriptor twice") {
        contents.descriptor_targets = {3, 4, 3};
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("a negative descriptor") {
        contents.descriptor_targets = {-1};
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("too many descriptors") {
        for (int number = 0; number < 251; ++number) contents.descriptor_targets.push_back(number);
        CHECK(encode_record(contents, record) == E2BIG);
    }
    SECTION("a soft limit above the hard one") {
        contents.limits = {{0, 0, 2, 1}};
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("no arguments") {
        contents.arguments = {};
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("session and group") {
        contents.header.flags = kRecordNewSession | kRecordProcessGroup;
        CHECK(encode_record(contents, record) == EINVAL);
    }
    SECTION("a terminal without a session") {
        contents.header.flags = kRecordTerminal;
        CHECK(encode_record(contents, record) == EINVAL);
    }
}

TEST_CASE("The size limits are those of execve and of the protocol") {
    RecordContents contents;
    std::vector<std::byte> record;
    const std::string longest(kMaximumStringSize - 1, 'x');
    const std::string too_long(kMaximumStringSize, 'x');
    const char* fits[] = {longest.c_str()};
    const char* does_not_fit[] = {too_long.c_str()};
    contents.arguments = fits;
    CHECK(encode_record(contents, record) == 0);
    contents.arguments = does_not_fit;
    CHECK(encode_record(contents, record) == E2BIG);
    std::vector<const char*> many(16, longest.c_str());
    contents.arguments = many;
    CHECK(encode_record(contents, record) == E2BIG);  // 2 MiB and a header
    many.pop_back();
    contents.arguments = many;
    CHECK(encode_record(contents, record) == 0);
}
