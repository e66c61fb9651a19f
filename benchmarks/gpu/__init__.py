"""What a GPU is worth: `python -m benchmarks.gpu`."""
