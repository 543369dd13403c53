// A template of this process's own: its images are processes that it has started.
#pragma once

#include "owner/image_source.hpp"
#include "owner/images.hpp"

namespace warmfork {

class EmbeddedSource : public OpenTemplate {
  public:
    explicit EmbeddedSource(ImageSet::Definition definition);

    /// Starts a process unless one runs. Where none can be had because of what this process is, and
    /// spawns may be cold, that is no failure: they say why.
    [[nodiscard]] Outcome start(bool may_be_cold);

    Outcome find_program(TemplateProgram& ret_program, ColdReason& ret_cold) override;
    Outcome choose(const Wish& wish, std::unique_ptr<ChosenImage>& ret_image,
                   ColdReason& ret_cold) override;
    void end(const Spawned& child) override;

    bool is_usable() const override { return owner_ == ::getpid(); }
    Outcome wait_ready(Deadline deadline) override;
    Outcome wait_parked(std::uint32_t count, Deadline deadline) override;
    Outcome report(std::string& ret_json) override;
    int set_spares(std::uint32_t least, std::uint32_t most) override {
        return images_.set_spares(least, most);
    }
    pid_t pid() override;
    /// Tells of the first image.
    std::string progress() override;
    std::uint32_t parked() override { return images_.parked(); }
    std::uint64_t starts() const override { return images_.starts(); }
    void leave_unchecked() override {
        is_unchecked_ = true;
        images_.leave_unchecked();
    }

  private:
    using Process = ImageSet::Process;
    class Image;

    [[nodiscard]] Outcome ready_image(Deadline deadline, Process& ret_process);

    const pid_t owner_;
    const bool is_python_;
    const std::string program_;
    bool is_unchecked_ = false;
    ImageSet images_;
};

}  // namespace warmfork
