"""Fold one complex, print its scores and write its best structure.

    python examples/fold_one.py                                 # random weights: a dry run
    python examples/fold_one.py --checkpoint boltz2             # after `foldcp fetch boltz2`
    python examples/fold_one.py --checkpoint boltz2_conf.ckpt --msa-a a.a3m --msa-b b.a3m

The scores of random weights mean nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import foldcp

# Barnase and its inhibitor barstar, from Bacillus amyloliquefaciens (UniProt P00648, P11540).
BARNASE = (
    "AQVINTFDGVADYLQTYHKLPDNYITKSEAQALGWVASKGNLADVAPGKSIGGDIFSNREGKLPGKSGRTWREADINYTSGFRN"
    "SDRILYSSDWLIYKTTDHYQTFTKIR"
)
BARSTAR = (
    "KKAVINGEQIRSISDLHQTLKKELALPEYYGENLDALWDCLTGWVEYPLVLEWRQFEQSKQLTENGAESVLQVFREAKAEGCDITIILS"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fold barnase with barstar.")
    parser.add_argument("--checkpoint", default="untrained:tiny", help="name or path of weights")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20, help="of the sampler; 200 for real use")
    parser.add_argument("--msa-a", type=Path, help="alignment of barnase (a3m)")
    parser.add_argument("--msa-b", type=Path, help="alignment of barstar (a3m)")
    parser.add_argument("--out", type=Path, default=Path("barnase_barstar.cif"))
    arguments = parser.parse_args()

    chains = (
        foldcp.Chain("A", "protein", BARNASE, msa=arguments.msa_a),
        foldcp.Chain("B", "protein", BARSTAR, msa=arguments.msa_b),
    )
    model = foldcp.load_model(arguments.checkpoint)
    prediction = foldcp.fold(
        model,
        foldcp.Complex("barnase_barstar", chains),
        samples=arguments.samples,
        steps=arguments.steps,
    )
    for number, scores in enumerate(prediction.scores):
        # [a, b] has its frames in chain a and its scored tokens in chain b; 0 is A, 1 is B.
        print(
            f"sample {number}: confidence {scores.confidence_score:.3f}, ipTM {scores.iptm:.3f}, "
            f"ipSAE A>B {scores.ipsae_d0res[0, 1]:.3f}, B>A {scores.ipsae_d0res[1, 0]:.3f}, "
            f"{scores.contacts[0, 1]} contacts"
        )
    prediction.write_cif(arguments.out)
    print(f"{arguments.out}: sample {prediction.best_sample}, B-factors are 100 pLDDT")


if __name__ == "__main__":
    main()
