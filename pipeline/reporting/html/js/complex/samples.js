"use strict";
// The samples of a complex, side by side; one of them, or the mean of all, is shown by the page.

const Samples = (() => {
  const MEAN = "mean";
  // Shown of every sample where the run has them; all others are in a table that can be opened.
  const SHOWN = ["confidence_score", "ranking_score", "ptm", "iptm"];

  /** The samples of a complex, the best one first. */
  async function load(run, number) {
    const table = await Data.block("samples");
    run.sampleRanges ??= Data.ranges(table.complex, run.complexes.length);
    const [first, last] = run.sampleRanges[number];
    const rows = Array.from({ length: last - first }, (_, i) => first + i);
    rows.sort((a, b) => table.rank[a] - table.rank[b]);
    return {
      table,
      list: rows.map((row) => ({ row, sample: table.sample[row], structure: table.structure[row] })),
    };
  }

  /** A table of which a row is chosen; `onchoose` gets "mean" or the number of a sample. */
  function chooser(about, onchoose) {
    const { table, list } = about.samples;
    const scores = shownScores(about);
    const pairScore = Scores.find("interfaces", Data.facts.sample_pair_score);
    const hasPairs = about.count > 1 && "best_pair" in table && pairScore;
    const hasClashes = about.count > 1 && "num_clashes" in table;
    const header = [
      "Shown",
      ...scores.map((score) => ({ num: score.label })),
      ...(hasPairs ? [{ num: `Best ${Scores.shortLabel(pairScore)}` }] : []),
      ...(hasClashes ? [{ num: "Clashes" }] : []),
    ];
    const line = (value, text, cellsOf) => [radio(value, text, about.sample === value, onchoose), ...cellsOf];
    const lines = list.map(({ row, sample }, place) =>
      line(sample, `sample ${sample}${place ? "" : " (best)"}`, [
        ...scores.map((score) => ({ num: Overview.valueWithDot(score, table[score.name][row]) })),
        ...(hasPairs ? [{ num: Overview.valueWithDot(pairScore, table.best_pair[row]) }] : []),
        ...(hasClashes ? [{ num: formatCount(table.num_clashes[row]) }] : []),
      ]),
    );
    const means = line(MEAN, "mean of all", [
      ...scores.map((score) => ({ num: Overview.valueWithDot(score, meanOf(list.map(({ row }) => table[score.name][row]))) })),
      ...(hasPairs ? [{ num: Overview.valueWithDot(pairScore, meanOf(list.map(({ row }) => table.best_pair[row]))) }] : []),
      ...(hasClashes ? [{ num: meanText(list.map(({ row }) => table.num_clashes[row])) }] : []),
    ]);
    return element(
      "fieldset",
      { className: "samples" },
      element("legend", {}, "Samples: the one that is chosen is shown below"),
      plainTable(header, list.length > 1 ? [means, ...lines] : lines),
    );
  }

  function shownScores(about) {
    const wanted = about.count > 1 ? SHOWN : SHOWN.filter((name) => name !== "iptm");
    return wanted.map((name) => Scores.find("complexes", name)).filter(Boolean);
  }

  function radio(value, text, checked, onchoose) {
    const input = element("input", { type: "radio", name: "sample", value: String(value), checked, onchange: () => onchoose(value) });
    return element("label", { className: "inline" }, input, text);
  }

  function meanOf(values) {
    const known = values.filter((value) => !Number.isNaN(value));
    return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
  }

  function meanText(values) {
    const mean = meanOf(values);
    return Number.isNaN(mean) ? "–" : mean.toFixed(1);
  }

  /** Every score of every sample. */
  function allScores({ samples: { table, list } }) {
    // A score of what the complex does not have, such as ligands, is 0 in every sample.
    const isKnown = (score) => list.some(({ row }) => table[score.name][row]);
    const header = ["Score", ...list.map(({ sample }) => ({ num: `sample ${sample}` }))];
    const rows = Scores.described.complexes
      .filter(isKnown)
      .map((score) => [
        Scores.axisTitle(score),
        ...list.map(({ row }) => ({ num: Overview.valueWithDot(score, table[score.name][row]) })),
      ]);
    return element("details", {}, element("summary", {}, "All scores of the samples"), plainTable(header, rows));
  }

  return { MEAN, load, chooser, allScores, meanOf };
})();
