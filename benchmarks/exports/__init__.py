"""Models taken away, measured: `python -m benchmarks.exports MODEL …`."""
