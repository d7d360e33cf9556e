"""Predicted structures as ModelCIF files: text, gzipped text or BinaryCIF.

One model per file. `tables.py` has the tables of a file before they are text or bytes, `write.py`
makes these; what the other modules hold is named after the categories of ModelCIF
(https://mmcif.wwpdb.org/dictionaries/mmcif_ma.dic).

A chain is an instance (`label_asym_id`) of its name, but for a ligand of several components that
are not all sugars: each of these is an instance of its own, and they share the chain's name as
`auth_asym_id`. Residues count from 1 in each chain.
"""
