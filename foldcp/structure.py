"""Predicted structures as mmCIF files.

One model per file. Chain names have any length, so there is no limit of 26 chains or 99,999 atoms.
The B-factor of an atom is 100 x the pLDDT of its token; `ma_qa_metric_local` repeats it per
residue, where Mol* looks for it. Chains and residues carry the same name and number in the label_
and auth_ items, residues count from 1 in each chain. Modified residues and ligands are HETATM.

The file is ASCII, as CIF 1.1 asks for: other letters and control characters of names and titles
become `\\uNNNN`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float, Int

from foldcp.features.layout import Layout
from foldcp.printable import printable_ascii

MAX_BLOCK_CODE = 75  # characters of a data block's name, by CIF 1.1
# Characters of a value: CIF 1.1 has lines of 2,048, and that of an atom has its chain's name twice.
MAX_TEXT = 900
SEQUENCE_LINE = 80  # characters
POLYMER_TYPES = {
    "protein": "polypeptide(L)",
    "dna": "polydeoxyribonucleotide",
    "rna": "polyribonucleotide",
}
LINKING = {
    "protein": "L-peptide linking",
    "dna": "DNA linking",
    "rna": "RNA linking",
    "ligand": "non-polymer",
}


def write_cif(
    path: Path,
    layout: Layout,
    coords: Float[np.ndarray, "A 3"],
    plddt: Float[np.ndarray, " T"],
    name: str,
    title: str = "",
    details: str = "",
) -> None:
    """Write `cif_text` to `path`; same arguments and errors, and OSError."""
    Path(path).write_text(cif_text(layout, coords, plddt, name, title, details), encoding="utf-8")


def cif_text(
    layout: Layout,
    coords: Float[np.ndarray, "A 3"],
    plddt: Float[np.ndarray, " T"],
    name: str,
    title: str = "",
    details: str = "",
) -> str:
    """The text of an mmCIF file with one model.

    Args:
        layout: names of chains, tokens and atoms.
        coords: Å, written to 0.001.
        plddt: per token, 0..1; the B-factor of an atom is 100 times that of its token.
        name: of the data block.
        title: of the molecule; the name if empty.
        details: how the model was made.

    Raises:
        ValueError: when a coordinate or a pLDDT is not finite.
    """
    if not (np.isfinite(coords).all() and np.isfinite(plddt).all()):
        raise ValueError(f"structure {name}: coordinates or pLDDT are not finite")
    assert coords.shape == (len(layout.atom_token), 3) and plddt.shape == (len(layout.token_chain),)
    document = gemmi.cif.Document()
    block = document.add_new_block(_block_code(name))
    block.set_pair("_entry.id", _text(name))
    block.set_pair("_struct.entry_id", _text(name))
    block.set_pair("_struct.title", _text(title or name))
    if details:
        block.set_pair("_struct.pdbx_model_details", _text(details))
    residues = _Residues(layout)
    _components(block, residues)
    _entities(block, residues)
    _confidence(block, residues, plddt)
    _atoms(block, residues, coords, plddt)
    return document.as_string()


def _block_code(name: str) -> str:
    """A name as that of a data block: up to 75 ASCII characters without blanks."""

    def is_allowed(letter: str) -> bool:
        return letter.isascii() and letter.isprintable() and not letter.isspace()

    return "".join(c if is_allowed(c) else "_" for c in name[:MAX_BLOCK_CODE])


def _text(value: str) -> str:
    """Any text as a value: one line of ASCII, in CIF's quotes where it needs them."""
    return gemmi.cif.quote(_truncate(value))


def _truncate(value: str) -> str:
    """Any text as one line of ASCII, truncated to what fits on a line of a CIF file."""
    line = printable_ascii(value)
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 3] + "..."


def _join(names: list[str]) -> str:
    """Names separated by commas as one value, over several lines when it is long."""
    short_names = [_truncate(name) for name in names]
    value = ",".join(short_names)
    if len(value) > MAX_TEXT:
        value = ",\n".join(short_names)
    return gemmi.cif.quote(value)


