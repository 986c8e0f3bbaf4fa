"""Benchmarks on Tiny Zoo, where the true edit of every picture is known."""
