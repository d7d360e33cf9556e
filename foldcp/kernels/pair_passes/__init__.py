"""Passes over pairs on Hopper: projections, gates, residuals and the transition in CUDA C++."""
