"use strict";
// Scores against DockQ, where interfaces were compared with experiment.

const Evaluation = (() => {
  // Classes of DockQ (Basu 2016), from the best.
  const CLASSES = [
    [0.8, "high"],
    [0.49, "medium"],
    [0.23, "acceptable"],
    [0, "incorrect"],
  ];
  const COLOURS = ["#0053d6", "#65cbf3", "#ffdb13", "#ff7d45"];

  function className(dockq) {
    return CLASSES.find(([least]) => dockq >= least)[1];
  }

  async function show(run) {
    const container = byId("evaluation");
    if (!container) return;
    const block = await Data.block("evaluation");
    const scores = Scores.described.interfaces.filter((score) => score.bands.length && score.name in block);
    const plot = element("div");
    const draw = (name) => drawScatter(plot, run, block, Scores.find("interfaces", name));
    container.append(
      element("div", { className: "bar" }, choice("Score", scores.map((score) => [score.name, score.label]), draw)),
      element("div", { className: "two" }, element("figure", {}, plot, element("figcaption", {}, "Every interface of every sample that has an experimental reference; a click opens it. The colour is the class of DockQ.")), correlationTable()),
    );
    await draw(scores[0].name);
  }

  function correlationTable() {
    const rows = Data.facts.evaluation.correlations.map((row) => [
      Scores.find("interfaces", row.name)?.label ?? row.name,
      { num: row.spearman.toFixed(2) },
      { num: row.pearson.toFixed(2) },
      { num: formatCount(row.pairs) },
    ]);
    const table = plainTable(["Score", { num: "Spearman" }, { num: "Pearson" }, { num: "Interfaces" }], rows);
    return element(
      "figure",
      {},
      element("div", { className: "tall" }, table),
      element("figcaption", {}, "Correlation of each score with DockQ: 1 where a better score always means a better structure, 0 where it says nothing; negative for errors such as PAE. Of both directions the better score counts."),
    );
  }

  function drawScatter(container, run, block, score) {
    const rows = [];
    for (let i = 0; i < block.length; i++) {
      if (Number.isNaN(block[score.name][i])) continue;
      const complex = block.complex[i];
      const [a, b] = [block.row_a[i], block.row_b[i]];
      rows.push({
        link: `${run.link(complex)}/${a - run.chainRanges[complex][0]}-${b - run.chainRanges[complex][0]}`,
        name: run.complexes.name[complex],
        pair: `${Run.moleculeName(run.chains, a)} – ${Run.moleculeName(run.chains, b)}`,
        sample: block.sample[i],
        value: block[score.name][i],
        dockq: block.dockq[i],
        class: className(block.dockq[i]),
      });
    }
    const names = CLASSES.map(([, name]) => name);
    const specify = (width) => ({
      data: { values: rows },
      width,
      height: 320,
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "circle", size: rows.length > 1000 ? 18 : 40, opacity: 0.75, cursor: "pointer" },
      encoding: {
        x: { field: "value", type: "quantitative", title: Scores.axisTitle(score), scale: { domain: Charts.domain(score) } },
        y: { field: "dockq", type: "quantitative", title: "DockQ", scale: { domain: [0, 1] } },
        color: { field: "class", type: "nominal", scale: { domain: names, range: COLOURS }, legend: { title: null, orient: "top" } },
        tooltip: [
          { field: "name" },
          { field: "pair" },
          { field: "sample" },
          { field: "value", title: score.label, format: ".3~f" },
          { field: "dockq", title: "DockQ", format: ".3~f" },
          { field: "class" },
        ],
      },
    });
    const onclick = (datum) => {
      if (datum.link) location.hash = datum.link;
    };
    return Charts.draw(container, specify, { onclick, label: `DockQ against ${score.label}` });
  }

  /** DockQ of a pair of a complex in every sample that was compared, as a text; empty without any. */
  async function dockqText(about, a, b) {
    if (!Data.has("evaluation")) return "";
    const block = await Data.block("evaluation");
    const texts = [];
    for (let i = 0; i < block.length; i++) {
      if (block.complex[i] !== about.number || block.row_a[i] !== about.first + a || block.row_b[i] !== about.first + b) continue;
      texts.push(`${block.dockq[i].toFixed(2)}, ${className(block.dockq[i])} (sample ${block.sample[i]})`);
    }
    return texts.join("; ");
  }

  return { show, dockqText };
})();
