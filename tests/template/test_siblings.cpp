// What a child was given is not found in the memory of one that is born later.
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/processes.hpp"

namespace {

/// What `probe search SEED` looks for.
std::string secret(int seed) {
    std::string text;
    for (int at = 0; at < 32; ++at) text += static_cast<char>('a' + (at * 7 + seed) % 26);
    return text;
}

/// Runs a child that is given the secret as a variable, an argument and a payload. With `ballast`
/// the record is of that many bytes more.
std::string run_with_secret(warmfork::Template& table, std::vector<std::string> command, int seed,
                            std::size_t ballast = 0) {
    command.push_back(secret(seed));
    const std::string variable = "SECRET=" + secret(seed);
    const std::string large = "BALLAST=" + std::string(ballast, 'x');
    const char* const changes[] = {variable.c_str(), large.c_str(), nullptr};
    const std::string payload = secret(seed);
    ProbeRequest request(std::move(command));
    request.request.environment_changes = changes;
    request.request.payload = payload.data();
    request.request.payload_size = payload.size();
    return output_of(table, request);
}

std::string search(warmfork::Template& table, int seed) {
    return output_of(table, {"search", std::to_string(seed)});
}

}  // namespace

TEST_CASE("A child finds nothing of what a sibling before it was given") {
    for (int spares : {0, 2})
        for (std::size_t ballast : {std::size_t{0}, std::size_t{50'000}, std::size_t{100'000}}) {
            CAPTURE(spares, ballast);
            warmfork::Template table = probe_template(0);
            CHECK(run_with_secret(table, {"search", "3"}, 3, ballast) != "0");
            warmfork_template_set_spares(table.handle(), spares);
            table.wait_parked(static_cast<unsigned>(spares));
            for (int turn = 0; turn < 3; ++turn) CHECK(search(table, 3) == "0");
        }
}

TEST_CASE("A child of a nested template finds nothing of what its parent was given") {
    for (int spares : {0, 1}) {
        CAPTURE(spares);
        warmfork::Template table = probe_template(spares, {}, WARMFORK_BACKEND_WARM, true);
        table.wait_parked(static_cast<unsigned>(spares));
        CHECK(run_with_secret(table, {"search-below", "5"}, 5) == "0");
    }
}
