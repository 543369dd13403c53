// What a spawn does with what its source of images gives it: without any template.
#include <sys/wait.h>

#include <deque>

#include "owner/cold.hpp"
#include "owner/spawner.hpp"
#include "support/catch.hpp"

namespace {

using warmfork::ChildRecord;
using warmfork::ChosenImage;
using warmfork::ColdReason;
using warmfork::Failure;
using warmfork::Outcome;
using warmfork::OwnerState;
using warmfork::Request;
using warmfork::Spawned;
using warmfork::Spawner;
using warmfork::Stage;

constexpr char kProgram[] = "/bin/true";
constexpr pid_t kForked = 1'000'000'000;  // no process has such a number

/// What the source has, and what was asked of it.
struct Scene {
    bool is_leased = false;
    int parked_dead = 0;                  ///< so many parked children have died
    std::deque<Outcome> forks;            ///< what comes of each fork on command; then it succeeds
    std::deque<ColdReason> cold_choices;  ///< of each choice; then there is an image
    std::string owner_change;
    bool is_change_lasting = true;
    std::uint32_t most_at_once = UINT32_MAX;

    int choices = 0, taken = 0, forked = 0, replaced = 0, failures_noted = 0, freed = 0, ended = 0;
    std::vector<bool> may_wait;
    OwnerState state = warmfork::read_owner_state();
    std::string directory = "/";
    warmfork::ModuleFiles shadowable;
};

class SceneImage : public ChosenImage {
  public:
    explicit SceneImage(Scene& scene)
        : ChosenImage({1, {}, scene.shadowable, scene.directory}, scene.state,
                      {warmfork::Lifetime::detached, 0, false, scene.is_leased}),
          scene_(scene) {}

    warmfork::OwnerChange find_change(const OwnerState&) override {
        return {scene_.owner_change, scene_.is_change_lasting};
    }
    void replace(const warmfork::OwnerChange&) override { ++scene_.replaced; }
    warmfork::Born* take_parked() override {
        if (scene_.parked_dead == 0) return nullptr;
        --scene_.parked_dead;
        ++scene_.taken;
        warmfork::OwnedSocket of_child;
        REQUIRE(warmfork::make_owned_pair(parked_.mailbox, of_child) == 0);
        return &parked_;
    }
    Spawned release_started() override { return {}; }
    void end_parked() override {}
    Outcome fork_on_command(const ChildRecord&, const Request&, std::uint32_t count, bool,
                            std::vector<Spawned>& ret_spawned) override {
        ++scene_.forked;
        if (!scene_.forks.empty()) {
            Outcome failure = std::move(scene_.forks.front());
            scene_.forks.pop_front();
            if (failure) return failure;
        }
        ret_spawned.assign(count, Spawned{kForked, true, {}, {}});
        return {};
    }
    void note_failure(const Failure&) override { ++scene_.failures_noted; }

  private:
    Scene& scene_;
    warmfork::Born parked_;
};

class SceneSource : public warmfork::ImageSource {
  public:
    explicit SceneSource(Scene& scene) : scene_(scene) {}

    Outcome find_program(warmfork::TemplateProgram& ret_program, ColdReason&) override {
        ret_program.path = kProgram;
        return {};
    }
    Outcome choose(const warmfork::Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                   ColdReason& ret_cold) override {
        ++scene_.choices;
        scene_.may_wait.push_back(wish.may_wait);
        if (!scene_.cold_choices.empty()) {
            ret_cold = std::move(scene_.cold_choices.front());
            scene_.cold_choices.pop_front();
        }
        if (!ret_cold) ret_image = std::make_unique<SceneImage>(scene_);
        return {};
    }
    std::uint32_t most_at_once() const override { return scene_.most_at_once; }
    void end(const Spawned& child) override {
        ++scene_.ended;
        if (!child.is_warm) warmfork::end_child(child.identity());
    }
    void free_descriptors() override { ++scene_.freed; }

  private:
    Scene& scene_;
};

/// What came of a spawn.
struct Result {
    Outcome failure;
    std::vector<Spawned> spawned;
    warmfork_counts counts{};

    /// The reason of the one child; "warm", or "error".
    std::string kind() const {
        if (failure) return "error";
        return spawned.front().is_warm ? "warm"
                                       : warmfork_reason_name(spawned.front().reason.reason);
    }
};

Result spawn(Scene& scene, warmfork::SpawnPolicy policy = {WARMFORK_BACKEND_AUTO},
             std::uint32_t count = 1) {
    const char* const arguments[] = {kProgram, nullptr};
    warmfork_request given;
    warmfork_request_init(&given);
    given.arguments = arguments;
    Request request;
    REQUIRE_FALSE(request.read(given));
    SceneSource source(scene);
    Spawner spawner(source, policy);
    Result result;
    result.failure = spawner.spawn(request, count, result.spawned);
    spawner.counts(result.counts);
    for (const Spawned& child : result.spawned)
        if (!child.is_warm) warmfork::end_child(child.identity());
    return result;
}

Outcome failing(Stage stage, int error_number) {
    return Failure{stage, error_number, 0, "it failed"};
}

}  // namespace

