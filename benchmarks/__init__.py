"""Measure what leasing costs, as ratios against parts measured in the same run. `python -m benchmarks --help`."""
