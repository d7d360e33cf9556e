#!/usr/bin/env bash
# Compares us with the public package boltz 2.2.1: bash tests/parity/run.sh [arguments for pytest]
#
# Boltz has an environment of its own, .venv-parity, since its pins exclude ours. There it writes what it computes to
# .parity, anew only where its scripts or inputs have changed; the tests here read that.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=tests/parity/pins.txt
installed=.venv-parity/installed-$(cksum <"$pins" | cut -d' ' -f1)
if [ ! -f "$installed" ]; then
    rm -rf .venv-parity
    .venv/bin/python -m venv .venv-parity
    .venv-parity/bin/pip install -q -c "$pins" torch # first and alone, so that the build at hand is taken
    .venv-parity/bin/pip install -q -c "$pins" boltz biotite
    touch "$installed"
fi
PYTHONWARNINGS=ignore .venv-parity/bin/python tests/parity/reference/main.py .parity
# Shapes are checked by the other tests, on smaller inputs.
JAXTYPING_DISABLE=1 .venv/bin/python -m pytest tests/parity --oracle .parity -q "$@"
