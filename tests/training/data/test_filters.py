"""Filters of structures and chains to train on, clusters and interfaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foldcp.datasets.training.clusters import cluster
from foldcp.datasets.training.filters import (
    Filtered,
    FilterSettings,
    StructureFilter,
    filter_structure,
)
from foldcp.datasets.training.interfaces import interfaces
from foldcp.datasets.training.read import read_experimental
from tests.training.data.mmcif import Atom, File, codes, protein, single_protein


def filtered(file: File, tmp_path: Path, settings: FilterSettings | None = None) -> Filtered:
    structure = read_experimental(file.write(tmp_path / "x.cif"), "x")
    return filter_structure(structure, settings or FilterSettings())


@pytest.mark.parametrize(
    "said, settings, dropped_by",
    [
        ({}, {}, None),
        ({"date": "2023-05-31"}, {}, None),
        ({"date": "2023-06-01"}, {}, "date"),
        ({"date": "2023-06-01"}, {"before": ""}, None),
        ({"date": "?"}, {}, "date"),
        ({"date": "?"}, {"undated": True}, None),
        ({"resolution": "9.0"}, {}, None),
        ({"resolution": "9.1"}, {}, "resolution"),
        ({"resolution": "."}, {}, None),
        ({}, {"max_residues": 7}, "residues"),
        ({}, {"max_residues": 8}, None),
    ],
)
def test_structures(
    said: dict[str, str],
    settings: dict[str, str | int | bool],
    dropped_by: StructureFilter | None,
    tmp_path: Path,
) -> None:
    file = single_protein("MKDAYIAF", **said)
    found = filtered(file, tmp_path, FilterSettings(**settings))  # type: ignore[arg-type]
    assert found.dropped_by == dropped_by
    assert bool(found.reason) == (dropped_by is not None)


@pytest.mark.parametrize("text", ["2023-13-01", "20230601", "2023-6-1", "any"])
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"before must be a date, .*'{text}'"):
        FilterSettings(before=text)


def test_too_many_chains(tmp_path: Path) -> None:
    atoms = [*protein("A", "MKDA"), *protein("B", "MKDA", origin=(0, 30, 0))]
    file = File(atoms, {"1": codes("MKDA")})
    assert filtered(file, tmp_path, FilterSettings(max_chains=1)).dropped_by == "chains"
    assert filtered(file, tmp_path, FilterSettings(max_chains=2)).dropped_by is None


def test_chains_are_dropped_each_for_its_reason(tmp_path: Path) -> None:
    atoms = [
        *protein("A", "MKDAYIAF"),
        *protein("B", "MKDAYIAF", missing=(1, 2, 3, 4, 5), origin=(0, 30, 0)),
        *protein("C", "XXXXX", entity="2", origin=(0, 60, 0)),
        *(
            replace(atom, xyz=(atom.xyz[0] + 12 * (atom.place == 4), *atom.xyz[1:]))
            for atom in protein("D", "MKDAYIAF", origin=(0, 90, 0))
        ),
        *protein("E", "MKDAYIAF", origin=(0.5, 0.5, 0)),
        Atom("ZN", "ZN", "Z", "3", None, (0, 120, 0), element="ZN", group="HETATM"),
    ]
    polymers = {"1": codes("MKDAYIAF"), "2": codes("XXXXX")}
    found = filtered(File(atoms, polymers), tmp_path, FilterSettings(ligands=False))
    assert found.dropped == {
        "ligand": ("Z",),
        "short": ("B",),
        "unknown": ("C",),
        "broken": ("D",),
        "clashing": ("E",),
    }
    assert [chain.name for chain in found.structure.chains] == ["A"]


def test_jump_over_a_missing_residue_is_no_break(tmp_path: Path) -> None:
    atoms = [
        replace(atom, xyz=(atom.xyz[0] + 12 * ((atom.place or 0) > 4), *atom.xyz[1:]))
        for atom in protein("A", "MKDAYIAFQR", missing=(4,))
    ]
    assert not filtered(File(atoms, {"1": codes("MKDAYIAFQR")}), tmp_path).dropped


def test_chain_that_clashes_more_is_dropped(tmp_path: Path) -> None:
    """Half of a short chain lies in a long one, less than a third of which clashes."""
    long = protein("A", "MKDAYIAFQRMKDAYIAFQR")
    short = protein("B", "MKDA", entity="2", origin=(15 * 3.8 + 0.5, 0.3, 0))
    file = File([*long, *short], {"1": codes("MKDAYIAFQRMKDAYIAFQR"), "2": codes("MKDA")})
    assert filtered(file, tmp_path).dropped == {"clashing": ("B",)}
    few = FilterSettings(clash_distance=0.1)
    assert not filtered(file, tmp_path, few).dropped


def test_structure_without_polymers_is_dropped(tmp_path: Path) -> None:
    file = File(protein("A", "MKD"), {"1": codes("MKD")})
    found = filtered(file, tmp_path)
    assert (found.dropped, found.dropped_by) == ({"short": ("A",)}, "empty")


def test_settings_name_the_value_that_is_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"max_resolution must be above 0, not 0\.0"):
        FilterSettings(max_resolution=0.0)


def test_interfaces_are_chains_within_five_angstrom(tmp_path: Path) -> None:
    atoms = [
        *protein("A", "MKDA"),
        *protein("B", "MKDA", origin=(0, 6.5, 0)),  # O of A to CB of B: 3.9 Å
        *protein("C", "MKDA", origin=(0, 20, 0)),
    ]
    structure = filtered(File(atoms, {"1": codes("MKDA")}), tmp_path).structure
    assert interfaces(structure) == ((0, 1),)


def test_clusters_are_of_similar_proteins_and_equal_others() -> None:
    sequence = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
    mutated = sequence.replace("E", "D")
    other = "MKDAYIAFCHWSNPQRGTLV" * 3
    keys = {
        "whole": f"protein:{sequence}",
        "part": f"protein:{sequence[10:60]}",
        "mutated": f"protein:{mutated}",
        "other": f"protein:{other}",
        "dna": "dna:GATTACAGATTACA",
        "longer dna": "dna:GATTACAGATTACAG",
        "peptide": "protein:MQIF",
        "ligand": "ligand:NAG-NAG",
    }
    clusters = cluster(keys.values())
    of = {name: clusters[key] for name, key in keys.items()}
    assert of["whole"] == of["part"] == of["mutated"]
    assert len(set(of.values())) == len(keys) - 2
    assert cluster(reversed(keys.values())) == clusters
