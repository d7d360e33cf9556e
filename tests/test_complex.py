"""Validation of chains and complexes."""

from __future__ import annotations

import pytest

from foldcp.complex import Chain, Complex


class Counted(str):
    """A name that counts how often it is compared."""

    num_compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.num_compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_chain_refuses_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="chain A: unknown kind 'lipid', expected protein"):
        Chain("A", "lipid", "AAA")  # type: ignore[arg-type]


def test_complex_refuses_two_chains_of_one_name() -> None:
    chains = [Chain(name, "protein", "MKT") for name in ("A", "D", "C", "D", "B", "B")]
    with pytest.raises(ValueError, match="complex x: two chains are named 'B'"):
        Complex("x", tuple(chains))


def test_complex_does_not_compare_names_pair_by_pair() -> None:
    chains = tuple(Chain(Counted(f"C{number}"), "protein", "MKT") for number in range(2_000))
    Counted.num_compared = 0
    Complex("x", chains)
    assert Counted.num_compared < 2_000


def test_complex_equality_ignores_the_place() -> None:
    chains = (Chain("A", "protein", "MKT"),)
    assert Complex("x", chains, index=3) == Complex("x", chains)
