"""Which chain, residue and atom of a reference each of a prediction is."""
