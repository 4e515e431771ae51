"""Speed, memory and disk, measured as ratios in one run; `python -m benchmarks --help` from tests/, or `make benchmarks`."""
