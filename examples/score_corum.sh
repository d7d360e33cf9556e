#!/usr/bin/env bash
# Fold every complex of a CORUM table that has no result yet, and store its interface scores.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: examples/score_corum.sh TABLE SEQUENCES MSAS RUN [OPTION...]

  TABLE      corum.tsv, as CORUM releases it (.gz, too)
  SEQUENCES  FASTA with the UniProt accessions of the table (.gz, too)
  MSAS       folder of alignments, or - for single-sequence mode
  RUN        folder for the results; an earlier run there is resumed
  OPTION     further options of `foldcp score`, such as --organism Human --set model.samples=5

The weights are those of `foldcp fetch boltz2`; CHECKPOINT names others. A dry run:

  CHECKPOINT=untrained:tiny examples/score_corum.sh datasets/demo/complexes.tsv \
      datasets/demo/sequences.fasta - demo-run --limit 2
TEXT
}

if [ $# -lt 4 ]; then
    usage >&2
    exit 2
fi
table=$1
sequences=$2
msas=$3
run=$4
shift 4

# The environment that `make env` made, where there is one.
PATH="$(dirname "$0")/../.venv/bin:$PATH"
inputs=("$table" --sequences "$sequences")
if [ "$msas" = - ]; then
    inputs+=(--set msa.missing=single-sequence)
else
    inputs+=(--msas "$msas")
fi

exec foldcp score "${inputs[@]}" --checkpoint "${CHECKPOINT:-boltz2}" --out "$run" "$@"
