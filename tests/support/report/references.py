"""Experimental structures for a run with invented ones: its own, moved away."""

from __future__ import annotations

from pathlib import Path

import gemmi

from foldcp.pipeline.reporting.run_tables import fresh_rows

SHIFT = 200.0  # Å


def write_references(out: Path, folder: Path) -> dict[str, Path]:
    """Write the structure of sample 0 of each complex whose file is there, turned and shifted, into
    a folder; the files by key.
    """
    turn = gemmi.Transform(gemmi.Mat33([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), gemmi.Vec3(30, -5, 8))
    rows = fresh_rows(out, "complexes")
    rows = rows[rows["sample"].eq(0) & rows["structure"].notna()]
    folder.mkdir()
    found = {}
    for key, path in zip(rows["key"], rows["structure"], strict=True):
        if not (out / path).is_file():
            continue
        structure = gemmi.read_structure(str(out / path))
        structure[0].transform_pos_and_adp(turn)
        found[key] = folder / f"{key}.cif"
        structure.make_mmcif_document().write_file(str(found[key]))
    return found


def write_copies(out: Path, folder: Path) -> None:
    """Write for each complex the structures of its samples into one file, as copies, SHIFT Å apart,
    whose chains have the number of the sample in their names.
    """
    rows = fresh_rows(out, "complexes")
    folder.mkdir()
    for key, group in rows[rows["structure"].notna()].groupby("key"):
        copies = gemmi.Structure()
        model = copies.add_model(gemmi.Model(1))
        for sample, path in zip(group["sample"].astype(int), group["structure"], strict=True):
            for chain in gemmi.read_structure(str(out / path))[0]:
                chain.name += str(sample)
                for residue in chain:
                    residue.subchain = chain.name
                    for atom in residue:
                        atom.pos += gemmi.Position(SHIFT * sample, 0, 0)
                model.add_chain(chain)
        copies.make_mmcif_document().write_file(str(folder / f"{key}.cif"))
