"""Training examples from a folder of prepared structures."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int

from foldcp.complex import Complex
from foldcp.features.crop import crop_features
from foldcp.features.features import Features
from foldcp.features.featurize import featurize
from foldcp.features.msa.chain_msas import MsaSettings
from foldcp.training.data.complexes import TokenizedStructure, tokenize_structure, with_msas
from foldcp.training.data.crop import (
    CropLimits,
    CropTokens,
    contiguous_crop,
    interface_crop,
    spatial_crop,
)
from foldcp.training.data.prepared import IndexRow, read_index, read_structure, structure_path
from foldcp.training.data.sampling import Item, ItemSampler
from foldcp.training.data.settings import DataSettings
from foldcp.training.data.symmetries import symmetries_of
from foldcp.training.example import TrainingExample, Truth, lddt_atoms

Split = Literal["train", "held-out"]
CACHED = 32  # structures that are kept


class TrainingDataset:
    """Training examples of the structures of one split of a prepared folder.

    Every example is a function of the seed alone, in any process.
    """

    def __init__(self, folder: Path, settings: DataSettings, split: Split = "train") -> None:
        """Raises ValueError naming the folder, where it is not one, or has no structure of the
        split.
        """
        self.folder = folder
        self.settings = settings
        rows = [row for row in read_index(folder) if row.split == split and not row.dropped_by]
        if not rows:
            raise ValueError(f"{folder}: has no structure of the split {split!r}")
        self._rows = {row.name: row for row in rows}
        self.names = tuple(self._rows)
        self._sampler = ItemSampler(rows, settings)
        self._tokenized = lru_cache(CACHED)(self._tokenize)

    def __reduce__(self) -> tuple[type[TrainingDataset], tuple[Path, DataSettings, str]]:
        """How a worker process gets it: it reads the index itself."""
        split = next(iter(self._rows.values())).split
        return TrainingDataset, (self.folder, self.settings, split)

    def draw(self, seed: int) -> TrainingExample:
        """A crop of a random structure; all that is random follows from the seed.

        Raises ValueError naming the structure and what is wrong with it.
        """
        rng = np.random.default_rng(seed)
        item = self._sampler.draw(rng)
        row = self._rows[self.names[item.row]]
        structure = self._tokenized(row.name)
        tokens = self._crop(structure, item, row, rng)
        msa_rows = int(rng.integers(1, self.settings.msa_rows + 1))
        return self._example(row, structure, tokens, msa_rows, rng)

    def example(self, name: str) -> TrainingExample:
        """A whole structure, with as many MSA rows as the settings allow.

        Raises KeyError for a name that the split does not have; else as `draw` does.
        """
        row = self._rows[name]
        structure = self._tokenized(name)
        tokens = np.arange(len(structure.tokenized.tokens.type))
        return self._example(
            row, structure, tokens, self.settings.msa_rows, np.random.default_rng(0)
        )

    def num_tokens(self, name: str) -> int:
        """Tokens of a whole structure, without making its features."""
        return len(self._tokenized(name).tokenized.tokens.type)

    def _tokenize(self, name: str) -> TokenizedStructure:
        found = read_structure(structure_path(self.folder, name))
        return tokenize_structure(found, ligands=self.settings.ligands)

    def _crop(
        self, structure: TokenizedStructure, item: Item, row: IndexRow, rng: np.random.Generator
    ) -> Int[np.ndarray, " n"]:
        """The tokens of an example around a chain or an interface."""
        settings = self.settings
        limits = CropLimits(settings.crop_tokens, settings.crop_atoms)
        tokenized = structure.tokenized
        if limits.allow(len(tokenized.tokens.type), len(tokenized.atoms.name)):
            return np.arange(len(tokenized.tokens.type))
        tokens = CropTokens.of(tokenized, structure.coords, structure.resolved)
        place = {number: chain for chain, number in enumerate(structure.chain_number)}
        chains = [place[number] for number in item.chains if number in place]
        sizes = np.arange(settings.min_neighborhood, settings.max_neighborhood + 1, 2)
        neighborhood = int(rng.choice(sizes))
        weights = np.array([settings.spatial, settings.interface, settings.contiguous])
        method = rng.choice(["spatial", "interface", "contiguous"], p=weights / weights.sum())
        if method == "contiguous":
            return contiguous_crop(tokens, limits, chains, rng)
        touching = [
            (place[a], place[b])
            for a, b in row.interfaces
            if {a, b} >= set(item.chains) and a in place and b in place
        ]
        if method == "interface" and touching:
            pair = touching[int(rng.integers(len(touching)))]
            return interface_crop(tokens, limits, pair, neighborhood, rng)
        return spatial_crop(tokens, limits, chains, neighborhood, rng)

    def _example(
        self,
        row: IndexRow,
        structure: TokenizedStructure,
        tokens: Int[np.ndarray, " n"],
        msa_rows: int,
        rng: np.random.Generator,
    ) -> TrainingExample:
        atoms = np.flatnonzero(np.isin(structure.tokenized.atoms.token, tokens))
        features = self._features(row, structure, tokens, msa_rows, int(rng.integers(2**31)))
        symmetries = symmetries_of(structure, atoms, self.settings.max_symmetries, rng)
        padding = features.num_atoms - len(atoms)
        resolved = torch.from_numpy(np.pad(structure.resolved[atoms], (0, padding)))
        coords = torch.from_numpy(np.pad(structure.coords[atoms], ((0, padding), (0, 0))))
        truth = Truth(
            conformers=coords[None],
            resolved=resolved,
            bfactors=torch.from_numpy(np.pad(structure.bfactors[atoms], (0, padding))),
            lddt_atoms=lddt_atoms(features, resolved),
            symmetries=symmetries,
        )
        return TrainingExample(features, truth, row.name)

    def _features(
        self,
        row: IndexRow,
        structure: TokenizedStructure,
        tokens: Int[np.ndarray, " n"],
        msa_rows: int,
        seed: int,
    ) -> Features:
        """The features of some tokens: those of the chains that have any of them, cut to them.

        Only these chains' alignments are paired, as in Boltz. Numbers of chains, molecules and
        copies are those of the whole structure.
        """
        tokenized = structure.tokenized
        token_chain = tokenized.token_chain
        chains = np.unique(token_chain[tokens])
        part = self._part(row, structure, chains)
        features = featurize(part, msa=MsaSettings(max_rows=msa_rows), seed=seed)
        of_part = np.flatnonzero(np.isin(token_chain, chains))
        features = crop_features(features, np.searchsorted(of_part, tokens))
        chain = token_chain[tokens]
        return replace(
            features,
            asym_id=torch.from_numpy(chain),
            entity_id=torch.from_numpy(tokenized.chains.entity[chain]),
            sym_id=torch.from_numpy(tokenized.chains.copy[chain]),
        )

    def _part(
        self, row: IndexRow, structure: TokenizedStructure, chains: Int[np.ndarray, " c"]
    ) -> Complex:
        """Some chains of a structure, with their alignments."""
        whole = structure.complex
        kept = tuple(whole.chains[i] for i in chains.tolist())
        names = {chain.name for chain in kept}
        bonds = tuple(
            bond for bond in whole.bonds if bond.atom1[0] in names and bond.atom2[0] in names
        )
        part = Complex(whole.name, kept, bonds=bonds, method=whole.method)
        if not self.settings.msas:
            return part
        return with_msas(
            part,
            {
                chain.name: self.folder / chain.msa
                for chain in row.chains
                if chain.msa and chain.name in names
            },
        )
