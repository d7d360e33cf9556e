"""Measures of a predicted structure beside an experimental one."""