class _Residues:
    """The residues of a layout: runs of tokens with one chain and one number. R residues."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        chain = np.asarray(layout.token_chain)
        number = np.asarray(layout.token_residue)
        starts = np.append(True, (np.diff(chain) != 0) | (np.diff(number) != 0))
        first_token = np.flatnonzero(starts)
        self.count = len(first_token)  # R
        self.of_token: Int[np.ndarray, " T"] = np.cumsum(starts) - 1
        self.chain = chain[first_token].tolist()
        self.number = number[first_token].tolist()
        self.name = [layout.token_name[token] for token in first_token]
        self.kind = [layout.chain_kinds[c] for c in self.chain]
        entities = np.asarray(layout.chain_entities).tolist()
        numbers = {entity: str(i) for i, entity in enumerate(dict.fromkeys(entities), 1)}
        self.entity_of_chain = [numbers[entity] for entity in entities]

    def entities(self) -> list[_Entity]:
        """The entities in the order of their numbers."""
        chains_of: dict[str, list[int]] = {}
        for chain, entity in enumerate(self.entity_of_chain):
            chains_of.setdefault(entity, []).append(chain)
        residues_of: dict[int, list[int]] = {}
        for residue, chain in enumerate(self.chain):
            residues_of.setdefault(chain, []).append(residue)
        entities = []
        for entity, chains in chains_of.items():
            residues = residues_of[chains[0]]
            numbers = [self.number[residue] for residue in residues]
            names = [self.name[residue] for residue in residues]
            kind = self.layout.chain_kinds[chains[0]]
            entities.append(_Entity(entity, kind, chains, numbers, names))
        return entities


@dataclass(frozen=True)
class _Entity:
    """A molecule, its copies, and the residues of the first of them."""

    id: str
    kind: str
    chains: list[int]
    numbers: list[int]
    names: list[str]

    @property
    def type(self) -> str:
        """A ligand of several components is branched, as glycans are."""
        if self.kind in POLYMER_TYPES:
            return "polymer"
        return "branched" if len(self.names) > 1 else "non-polymer"


def _loop(block: gemmi.cif.Block, category: str, columns: dict[str, list[str]]) -> None:
    block.init_loop(f"_{category}.", list(columns)).set_all_values(list(columns.values()))


def _is_standard(name: str, kind: str) -> bool:
    """A residue with a letter of its own, or an unknown one, in a polymer."""
    return kind in POLYMER_TYPES and gemmi.find_tabulated_residue(name).is_standard()


def _quote(values: list[str]) -> list[str]:
    """Values in CIF's quotes where they need them; each different one is quoted once."""
    quoted = {value: _text(value) for value in set(values)}
    return [quoted[value] for value in values]


def _letters(names: list[str], kind: str) -> tuple[str, str]:
    """A polymer as one-letter codes, and with the parent's letters for modified residues."""
    exact = []
    parents = []
    for name in names:
        letter = gemmi.find_tabulated_residue(name).one_letter_code.strip().upper() or "X"
        spelled = kind == "dna" or name == "UNK" or not _is_standard(name, kind)
        exact.append(f"({name})" if spelled else letter)
        parents.append(letter)
    return _wrap("".join(exact)), _wrap("".join(parents))


def _wrap(sequence: str) -> str:
    """A sequence in lines."""
    starts = range(0, len(sequence), SEQUENCE_LINE)
    return "\n".join(sequence[start : start + SEQUENCE_LINE] for start in starts)


def _components(block: gemmi.cif.Block, residues: _Residues) -> None:
    """The different residues."""
    components = dict(sorted(zip(residues.name, residues.kind, strict=True)))
    types = [LINKING[kind] for kind in components.values()]
    _loop(block, "chem_comp", {"id": _quote(list(components)), "type": _quote(types)})


def _entities(block: gemmi.cif.Block, residues: _Residues) -> None:
    """Entities, the sequences of the polymers among them, and the chains that are their copies."""
    layout = residues.layout
    entities = residues.entities()
    columns = {"id": [e.id for e in entities], "type": [e.type for e in entities]}
    _loop(block, "entity", columns)
    polymers = [entity for entity in entities if entity.kind in POLYMER_TYPES]
    if polymers:
        _polymers(block, polymers, layout)
    names = _quote(list(layout.chain_names))
    _loop(block, "struct_asym", {"id": names, "entity_id": residues.entity_of_chain})


def _polymers(block: gemmi.cif.Block, polymers: list[_Entity], layout: Layout) -> None:
    """The sequence of each polymer, in one-letter codes and residue by residue."""
    letters = [_letters(entity.names, entity.kind) for entity in polymers]
    strands = [_join([layout.chain_names[chain] for chain in e.chains]) for e in polymers]
    columns = {
        "entity_id": [entity.id for entity in polymers],
        "type": _quote([POLYMER_TYPES[entity.kind] for entity in polymers]),
        "pdbx_seq_one_letter_code": [gemmi.cif.quote(exact) for exact, _ in letters],
        "pdbx_seq_one_letter_code_can": [gemmi.cif.quote(parents) for _, parents in letters],
        "pdbx_strand_id": strands,
    }
    _loop(block, "entity_poly", columns)
    columns = {
        "entity_id": [entity.id for entity in polymers for _ in entity.names],
        "num": [str(number) for entity in polymers for number in entity.numbers],
        "mon_id": _quote([name for entity in polymers for name in entity.names]),
    }
    _loop(block, "entity_poly_seq", columns)


