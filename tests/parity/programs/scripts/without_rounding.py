"""Runs a script as its users do, whose tables keep all their digits.

python without_rounding.py SCRIPT ARGUMENTS...
"""

import runpy
import sys

import pandas as pd

pd.Series.round = lambda self, *_: self
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
