"""Structures as arrays: predicted ones and references."""
