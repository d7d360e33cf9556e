"""Runs a script as its users do, and then writes variables of it, which it prints rounded.

python with_variables.py OUT.json NAME,NAME SCRIPT ARGUMENTS...
"""

import json
import runpy
import sys

out, names, script, *arguments = sys.argv[1:]
sys.argv = [script, *arguments]
variables = runpy.run_path(script, run_name="__main__")
with open(out, "w") as file:
    json.dump({name: variables[name] for name in names.split(",")}, file, default=float)
