"""Scores of the tables as a report shows them: label, direction, bands, and how to read them.

Which scores there are is the schema's; a score without a rule here is shown without bands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from foldcp.pipeline.storage.columns.band_columns import BANDS, LOWEST_BAND
from foldcp.pipeline.storage.columns.column import Column
from foldcp.pipeline.storage.columns.pair_columns import PAIR_STATISTICS
from foldcp.pipeline.storage.schemas import INTERFACE_SCORES, PAIRS, TABLES

CUTOFF = re.compile(r"_(\d+)$")
# Shown first and ranked by, if the table has it.
PREFERRED = ("ipsae_strict", "ipsae_d0res", "iptm", "confidence_score")
# The colours of AlphaFold DB's pLDDT, from the best band to the worst, which colour-blind people
# tell apart, too.
BAND_COLOURS = {
    2: ("#0053d6", "#ff7d45"),
    3: ("#0053d6", "#65cbf3", "#ff7d45"),
    4: ("#0053d6", "#65cbf3", "#ffdb13", "#ff7d45"),
}
WORDS = {
    "ipsae": "ipSAE",
    "iptm": "ipTM",
    "ptm": "pTM",
    "plddt": "pLDDT",
    "iplddt": "ipLDDT",
    "pae": "PAE",
    "pde": "PDE",
    "ipde": "ipDE",
    "pdockq": "pDockQ",
    "pdockq2": "pDockQ2",
    "lis": "LIS",
    "ilis": "iLIS",
    "lia": "LIA",
    "clis": "cLIS",
    "clia": "cLIA",
    "go": "GO",
    "pubmed": "PubMed",
    "funcat": "FunCat",
    "boltz": "(Boltz)",
    "d0res": "(d0 of residues)",
    "d0chn": "(d0 of chains)",
    "d0dom": "(d0 of domains)",
    "num": "",
    "strict": "(worse direction)",
    "mpdockq": "mpDockQ",
    "actifptm": "actifpTM",
    "pitm": "piTM",
    "af2complex": "AF2Complex",
    "prob": "probability",
    "top10": "top ten",
    "pae4": "with PAE < 4 Å",
    "pae15": "with PAE up to 15 Å",
    "hbonds": "hydrogen bonds",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How to read scores whose column name matches `pattern`.

    `limits` are the values at which a band begins, from the best band on; the last band has none.
    """

    pattern: str
    limits: tuple[float, ...]
    names: tuple[str, ...]
    sentence: str


RULES = (
    Rule(
        "ipsae",
        tuple(BANDS.values()),
        (*BANDS, LOWEST_BAND),
        "Whether the two chains are placed right towards each other, counted over the residues "
        "with a small error only, so that disordered tails do not pull it down; 0 is usual for "
        "chains that do not touch.",
    ),
    Rule(
        "iptm",
        (0.8, 0.6),
        ("confident", "uncertain", "low"),
        "Whether the chains are placed right towards each other, over all of their residues: "
        "below 0.6 the placement is probably wrong, or the chains have long disordered parts.",
    ),
    Rule(
        "ptm",
        (0.8, 0.5),
        ("confident", "plausible", "low"),
        "Whether the fold as a whole is right; above 0.5 it is probably similar to the true one.",
    ),
    Rule(
        "i?plddt",
        (0.9, 0.7, 0.5),
        ("very high", "confident", "low", "very low"),
        "How well the surroundings of each residue are predicted; below 0.5 the chain is probably "
        "disordered there. It says nothing about how chains lie towards each other. Other programs "
        "count it from 0 to 100.",
    ),
    Rule(
        "pdockq2?",
        (0.5, 0.23),
        ("high", "acceptable", "low"),
        "An estimate of DockQ, the quality of the interface; from 0.23 on a docking counts as "
        "acceptable.",
    ),
    Rule(
        "lis",
        (0.203,),
        ("likely", "unlikely"),
        "Mean closeness of residue pairs with an error below 12 Å; 0.203 is the published "
        "limit for pairs that interact.",
    ),
    Rule(
        "pae",
        (5, 10, 20),
        ("very sure", "sure", "unsure", "unknown"),
        "The error to expect in a residue's position, seen from a residue of the other chain: "
        "below 5 Å their places are sure, above 20 Å unknown.",
    ),
    Rule(
        "i?pde",
        (2, 5, 10),
        ("very sure", "sure", "unsure", "unknown"),
        "The error to expect in distances between residues that are likely in contact.",
    ),
)

