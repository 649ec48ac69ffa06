"""Speed against peers: `make bench`, or `python -m benchmarks`. Ratios inside one process, never bare seconds."""
