"use strict";
// Distributions of scores, scores against size, and the best pairs.

const Overview = (() => {
  const NUM_BEST = 12;
  const PREFIX = { interfaces: "pairs", complexes: "complexes" };

  async function show() {
    if (!byId("distribution-score")) return;
    const run = await Run.load();
    fillChoice(run);
    await drawScore(run);
    await Evaluation.show(run);
    await drawBest(run);
    await drawAll(run);
  }

  function fillChoice(run) {
    const select = byId("distribution-score");
    for (const table of ["interfaces", "complexes"]) {
      if (table === "interfaces" && !run.pairs.length) continue;
      const options = Scores.described[table].map((score) =>
        element("option", { value: `${table}/${score.name}` }, score.label),
      );
      select.append(element("optgroup", { label: `of ${PREFIX[table]}` }, options));
    }
    select.addEventListener("change", () => drawScore(run));
  }

  async function drawScore(run) {
    const [table, name] = byId("distribution-score").value.split("/");
    const score = Scores.find(table, name);
    const values = valuesOf(run, table, score);
    byId("distribution-sentence").textContent = score.sentence;
    await Charts.draw(byId("plot-distribution"), Charts.histogram(score, values, { height: 260 }), {
      label: `Distribution of ${score.label}`,
    });
    await drawSize(run, table, score);
  }

  function valuesOf(run, table, score) {
    if (table === "complexes") return Array.from(run.complexes[score.name]);
    return Array.from(run.pairs[Run.pairField(run.pairs, score, "mean")]);
  }

  /** One point a complex: its score, or that of its best pair. */
  async function drawSize(run, table, score) {
    const { complexes } = run;
    const rows = [];
    for (let number = 0; number < complexes.length; number++) {
      const value = table === "complexes" ? complexes[score.name][number] : bestPair(run, score, number);
      if (Number.isNaN(value) || Number.isNaN(complexes.num_tokens[number])) continue;
      const band = Scores.band(score, value);
      rows.push({
        number,
        name: complexes.name[number],
        title: complexes.title[number],
        tokens: complexes.num_tokens[number],
        chains: complexes.num_chains[number],
        value,
        band: band ? band.name : "",
      });
    }
    const title = table === "complexes" ? Scores.axisTitle(score) : `${Scores.axisTitle(score)}, best pair`;
    const specify = (width) => ({
      data: { values: rows },
      width,
      height: 260,
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "circle", size: rows.length > 1000 ? 18 : 40, opacity: rows.length > 1000 ? 0.6 : 0.85, cursor: "pointer" },
      encoding: {
        x: {
          field: "tokens",
          type: "quantitative",
          title: "tokens",
          scale: { type: "log", nice: false, padding: 8 },
          axis: { tickCount: 6, format: "~s" },
        },
        y: { field: "value", type: "quantitative", title, scale: { domain: Charts.domain(score) } },
        color: Charts.bandColour(score, "band", null),
        tooltip: [
          { field: "name" },
          { field: "title" },
          { field: "tokens", format: "," },
          { field: "chains" },
          { field: "value", title: score.label, format: ".3~f" },
        ],
      },
    });
    await Charts.draw(byId("plot-size"), specify, {
      onclick: (datum) => {
        if (datum.number !== undefined) location.hash = run.link(datum.number);
      },
      label: `${score.label} against the number of tokens`,
    });
  }

  function bestPair(run, score, number) {
    const values = run.pairs[Run.pairField(run.pairs, score, "mean")];
    const [first, last] = run.pairRanges[number];
    let best = NaN;
    for (let row = first; row < last; row++) {
      if (Scores.compare(score, values[row], best) < 0) best = values[row];
    }
    return best;
  }

  async function drawBest(run) {
    const container = byId("best-pairs");
    if (!container) return;
    const score = Scores.described.interfaces[0];
    const rows = Interfaces.groupRows(run, "complexes", score, "mean").slice(0, NUM_BEST);
    const others = Scores.described.interfaces.filter((other) => other.bands.length && other !== score);
    const shown = [score, ...firstOfEachKind(others, score)].slice(0, 4);
    const header = ["Complex", "Pair", ...shown.map((one) => ({ num: Scores.shortLabel(one) }))];
    const lines = rows.map((row) => [
      element("span", {}, element("a", { href: row.link }, row.name), element("br"), element("span", { className: "soft" }, row.title)),
      `${row.a} – ${row.b}`,
      ...shown.map((one) => ({ num: valueWithDot(one, run.pairs[Run.pairField(run.pairs, one, "mean")][row.pair]) })),
    ]);
    container.replaceChildren(plainTable(header, lines));
  }

  /** The first score of every family, such as ipSAE, ipTM, PAE, other than that of `score`. */
  function firstOfEachKind(scores, score) {
    const seen = new Set([score.sentence]);
    return scores.filter((one) => !seen.has(one.sentence) && seen.add(one.sentence));
  }

  function valueWithDot(score, value) {
    const band = Scores.band(score, value);
    return element("span", { title: band ? band.name : "" }, band ? dot(band.colour) : "", Scores.format(score, value));
  }

  async function drawAll(run) {
    const container = byId("plot-small");
    for (const score of Scores.described.complexes) {
      const values = Array.from(run.complexes[score.name]);
      if (!values.some((value) => !Number.isNaN(value))) continue;
      const plot = element("div");
      container.append(element("figure", {}, plot));
      await Charts.draw(plot, Charts.histogram(score, values, { height: 90, steps: 25, title: Scores.axisTitle(score) }), {
        label: `Distribution of ${score.label}`,
      });
    }
  }

  return { show, valueWithDot, firstOfEachKind };
})();
