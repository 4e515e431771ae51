"""Speed, memory and disk, measured as ratios in one run; `python -m tests.benchmarks --help` or `make benchmarks`."""
