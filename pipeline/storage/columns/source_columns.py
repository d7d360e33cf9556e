"""Columns of what the database says of a complex."""

from __future__ import annotations

from foldcp.pipeline.storage.columns.column import names, text

# What the database says of a complex, as it is written there (`foldcp.complex.DatabaseEntry`).
SOURCE_COLUMNS = (
    names("source_synonyms", "other names of the complex in its database"),
    names("source_gene_names", "gene names of the subunits in its database, in their order"),
    names("source_protein_names", "protein names of the subunits in its database, in their order"),
    text("source_stoichiometry", "copy numbers of the subunits as its database writes them"),
    text("source_cell_line", "cells or tissue that it was found in"),
    names("source_purification_methods", "experimental methods, with their PSI-MI identifiers"),
    names("source_go_ids", "identifiers of Gene Ontology terms, such as GO:0016514"),
    names("source_go_names", "names of the Gene Ontology terms"),
    names("source_funcat_ids", "identifiers of the functions in CORUM: FunCat, or its own groups"),
    names("source_funcat_names", "names of the functions in CORUM"),
    names("source_pubmed_ids", "PubMed identifiers of the publications"),
    names("source_cross_references", "entries of other databases, as Complex Portal writes them"),
    text("source_evidence", "evidence code of Complex Portal, such as ECO:0000353"),
    text("source_confidence", "confidence of a predicted complex in its database (hu.MAP: 1 best)"),
    text("source_comment", "comment on the complex, or its description"),
    text("source_subunits_comment", "comment on the subunits"),
    text("source_disease", "diseases that the complex is known for"),
    text("source_other", "what else the database's row says: JSON, values by column"),
)