TEST_CASE("Parked children that have died are replaced, and then one is forked") {
    Scene scene;
    scene.parked_dead = 100;
    const Result result = spawn(scene);
    CHECK(result.kind() == "warm");
    CHECK(scene.taken == warmfork::kHandOffTries);
    CHECK(scene.forked == 1);
    CHECK(result.counts.forked == 1);
    CHECK(result.counts.handed_off == 0);
}

TEST_CASE("Leased children that have died are replaced, and then it is an error") {
    Scene scene;
    scene.is_leased = true;
    scene.parked_dead = 100;
    const Result result = spawn(scene);
    REQUIRE(result.failure);
    CHECK(result.failure->stage == Stage::hand_off);
    CHECK(scene.taken == warmfork::kHandOffTries);
    CHECK(scene.choices == warmfork::kHandOffTries);
    CHECK(scene.forked == 0);
    CHECK(result.counts.cold == 0);
}

TEST_CASE("What a template cannot do decides whether the child is cold") {
    struct Row {
        Outcome failure;
        const char* kind;
        int forked;
    };
    const Row rows[] = {
        {failing(Stage::stale, ESTALE), "stale", 1},
        {failing(Stage::hand_off, ETIMEDOUT), "unresponsive", 1},
        {failing(Stage::hand_off, EPIPE), "warm", 2},
        {failing(Stage::gate, EBUSY), "gate", 1},
        {failing(Stage::fork, EAGAIN), "fork", 1},
        {failing(Stage::descriptors, EMFILE), "limits", 1},
        {failing(Stage::directory, ENOENT), "error", 1},
        {failing(Stage::hand_off, EAGAIN), "error", 1},
    };
    for (const Row& row : rows) {
        INFO(row.kind);
        Scene scene;
        scene.forks = {row.failure};
        const Result result = spawn(scene);
        CHECK(result.kind() == row.kind);
        CHECK(scene.forked == row.forked);
        CHECK(scene.freed == (row.failure->error_number == EMFILE));
        const bool is_cold = !result.failure && !result.spawned.front().is_warm;
        CHECK(result.counts.cold == is_cold);
        if (is_cold) CHECK(result.counts.cold_by_reason[result.spawned.front().reason.reason] == 1);

        Scene insisting;
        insisting.forks = {row.failure};
        const std::string kind = spawn(insisting, {WARMFORK_BACKEND_WARM}).kind();
        const bool may_succeed = row.forked == 2 || row.failure->stage == Stage::stale;
        CHECK(kind == (may_succeed ? "warm" : "error"));
    }
}

TEST_CASE("Templates that end over and over are an error in the end") {
    Scene scene;
    scene.forks.assign(100, failing(Stage::hand_off, EPIPE));
    const Result result = spawn(scene);
    REQUIRE(result.failure);
    CHECK(result.failure->error_number == EPIPE);
    CHECK(scene.forked > 1);
    CHECK(scene.forked < 20);
    CHECK(scene.failures_noted == scene.forked - 1);
}

TEST_CASE("Who waits for a fresh image waits for the next, but not endlessly") {
    Scene scene;
    scene.forks.assign(2, failing(Stage::stale, ESTALE));
    CHECK(spawn(scene, {WARMFORK_BACKEND_AUTO, WARMFORK_STALE_WAIT}).kind() == "warm");
    CHECK(scene.may_wait == std::vector<bool>{false, true, true});
    scene.forks.assign(100, failing(Stage::stale, ESTALE));
    CHECK(spawn(scene, {WARMFORK_BACKEND_AUTO, WARMFORK_STALE_WAIT}).kind() == "stale");
}

TEST_CASE("An image of another owner is replaced, and who insists gets the next one") {
    Scene scene;
    scene.owner_change = "it has changed";
    scene.is_change_lasting = false;
    const Result cold = spawn(scene);
    CHECK(cold.kind() == "owner-changed");
    CHECK(cold.spawned.front().reason.text == "it has changed");
    CHECK(scene.replaced == 1);
    CHECK(scene.choices == 1);

    const Result insisting = spawn(scene, {WARMFORK_BACKEND_WARM});
    REQUIRE(insisting.failure);
    CHECK(insisting.failure->text == "cannot be served warm: it has changed");
    CHECK(scene.replaced == 3);
    CHECK(scene.choices == 3);

    scene.is_change_lasting = true;
    CHECK(spawn(scene).kind() == "owner-changed");
    CHECK(scene.replaced == 3);
}

TEST_CASE("Children that are leased one by one are all spawned or none") {
    Scene scene;
    scene.most_at_once = 1;
    scene.forks = {{}, {}, failing(Stage::directory, ENOENT)};
    CHECK(spawn(scene, {}, 3).failure);
    CHECK(scene.ended == 2);

    // Each for itself: one that cannot be warm is cold.
    scene.cold_choices = {{}, {WARMFORK_REASON_PROGRAM, "another program"}};
    const Result result = spawn(scene, {}, 3);
    REQUIRE_FALSE(result.failure);
    CHECK(result.spawned.size() == 3);
    CHECK(result.counts.forked == 2);
    CHECK(result.counts.cold == 1);
    CHECK(scene.ended == 2);
}

TEST_CASE("The cold backend asks nothing of the source") {
    Scene scene;
    const Result result = spawn(scene, {WARMFORK_BACKEND_COLD});
    CHECK(result.kind() == "asked");
    CHECK(result.spawned.front().reason.text == "the cold backend was asked for");
    CHECK(scene.choices == 0);
}
