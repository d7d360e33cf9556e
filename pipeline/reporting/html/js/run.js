"use strict";
// Scores as the page shows them, and the tables of the run.

const Scores = (() => {
  const described = Data.facts.scores;

  function find(table, name) {
    return described[table].find((score) => score.name === name);
  }

  function format(score, value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const isWhole = score.isCount && Number.isInteger(value);
    return value.toFixed(isWhole || Math.abs(value) >= 1000 ? 0 : score.digits);
  }

  function band(score, value) {
    if (value === null || Number.isNaN(value)) return null;
    for (const band of score.bands) {
      if (band.limit === null) return band;
      if (score.isLowerBetter ? value <= band.limit : value >= band.limit) return band;
    }
    return null;
  }

  /** Negative when a is better than b; missing values are the worst. */
  function compare(score, a, b) {
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return score.isLowerBetter ? a - b : b - a;
  }

  function axisTitle(score) {
    return score.shortUnit ? `${score.label}, ${score.shortUnit}` : score.label;
  }

  /** For the head of a narrow column. */
  function shortLabel(score) {
    return score.label.replace(/ \(d0 of \w+\)/, "");
  }

  return { described, find, format, band, compare, axisTitle, shortLabel };
})();

const Run = (() => {
  let loading = null;

  /** The tables complexes, chains and pairs, with the rows of every complex in the latter two. */
  function load() {
    loading ??= Promise.all(["complexes", "chains", "pairs"].map(Data.block)).then(
      ([complexes, chains, pairs]) => ({
        complexes,
        chains,
        pairs,
        chainRanges: Data.ranges(chains.complex, complexes.length),
        pairRanges: Data.ranges(pairs.complex, complexes.length),
        numbers: new Map(complexes.key.map((key, number) => [key, number])),
        link: (number) => `#complex=${complexes.key[number]}`,
        pairLink(pair) {
          const first = this.chainRanges[pairs.complex[pair]][0];
          return `${this.link(pairs.complex[pair])}/${pairs.row_a[pair] - first}-${pairs.row_b[pair] - first}`;
        },
      }),
    );
    return loading;
  }

  /** What a molecule is called: its gene, accession with the range of it, or kind; chains without
   * either by their name. */
  function moleculeName(chains, row) {
    const gene = chains.gene[row];
    const range = chains.residue_range[row];
    const accession = range ? `${chains.accession[row]}:${range}` : chains.accession[row];
    if (gene && accession) return `${gene} (${accession})`;
    return gene || accession || `${chains.molecule_type[row]} ${chains.chain[row]}`;
  }

  /** What is equal for copies of a molecule: its accession, or its sequence where it has none. */
  function moleculeKey(chains, row) {
    return chains.accession[row] || `entity ${chains.entity[row]}`;
  }

  const GATE_LABEL = "AFDB gate";
  const GATE_MEANING = "shown in AlphaFold DB: ipSAE of the better direction at least 0.6 and pDockQ2 at least 0.23";

  /** Whether a pair passes the gate of AlphaFold DB, in a word. */
  function gateText(value) {
    if (Number.isNaN(value)) return "–";
    return value ? "passes" : "fails";
  }

  /** The column of a statistic of a score of pairs; scores without bands have means only. */
  function pairField(pairs, score, statistic) {
    const field = `${score.name}_${statistic}`;
    return field in pairs ? field : `${score.name}_mean`;
  }

  return { load, moleculeName, moleculeKey, pairField, gateText, GATE_LABEL, GATE_MEANING };
})();
