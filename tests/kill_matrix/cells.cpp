#include "kill_matrix/cells.hpp"

#include <fmt/format.h>

namespace {

constexpr bool kService = true, kCaller = false;

// Who is killed while it is the caller: no outcome but its end. Who is the caller and stops goes
// on, and so there is nothing to hang.
const std::vector<Cell> table{
    {Scene::parked, "owner.before-hand-off", kCaller, {"+", "w", ""}},
    {Scene::parked, "owner.hand-off-told", kCaller, {"+", "w", ""}},
    {Scene::parked, "owner.record-sent", kCaller, {"+", "w", ""}},
    {Scene::parked, "owner.start-heard", kCaller, {"+", "w", ""}},
    {Scene::parked, "template.before-fork", kCaller, {"w", "w", "w"}},
    {Scene::parked, "template.forked", kCaller, {"w", "w", "w"}},
    {Scene::parked, "template.birth-told", kCaller, {"w", "w", "w"}},
    {Scene::parked, "template.child-ended", kCaller, {"w", "w", "w"}},
    {Scene::parked, "child.record-taken", kCaller, {"w", "w", "wc"}},
    {Scene::parked, "child.before-start", kCaller, {"w", "w", "wc"}},
    {Scene::parked, "child.before-user-code", kCaller, {"k", "w", ""}},

    {Scene::forked, "owner.before-command", kCaller, {"+", "w", ""}},
    {Scene::forked, "owner.command-sent", kCaller, {"+", "w", ""}},
    {Scene::forked, "template.command-taken", kCaller, {"wc", "w", "c"}},
    {Scene::forked, "template.before-fork", kCaller, {"wc", "w", "c"}},
    {Scene::forked, "template.forked", kCaller, {"w", "w", "w"}},
    {Scene::forked, "template.birth-told", kCaller, {"w", "w", "w"}},
    {Scene::forked, "child.forked", kCaller, {"e", "w", "c"}},
    {Scene::forked, "child.record-taken", kCaller, {"e", "w", "c"}},
    {Scene::forked, "child.before-start", kCaller, {"e", "w", "c"}},
    {Scene::forked, "child.before-user-code", kCaller, {"k", "w", ""}},

    {Scene::launched, "owner.before-launch", kCaller, {"+", "w", ""}},
    {Scene::launched, "owner.launched", kCaller, {"+", "w", ""}},
    {Scene::launched, "template.preloaded", kCaller, {"e", "w", "c"}},
    {Scene::launched, "template.before-fork", kCaller, {"wc", "w", "c"}},
    {Scene::launched, "child.forked", kCaller, {"we", "w", "wc"}},
    {Scene::launched, "child.before-parking", kCaller, {"w", "w", "wc"}},
    {Scene::launched, "child.parked", kCaller, {"w", "w", "wc"}},

    {Scene::cold, "owner.before-cold-fork", kCaller, {"+", "c", ""}},
    {Scene::cold, "owner.cold-forked", kCaller, {"+", "c", ""}},
    {Scene::cold, "cold-child.kept", kCaller, {"k", "c", ""}},
    {Scene::cold, "cold-child.before-exec", kCaller, {"k", "c", ""}},
    {Scene::cold, "keeper.before-greeting", kCaller, {"c", "c", "c"}},
    {Scene::cold, "keeper.before-child", kCaller, {"c", "c", "c"}},
    {Scene::cold, "keeper.child-taken", kCaller, {"c", "c", "c"}},

    {Scene::owner_ends, "template.owner-gone", kCaller, {"+", "+", ""}},
    {Scene::owner_ends, "keeper.owner-gone", kCaller, {"+", "+", ""}},

    {Scene::served, "client.hello-said", kCaller, {"+", "w", ""}},
    {Scene::served, "client.lease-asked", kCaller, {"+", "w", ""}},
    {Scene::served, "client.leased", kCaller, {"+", "w", ""}},
    {Scene::served, "owner.record-sent", kCaller, {"+", "w", ""}},
    {Scene::served, "owner.start-heard", kCaller, {"+", "w", ""}},
    {Scene::served, "daemon.client-accepted", kService, {"w", "w", "e"}},
    {Scene::served, "daemon.lease-asked", kService, {"w", "w", "c"}},
    {Scene::served, "daemon.child-chosen", kService, {"w", "w", "c"}},
    {Scene::served, "daemon.child-kept", kService, {"w", "w", "c"}},
    {Scene::served, "daemon.lease-sent", kService, {"wckl", "w", "w"}},
    {Scene::served, "child.record-taken", kService, {"w", "w", "c"}},
    {Scene::served, "child.before-start", kService, {"w", "w", "c"}},
    {Scene::served, "child.before-user-code", kService, {"k", "w", ""}},
    {Scene::served, "template.before-fork", kService, {"w", "w", "w"}},
    {Scene::served, "template.forked", kService, {"w", "w", "w"}},
    {Scene::served, "keeper.before-child", kService, {"w", "w", "w"}},
    {Scene::served, "keeper.child-taken", kService, {"w", "w", "w"}},

    {Scene::served_launch, "owner.before-launch", kService, {"w", "w", "c"}},
    {Scene::served_launch, "owner.launched", kService, {"w", "w", "c"}},
    {Scene::served_launch, "template.preloaded", kService, {"c", "w", "c"}},
    {Scene::served_launch, "template.before-fork", kService, {"w", "w", "c"}},
    {Scene::served_launch, "child.before-parking", kService, {"w", "w", "wc"}},
    {Scene::served_launch, "keeper.before-greeting", kService, {"w", "w", "w"}},

    {Scene::served_exit, "daemon.child-reaped", kService, {"wl", "w", "w"}},

    {Scene::reload, "daemon.before-exec", kService, {"w", "w", "c"}},
    {Scene::reload, "daemon.taken-over", kService, {"w", "w", "c"}},
};

}  // namespace

const std::vector<Cell>& cells() {
    return table;
}

const char* name_of(Scene scene) {
    constexpr const char* kNames[] = {"parked",     "forked", "launched",         "cold",
                                      "owner ends", "served", "served, launched", "served, exit",
                                      "reload"};
    return kNames[static_cast<std::size_t>(scene)];
}

const char* name_of(Action action) {
    constexpr const char* kNames[] = {"kill", "stop", "hang"};
    return kNames[static_cast<std::size_t>(action)];
}

bool is_served(Scene scene) {
    return scene >= Scene::served;
}

std::string party_of(const Cell& cell) {
    const std::string_view point(cell.point);
    std::string party(point.substr(0, point.find('.')));
    if (party == "owner" && is_served(cell.scene)) return cell.is_of_service ? "daemon" : "client";
    return party;
}

std::string table_of_cells() {
    std::string text =
        "| scene | who | step | killed | stopped and continued | stopped |\n"
        "|---|---|---|---|---|---|\n";
    for (const Cell& cell : cells()) {
        text += fmt::format("| {} | {} | {} |", name_of(cell.scene), party_of(cell), cell.point);
        for (const char* outcomes : cell.outcomes)
            text += fmt::format(" {} |", *outcomes ? outcomes : "-");
        text += '\n';
    }
    return text;
}
