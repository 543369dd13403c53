// Which parked child is taken next, with mailboxes that have no child behind them.
#include "owner/spare_pool.hpp"

#include <unistd.h>

#include "channel/message_socket.hpp"
#include "protocol/messages.hpp"
#include "support/catch.hpp"

namespace {

using warmfork::Born;
using warmfork::bytes_of;
using warmfork::make_owned_pair;
using warmfork::OwnedSocket;
using warmfork::SparePool;

/// A pool, and the children's ends of the mailboxes.
struct Children {
    SparePool pool;
    std::vector<OwnedSocket> ends;

    /// Adds the next child, from 1 on. Returns the owner's end of its mailbox.
    int add() {
        OwnedSocket mailbox, end;
        REQUIRE(make_owned_pair(mailbox, end) == 0);
        ends.push_back(std::move(end));
        const int number = mailbox.get();
        pool.add_mailbox(ends.size(), std::move(mailbox), warmfork::WaitClock::now());
        REQUIRE(pool.add(ends.size(), {}));
        return number;
    }

    void park(std::uint64_t id) {
        warmfork::MailboxReply parked{};
        parked.kind = warmfork::ReplyKind::parked;
        REQUIRE(warmfork::send_message(ends.at(id - 1).get(), bytes_of(parked), {}, {}, 0) == 0);
    }

    /// The id of the child that is taken; 0: there is none.
    std::uint64_t take() {
        const std::optional<Born> spare = pool.take();
        return spare ? spare->id : 0;
    }
};

}  // namespace

TEST_CASE("The oldest child that has parked is taken ahead of older ones that have not") {
    Children children;
    for (int i = 0; i < 3; ++i) children.add();
    children.park(2);
    children.park(3);
    CHECK(children.pool.count_parked() == 2);
    CHECK(children.take() == 2);
    CHECK(children.take() == 3);
    CHECK(children.take() == 1);
    CHECK(children.take() == 0);
}

TEST_CASE("After a late child only those that have parked are taken, until a younger one parks") {
    Children children;
    children.add();
    children.add();
    children.pool.note_late(2);
    CHECK(children.pool.is_slow());
    CHECK(children.take() == 0);
    children.park(1);
    CHECK(children.take() == 1);
    CHECK(children.pool.is_slow());
    children.add();
    children.park(3);
    CHECK(children.take() == 3);
    CHECK_FALSE(children.pool.is_slow());
    CHECK(children.take() == 2);
}

TEST_CASE("A child that is given back is the next one") {
    Children children;
    children.add();
    children.add();
    std::optional<Born> spare = children.pool.take();
    REQUIRE(spare);
    children.pool.give_back(std::move(*spare));
    CHECK(children.pool.size() == 2);
    CHECK(children.take() == 1);
}

TEST_CASE("A child whose mailbox the application has closed is passed over") {
    Children children;
    ::close(children.add());
    children.add();
    CHECK(children.take() == 2);
}

TEST_CASE("A child without a mailbox is not taken in") {
    SparePool pool;
    CHECK_FALSE(pool.add(1, {}));
    CHECK(pool.size() == 0);
}

TEST_CASE("A child that has ended before it was taken is not taken, nor is its mailbox used") {
    Children children;
    children.add();
    children.pool.remove(1);
    CHECK(children.take() == 0);
    OwnedSocket mailbox, end;
    REQUIRE(make_owned_pair(mailbox, end) == 0);
    children.pool.add_mailbox(2, std::move(mailbox), warmfork::WaitClock::now());
    children.pool.remove(2);
    CHECK_FALSE(children.pool.add(2, {}));
}
