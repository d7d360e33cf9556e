"""Rows of `protein_pairs`: those of `pairs` by UniProt accession, over complexes and copies."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from foldcp.pipeline.storage.columns.band_columns import ipsae_band, passes_gate
from foldcp.pipeline.storage.parquet import arrow_schema
from foldcp.pipeline.storage.schemas import INTERFACE_SCORES, PROTEIN_PAIRS

_ENDS = ["accession_a", "accession_b"]


def protein_pairs(pairs: pa.Table) -> pa.Table:
    """The rows of `protein_pairs` of the rows of `pairs` that are not stale."""
    schema = arrow_schema(PROTEIN_PAIRS)
    known = pairs.filter(
        (pc.field("accession_a") != "") & (pc.field("accession_b") != "") & ~pc.field("stale")
    )
    if not known.num_rows:
        return schema.empty_table()
    ordered = in_alphabet(known).sort_by([("ipsae_d0res_max", "descending"), ("name", "ascending")])
    sources = {
        **{name: (name, "first") for name in ("gene_a", "gene_b", "checkpoint", "untrained")},
        "num_complexes": ("key", "count_distinct"),
        "num_pairs": ("key", "count"),
        "best_key": ("key", "first"),
        "best_name": ("name", "first"),
        "best_chain_a": ("chain_a", "first"),
        "best_chain_b": ("chain_b", "first"),
    }
    for score in INTERFACE_SCORES:
        sources[f"{score.name}_min"] = (f"{score.name}_min", "min")
        sources[f"{score.name}_max"] = (f"{score.name}_max", "max")
        sources[f"{score.name}_mean"] = (f"{score.name}_mean", "mean")
        sources[f"{score.name}_sd"] = (f"{score.name}_mean", "stddev")
    options = {"stddev": pc.VarianceOptions(ddof=1)}
    aggregations = [
        (column, function, options.get(function))
        for column, function in dict.fromkeys(sources.values())
    ]
    groups = ordered.group_by(_ENDS, use_threads=False).aggregate(aggregations)
    columns = {name: groups[name] for name in _ENDS}
    columns |= {name: groups["_".join(source)] for name, source in sources.items()}
    ipsae = columns["ipsae_d0res_max"].to_pylist()
    pdockq2 = columns["pdockq2_max"].to_pylist()
    columns["ipsae_band"] = list(map(ipsae_band, ipsae))
    columns["afdb_gate"] = list(map(passes_gate, ipsae, pdockq2))
    rows = pa.table([columns[name] for name in schema.names], names=schema.names).cast(schema)
    return rows.sort_by([(name, "ascending") for name in PROTEIN_PAIRS.sort_columns])


def in_alphabet(pairs: pa.Table) -> pa.Table:
    """The pairs with the accession that comes first in the alphabet as a."""
    is_reversed = pc.call_function("greater", [pairs["accession_a"], pairs["accession_b"]])
    for name in ("accession", "gene", "chain"):
        if f"{name}_a" not in pairs.schema.names:
            continue
        first = pairs[f"{name}_a"]
        second = pairs[f"{name}_b"]
        for end, column in (
            ("a", pc.call_function("if_else", [is_reversed, second, first])),
            ("b", pc.call_function("if_else", [is_reversed, first, second])),
        ):
            index = pairs.schema.get_field_index(f"{name}_{end}")
            pairs = pairs.set_column(index, pairs.schema.field(index), column)
    return pairs
