"""The benchmarks behind `warmfork bench`: spawns against their peers and limits, in one run."""