def _confidence(
    block: gemmi.cif.Block, residues: _Residues, plddt: Float[np.ndarray, " T"]
) -> None:
    """pLDDT per model and per residue (the mean over its tokens), 0..100."""
    _loop(
        block,
        "ma_model_list",
        {"ordinal_id": ["1"], "model_id": ["1"], "model_name": ["model"]},
    )
    _loop(
        block,
        "ma_qa_metric",
        {
            "id": ["1", "2"],
            "name": ["pLDDT"] * 2,
            "type": ["pLDDT"] * 2,
            "mode": ["global", "local"],
        },
    )
    _loop(
        block,
        "ma_qa_metric_global",
        {
            "ordinal_id": ["1"],
            "model_id": ["1"],
            "metric_id": ["1"],
            "metric_value": [f"{100 * plddt.mean():.3f}"],
        },
    )
    R = residues.count
    total = np.bincount(residues.of_token, weights=plddt, minlength=R)
    mean = total / np.bincount(residues.of_token, minlength=R)
    _loop(
        block,
        "ma_qa_metric_local",
        {
            "ordinal_id": [str(i) for i in range(1, R + 1)],
            "model_id": ["1"] * R,
            "label_asym_id": _quote(
                [residues.layout.chain_names[chain] for chain in residues.chain]
            ),
            "label_seq_id": _label_numbers(residues),
            "label_comp_id": _quote(residues.name),
            "metric_id": ["2"] * R,
            "metric_value": [f"{value:.3f}" for value in 100 * mean],
        },
    )


def _label_numbers(residues: _Residues) -> list[str]:
    """label_seq_id: the position in a polymer; others have none."""
    return [
        str(n) if kind in POLYMER_TYPES else "."
        for n, kind in zip(residues.number, residues.kind, strict=True)
    ]


def _atoms(
    block: gemmi.cif.Block,
    residues: _Residues,
    coords: Float[np.ndarray, "A 3"],
    plddt: Float[np.ndarray, " T"],
) -> None:
    layout = residues.layout
    A = len(coords)
    of_atom = residues.of_token[layout.atom_token].tolist()

    def per_atom(per_residue: list[str]) -> list[str]:
        return [per_residue[residue] for residue in of_atom]

    elements = {
        int(number): gemmi.Element(int(number)).name for number in np.unique(layout.atom_element)
    }
    names = _quote(list(layout.atom_name))
    standard = [
        _is_standard(name, kind) for name, kind in zip(residues.name, residues.kind, strict=True)
    ]
    component = per_atom(_quote(residues.name))
    chain = per_atom(_quote([layout.chain_names[c] for c in residues.chain]))
    columns = {
        "group_PDB": per_atom(["ATOM" if ok else "HETATM" for ok in standard]),
        "id": [str(i) for i in range(1, A + 1)],
        "type_symbol": [elements[int(number)] for number in layout.atom_element],
        "label_atom_id": names,
        "label_alt_id": ["."] * A,
        "label_comp_id": component,
        "label_asym_id": chain,
        "label_entity_id": per_atom([residues.entity_of_chain[c] for c in residues.chain]),
        "label_seq_id": per_atom(_label_numbers(residues)),
        "pdbx_PDB_ins_code": ["?"] * A,
        "auth_seq_id": per_atom([str(number) for number in residues.number]),
        "auth_comp_id": component,
        "auth_asym_id": chain,
        "auth_atom_id": names,
        "Cartn_x": [f"{x:.3f}" for x in coords[:, 0].tolist()],
        "Cartn_y": [f"{y:.3f}" for y in coords[:, 1].tolist()],
        "Cartn_z": [f"{z:.3f}" for z in coords[:, 2].tolist()],
        "occupancy": ["1"] * A,
        "B_iso_or_equiv": [f"{value:.3f}" for value in (100 * plddt[layout.atom_token]).tolist()],
        "pdbx_PDB_model_num": ["1"] * A,
    }
    _loop(block, "atom_site", columns)
