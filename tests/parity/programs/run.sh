#!/usr/bin/env bash
# Compares our interface scores with the field's programs: bash tests/parity/programs/run.sh [arguments for pytest]
#
# They have an environment of their own, .venv-programs. Scripts that are no package are fetched from GitHub, at
# pinned commits; where that cannot be reached, FOLDCP_PROGRAMS names a folder that has them (sources.py).
set -euo pipefail
cd "$(dirname "$0")/../../.."
pins=tests/parity/programs/scripts/pins.txt
installed=.venv-programs/installed-$(cksum <"$pins" | cut -d' ' -f1)
if [ ! -f "$installed" ]; then
    rm -rf .venv-programs
    .venv/bin/python -m venv .venv-programs
    .venv-programs/bin/pip install -q -r "$pins"
    touch "$installed"
fi
.venv/bin/python -m pytest tests/parity/programs --programs .venv-programs -q -rs "$@"
