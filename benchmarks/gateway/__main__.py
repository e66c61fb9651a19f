"""`python -m benchmarks.gateway`: see `benchmarks.gateway.bench`."""

from benchmarks.gateway.bench import main

main()
