"""Made-up radiographs, broken files and pictures that are no chests: for demos, tests and benchmarks."""
