"""Settings of training examples: sampling, crops, alignments."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """How examples are drawn from prepared structures. Raises ValueError naming a number that is
    out of range.

    A crop has at most `crop_tokens` and `crop_atoms` (None: no limit). How it is made is drawn with
    three weights: `spatial`, what is nearest to a token of the chain or interface that was drawn;
    `interface`, to one at an interface of it; `contiguous`, a stretch of each chain. The first two
    take in neighbours along the chain with each token, up to a number that is drawn between
    `min_neighborhood` and `max_neighborhood`, as in Boltz.

    A chain weighs `beta_chain`, an interface `beta_interface`, divided by the number of chains or
    interfaces of its cluster and multiplied by the sum over its chains of `alpha_protein`,
    `alpha_nucleic` or `alpha_ligand` (AlphaFold 3, section 2.5.1; numbers of Boltz-2).
    """

    crop_tokens: int | None = 384
    crop_atoms: int | None = 3456
    spatial: float = 0.4
    interface: float = 0.4
    contiguous: float = 0.2
    min_neighborhood: int = 0
    max_neighborhood: int = 40
    msas: bool = True  # alignments of the index; else the single sequence
    msa_rows: int = 2048  # at most; an example that is drawn has from 1 to these
    ligands: bool = True  # ligands and modified residues, which RDKit reads
    max_symmetries: int = 100  # assignments of copies of chains; 1 keeps those of the file
    beta_chain: float = 0.5
    beta_interface: float = 1.0
    alpha_protein: float = 3.0
    alpha_nucleic: float = 3.0
    alpha_ligand: float = 1.0

    def __post_init__(self) -> None:
        for name in ("crop_tokens", "crop_atoms", "msa_rows", "max_symmetries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        weights = ("spatial", "interface", "contiguous")
        for name in (*weights, *(each for each in vars(self) if each[:5] in ("alpha", "beta_"))):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not sum(getattr(self, name) for name in weights) > 0:
            raise ValueError("one of the weights spatial, interface, contiguous must be above 0")
        if not 0 <= self.min_neighborhood <= self.max_neighborhood:
            raise ValueError(
                f"min_neighborhood must be between 0 and max_neighborhood "
                f"({self.max_neighborhood}), not {self.min_neighborhood}"
            )
