"""Fuzzing of the readers with damaged and random inputs, which may raise ValueError only."""
