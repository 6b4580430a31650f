"""Speed as ratios against named peers and limits, every ratio from interleaved repeats in one run. `make bench` runs them all."""
