"""What `benchmarks.serve` is made of: systems, load generator, what their figures say together."""
