"""Inputs as people have them, with what should come of each; they are not part of the project."""
