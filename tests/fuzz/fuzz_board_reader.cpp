// The statistics board as something else than a daemon may have written it.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "channel/descriptor.hpp"
#include "fuzz_input.hpp"
#include "service/board_object.hpp"
#include "service/board_reader.hpp"

using namespace warmfork;

namespace {

/// The board of this process, in /dev/shm until the process ends.
class Board {
  public:
    Board()
        : instance_("fuzz-" + std::to_string(::getpid())),
          path_("/dev/shm/" + board_name(::getuid(), instance_)),
          start_ticks_(process_start_ticks(static_cast<std::uint64_t>(::getpid()))) {
        file_ = Descriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
        if (!file_) std::abort();
    }
    ~Board() { ::unlink(path_.c_str()); }
    Board(const Board&) = delete;
    Board& operator=(const Board&) = delete;

    const std::string& instance() const { return instance_; }

    void write(fuzz::Input input) {
        auto layout = std::make_unique<BoardLayout>();
        auto* bytes = reinterpret_cast<std::byte*>(layout.get());
        const auto shape = input.number<std::uint8_t>();
        layout->identity.magic = kBoardMagic;
        layout->identity.version = kBoardVersion;
        layout->identity.pid = static_cast<std::uint64_t>(::getpid());
        layout->identity.start_ticks = start_ticks_;
        layout->daemon.value.template_slots = 4;
        layout->daemon.value.client_slots = 4;
        const std::size_t size = shape & 1
                                     ? input.number<std::uint32_t>() % (sizeof(BoardLayout) + 64)
                                     : sizeof(BoardLayout);
        // Pieces of the input, each in a place that the input names; the identity only on request.
        const std::size_t least = shape & 2 ? 0 : sizeof(BoardIdentity);
        while (!input.empty()) {
            const std::size_t base[] = {least, offsetof(BoardLayout, daemon),
                                        offsetof(BoardLayout, clients),
                                        offsetof(BoardLayout, templates)};
            const std::size_t at = base[input.number<std::uint8_t>() % 4] +
                                   input.number<std::uint16_t>() % sizeof(Published<BoardTemplate>);
            const std::span<const std::byte> piece = input.bytes(input.number<std::uint8_t>());
            if (at + piece.size() <= sizeof(BoardLayout) && !piece.empty())
                std::memcpy(bytes + at, piece.data(), piece.size());
        }
        if (::ftruncate(file_.get(), 0) < 0 ||
            ::pwrite(file_.get(), bytes, std::min(size, sizeof(BoardLayout)), 0) < 0 ||
            ::ftruncate(file_.get(), static_cast<off_t>(size)) < 0)
            std::abort();
    }

  private:
    std::string instance_, path_;
    std::uint64_t start_ticks_;
    Descriptor file_;
};

bool is_printable(const std::string& text) {
    return std::none_of(text.begin(), text.end(),
                        [](unsigned char byte) { return byte < 0x20 || byte == 0x7f; });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Board board;
    board.write(fuzz::Input(data, size));
    BoardSnapshot snapshot;
    if (read_board(::getuid(), board.instance(), snapshot)) return 0;
    fuzz::require(snapshot.templates.size() <= kBoardTemplates,
                  "there are no more templates than fit");
    fuzz::require(snapshot.clients.size() <= kBoardClients, "there are no more clients than fit");
    fuzz::require(is_printable(snapshot.release), "a release can go to a terminal");
    for (const TemplateSnapshot& entry : snapshot.templates)
        fuzz::require(
            is_printable(entry.name) && is_printable(entry.error) && is_printable(entry.base),
            "what stands on a board can go to a terminal");
    for (const ClientSnapshot& client : snapshot.clients)
        fuzz::require(client.pid > 0 && is_printable(client.command),
                      "a client has a number and a name for a terminal");
    return 0;
}