# How to read scores without bands.
SENTENCES = {
    "confidence_score": "How far the whole prediction can be trusted, by which samples are ranked; "
    "it mixes pLDDT with ipTM, so compare it between samples of one complex only.",
    "ranking_score": "The score by which AlphaFold 3 ranks samples; a clash costs 100.",
    "fraction_disordered": "Share of residues that lie open to water, as disordered ones do.",
    "mpdockq": "An estimate of how right the whole assembly is, from its contacts and their pLDDT.",
    "interface_agreement": "How much the samples agree on the residues that touch: near 1 they "
    "all dock alike, near 0 each docks elsewhere.",
    "num_contacts": "How large the interface is; a few contacts may be chance.",
    "lia": "How many residue pairs have a small error between the chains: how large the part is "
    "whose placement is sure.",
    "clis": "LIS of the residues in contact only.",
    "clia": "How many of the residue pairs in contact have a small error.",
    "ilis": "LIS and that of the contacts in one number; both must be high.",
    "contact_prob_max": "How sure the network is of any contact, before it made a structure.",
    "contact_prob_top10": "How sure the network is of ten contacts, before it made a structure.",
    "expected_contacts": "How many contacts the network expects, before it made a structure.",
    "contacts_pae4": "Contacts that are sure; a confident interface has many.",
    "contacts_pae15": "Contacts whose residues are all predicted with some confidence.",
    "actifptm": "ipTM over the residues of the interface alone, so that tails do not pull it down.",
    "pitm": "TM-score of the interface's residues alone.",
    "af2complex_score": "TM-score of the interface's residues, both directions together.",
    "num_interface_residues_a": "How many residues of the first chain touch the second one.",
    "num_interface_residues_b": "How many residues of the second chain touch the first one.",
    "num_clashes": "Atoms of the two chains that lie in one another; more than a few say that the "
    "structure is wrong there.",
    "num_clashing_atoms": "Atoms of one chain that lie in the other one.",
    "buried_area": "How much surface the chains hide from water; below about 800 Å² an interface "
    "is often a crystal contact or chance.",
    "num_backbone_hbonds": "Hydrogen bonds between the backbones, as of a shared sheet.",
    "num_salt_bridges": "Opposite charges that touch across the interface.",
}


def describe_scores(table: str) -> list[dict[str, Any]]:
    """The scores of a table, the preferred ones first, as html/js/run.js reads them; those of
    `interfaces` with those that only `pairs` has.
    """
    found = filter(is_score, TABLES[table].columns)
    pair_scores = (*OWN_SCORES_OF_PAIRS, *INTERFACE_SCORES)
    scores = [_describe(c) for c in (pair_scores if table == "interfaces" else found)]
    order = {name: place for place, name in enumerate(PREFERRED)}
    return sorted(scores, key=lambda score: order.get(score["name"], len(order)))


def is_score(column: Column) -> bool:
    """Whether a column of a complex or chain says how good a prediction is."""
    return column.type.startswith("float") and "is better" in column.unit


# Scores of `pairs` that are no statistics of `interfaces`, but of the pair itself.
OWN_SCORES_OF_PAIRS = tuple(
    column
    for column in PAIRS.columns
    if is_score(column) and column.name.rpartition("_")[2] not in PAIR_STATISTICS
)


def label_of(name: str) -> str:
    """A column's name in words; a number at its end is a cutoff of PAE."""
    plain = CUTOFF.sub("", name)
    words = list(filter(None, (WORDS.get(word, word) for word in plain.split("_"))))
    label = " ".join(words)
    if words[0] not in WORDS.values():
        label = label[0].upper() + label[1:]
    cutoff = CUTOFF.search(name)
    return f"{label} at {cutoff[1]} Å" if cutoff else label


def _describe(column: Column) -> dict[str, Any]:
    lower = "lower is better" in column.unit
    unit = column.unit.partition(",")[0]
    rule = _rule_of(column.name)
    return {
        "name": column.name,
        "label": label_of(column.name),
        "unit": column.unit,
        "shortUnit": unit if unit.startswith("Å") else "",
        "digits": 1 if unit.startswith("Å") or unit == "count" else 3,
        "isCount": unit == "count",
        "isShare": column.unit.startswith("0..1"),
        "description": column.description,
        "isLowerBetter": lower,
        "sentence": rule.sentence if rule else _sentence(column.name),
        "bands": _bands(rule) if rule else [],
    }


def _sentence(name: str) -> str:
    """How to read a score without bands."""
    if CUTOFF.search(name):
        return "As the score of the same name, with another limit of PAE, which has no bands."
    return SENTENCES.get(name, "")


def _rule_of(name: str) -> Rule | None:
    """The rule of a score; scores at other cutoffs of PAE than the published one have none."""
    if CUTOFF.search(name):
        return None
    for word in name.split("_"):
        for rule in RULES:
            if re.fullmatch(rule.pattern, word):
                return rule
    return None


def _bands(rule: Rule) -> list[dict[str, Any]]:
    colours = BAND_COLOURS[len(rule.names)]
    limits = (*rule.limits, None)
    return [
        {"limit": limit, "name": name, "colour": colour}
        for limit, name, colour in zip(limits, rule.names, colours, strict=True)
    ]
