"""Names of organisms that mean the same: CORUM writes Human, Complex Portal 9606.

The names and NCBI taxa are those of UniProt's list of species
(https://ftp.uniprot.org/pub/databases/uniprot/current_release/knowledgebase/complete/docs/speclist.txt);
for yeasts and E. coli, the strains of the databases count as the species.
"""

from __future__ import annotations

_ORGANISMS = (
    ("9606", "Homo sapiens", "Human"),
    ("10090", "Mus musculus", "Mouse"),
    ("10116", "Rattus norvegicus", "Rat"),
    ("9913", "Bos taurus", "Bovine"),
    ("9823", "Sus scrofa", "Pig"),
    ("9986", "Oryctolagus cuniculus", "Rabbit"),
    ("9615", "Canis lupus familiaris", "Dog"),
    ("9031", "Gallus gallus", "Chicken"),
    ("8355", "Xenopus laevis", "African clawed frog"),
    ("7955", "Danio rerio", "Zebrafish"),
    ("7227", "Drosophila melanogaster", "Fruit fly"),
    ("6239", "Caenorhabditis elegans"),
    ("559292", "4932", "Saccharomyces cerevisiae", "Baker's yeast"),
    ("284812", "4896", "Schizosaccharomyces pombe", "Fission yeast"),
    ("3702", "Arabidopsis thaliana", "Mouse-ear cress"),
    ("83333", "562", "Escherichia coli"),
)


def is_of_organism(written: str, wanted: str) -> bool:
    """Whether an organism as a database writes it is the one that a user names.

    That is one whose name begins with the user's, or one that the table holds equal to it. A taxon
    is its whole number. All are meant by an empty name.
    """
    written = written.strip().lower()
    wanted = wanted.strip().lower()
    if not wanted.isdecimal() and written.startswith(wanted):
        return True
    names = next((names for names in _LOWER if wanted in names), (wanted,))
    return any(_begins_with(written, name) for name in names)


def _begins_with(written: str, name: str) -> bool:
    """Whether a text is a name, or a name and more words."""
    rest = written.removeprefix(name)
    return written.startswith(name) and rest[:1] in ("", " ", "(", ",", ";")


_LOWER = [tuple(name.lower() for name in names) for names in _ORGANISMS]
