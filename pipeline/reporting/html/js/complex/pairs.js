"use strict";
// Chains of a complex: matrix and network of a score, and all about one pair of them.

const Pairs = (() => {
  const MAX_NETWORK_CHAINS = 80;
  const MAX_LABELLED_CHAINS = 16; // of the matrix: with numbers in its cells
  const MIN_EDGE = 0.05; // of the scale of a score, below which the network has no edge
  const MAX_LISTED_PAIRS = 60;

  /** Figures of the matrix and the network, with a function that draws them again. */
  function figures(about, onpair) {
    const scores = Scores.described.interfaces;
    const state = { score: scores[0] };
    const matrix = element("div");
    const network = element("div");
    const caption = element("figcaption");
    const draw = async () => {
      const { values, isDirected } = matrixOf(about, state.score);
      const unit = state.score.shortUnit ? ` in ${state.score.shortUnit}` : "";
      caption.textContent = isDirected
        ? `${state.score.label}${unit}. Rows: the chain on which the prediction is aligned; columns: the chain whose place is scored. A click shows the pair.`
        : `${state.score.label}${unit}, mean over samples and directions. A click shows the pair.`;
      await drawMatrix(matrix, about, state.score, values, onpair);
      await drawNetwork(network, about, state.score, values, onpair);
    };
    const form = element(
      "form",
      { className: "bar" },
      choice("Score", scores.map((s) => [s.name, s.label]), (name) => { state.score = Scores.find("interfaces", name); draw(); }),
    );
    const parts = [
      element("figure", {}, form, matrix, caption),
      element("figure", {}, network, element("figcaption", {}, "The chains as a network by the same score: the better it is, the thicker the edge; its colour is the band. The worst twentieth of the scale has no edge.")),
    ];
    return { parts, draw };
  }

  /** values[a][b] of a score in the chosen sample, and whether they have a direction. */
  function matrixOf(about, score) {
    const { run, number, first, count, pairBlock: block } = about;
    const values = Array.from({ length: count }, () => new Array(count).fill(NaN));
    if (block && score.name in block) {
      const all = block.facts.samples.map((_, s) => s);
      const chosen = about.sample === Samples.MEAN ? all : [block.facts.samples.indexOf(about.sample)];
      const flat = block[score.name];
      for (let a = 0; a < count; a++) {
        for (let b = 0; b < count; b++) {
          values[a][b] = Samples.meanOf(chosen.map((s) => flat[(s * count + a) * count + b]));
        }
      }
      return { values, isDirected: true };
    }
    const means = run.pairs[`${score.name}_mean`];
    for (const row of rowsOf(about)) {
      const [a, b] = [run.pairs.row_a[row] - first, run.pairs.row_b[row] - first];
      values[a][b] = means[row];
      values[b][a] = means[row];
    }
    return { values, isDirected: false };
  }

  function rowsOf({ run, number }) {
    const [from, to] = run.pairRanges[number];
    return Array.from({ length: to - from }, (_, i) => from + i);
  }

  function drawMatrix(container, { labels, count }, score, values, onpair) {
    const rows = [];
    for (let a = 0; a < count; a++) {
      for (let b = 0; b < count; b++) {
        if (a === b || Number.isNaN(values[a][b])) continue;
        rows.push({ a: labels[a], b: labels[b], numberA: a, numberB: b, value: values[a][b], text: Scores.format(score, values[a][b]), band: Scores.band(score, values[a][b])?.name ?? "" });
      }
    }
    const largest = rows.reduce((most, row) => Math.max(most, row.value), 0);
    const extent = score.isShare ? [0, 1] : [0, largest || 1];
    const axis = { labelLimit: 110, labelAngle: count > 6 ? -60 : -30, labelOverlap: true };
    const specify = (width) => {
      const side = Math.min(width, 520);
      const encoding = {
        x: { field: "b", type: "nominal", sort: labels, scale: { domain: labels }, title: "scored chain", axis: { ...axis, orient: "bottom" } },
        y: { field: "a", type: "nominal", sort: labels, scale: { domain: labels }, title: "aligned chain", axis: { labelLimit: 110, labelOverlap: true } },
        tooltip: [{ field: "a", title: "aligned" }, { field: "b", title: "scored" }, { field: "text", title: score.label }, { field: "band" }],
      };
      const cells = {
        mark: { type: "rect", stroke: Charts.css("--raised"), cursor: "pointer" },
        encoding: { color: { field: "value", type: "quantitative", title: null, scale: { domain: extent, scheme: "viridis", reverse: score.isLowerBetter }, legend: { gradientLength: Math.min(200, side / 2) } } },
      };
      const numbers = {
        mark: { type: "text", fontSize: 11, cursor: "pointer" },
        encoding: {
          text: { field: "text" },
          color: { condition: { test: `datum.value ${score.isLowerBetter ? "<" : ">"} ${(extent[0] + extent[1]) * 0.6}`, value: "#10161d" }, value: "#ffffff" },
        },
      };
      const room = (side - 190) / count; // beside names and legend
      return {
        data: { values: rows },
        width,
        height: Math.min(420, Math.max(200, side * 0.8)),
        autosize: { type: "fit", contains: "padding" },
        encoding,
        layer: count <= MAX_LABELLED_CHAINS && room > 34 ? [cells, numbers] : [cells],
      };
    };
    const onclick = (datum) => {
      if (datum.numberA !== undefined) onpair([datum.numberA, datum.numberB]);
    };
    return Charts.draw(container, specify, { onclick, label: `${score.label} of every pair of chains` });
  }

  function drawNetwork(container, { labels, names, count, run, first }, score, values, onpair) {
    const both = [];
    for (let a = 0; a < count; a++) {
      for (let b = a + 1; b < count; b++) {
        const known = [values[a][b], values[b][a]].filter((value) => !Number.isNaN(value));
        if (known.length) both.push({ a, b, value: known.sort((x, y) => Scores.compare(score, x, y))[0] });
      }
    }
    if (count > MAX_NETWORK_CHAINS) {
      container.replaceChildren(element("p", {}, `More than ${MAX_NETWORK_CHAINS} chains: too many to draw.`));
      return null;
    }
    const most = score.isShare ? 1 : both.reduce((high, edge) => Math.max(high, edge.value), 0) || 1;
    const strength = (value) => (score.isLowerBetter ? Math.max(0, 1 - value / most) : Math.min(1, value / most));
    const edges = both
      .map((edge) => ({
        source: edge.a,
        target: edge.b,
        ends: [edge.a, edge.b],
        strength: strength(edge.value),
        colour: Scores.band(score, edge.value)?.colour ?? Charts.CATEGORIES[0],
        tooltip: { pair: `${labels[edge.a]} – ${labels[edge.b]}`, [score.label]: Scores.format(score, edge.value), band: Scores.band(score, edge.value)?.name ?? "" },
      }))
      .filter((edge) => edge.strength >= MIN_EDGE);
    const nodes = names.map((name, index) => ({ index, name, label: labels[index], tokens: run.chains.num_tokens[first + index], colour: Charts.colourOf(index) }));
    const specify = (width) => networkSpecification(width, nodes, edges);
    const onclick = (datum) => {
      if (datum.ends) onpair(datum.ends);
    };
    return Charts.draw(container, specify, { onclick, label: `Network of chains by ${score.label}`, isPixels: true });
  }

  function networkSpecification(width, nodes, edges) {
    const height = 380;
    const distance = Math.max(40, Math.min(150, 420 / Math.sqrt(nodes.length)));
    return {
      $schema: "https://vega.github.io/schema/vega/v6.json",
      width: width - 8,
      height,
      padding: 4,
      data: [
        { name: "edges", values: edges },
        { name: "nodes", values: nodes.map((node) => ({ ...node, middleX: (width - 8) / 2, middleY: height / 2 })) },
      ],
      marks: [
        {
          name: "circles",
          type: "symbol",
          zindex: 1,
          from: { data: "nodes" },
          encode: {
            enter: {
              fill: { field: "colour" },
              stroke: { value: Charts.css("--raised") },
              strokeWidth: { value: 1.5 },
              size: { signal: `clamp(sqrt(datum.tokens) * ${nodes.length > 25 ? 8 : 22}, 90, 900)` },
              tooltip: { signal: "{chain: datum.label, tokens: datum.tokens}" },
            },
          },
          transform: [
            {
              type: "force",
              iterations: 250,
              static: true,
              signal: "force",
              forces: [
                { force: "center", x: (width - 8) / 2, y: height / 2 },
                { force: "collide", radius: 18 },
                { force: "nbody", strength: -4 * distance },
                { force: "x", x: "datum.middleX", strength: 0.06 },
                { force: "y", y: "datum.middleY", strength: 0.12 },
                { force: "link", links: "edges", distance, strength: 0.5 },
              ],
            },
          ],
        },
        {
          type: "path",
          from: { data: "edges" },
          interactive: true,
          encode: {
            enter: { stroke: { field: "colour" }, strokeWidth: { signal: "1 + 7 * datum.strength" }, strokeOpacity: { value: 0.75 }, tooltip: { field: "tooltip" } },
          },
          transform: [{ type: "linkpath", require: { signal: "force" }, shape: "line", sourceX: "datum.source.x", sourceY: "datum.source.y", targetX: "datum.target.x", targetY: "datum.target.y" }],
        },
        {
          type: "text",
          zindex: 2,
          interactive: false,
          from: { data: "circles" },
          encode: {
            enter: { text: { field: "datum.name" }, fill: { value: Charts.css("--ink") }, fontSize: { value: 12 }, fontWeight: { value: "bold" }, baseline: { value: "bottom" }, align: { value: "center" } },
            update: { x: { field: "x" }, y: { field: "y", offset: -12 } },
          },
        },
      ],
    };
  }

  /** A table of the pairs that touch in the shown sample, and of what each has at its interface. */
  function interfaces(about, onpair) {
    const { pairBlock: block, labels } = about;
    if (!block || !block.residues_sample) return null;
    const ipsae = Scores.described.interfaces.find((score) => score.name in block);
    const contacts = Scores.find("interfaces", "num_contacts");
    const values = matrixOf(about, ipsae).values;
    const found = touching(about, about.shownSample).map((at) => {
      const [a, b] = [block.residues_chain_a[at], block.residues_chain_b[at]];
      const best = [values[a][b], values[b][a]].sort((x, y) => Scores.compare(ipsae, x, y))[0];
      return { at, a, b, best };
    });
    if (!found.length) return element("p", { className: "soft" }, "No two chains of this sample touch.");
    found.sort((x, y) => Scores.compare(ipsae, x.best, y.best));
    const rows = found.slice(0, MAX_LISTED_PAIRS).map(({ at, a, b, best }) => [
      element("button", { type: "button", onclick: () => onpair([a, b]) }, `${labels[a]} – ${labels[b]}`),
      { num: Overview.valueWithDot(ipsae, best) },
      ...(contacts ? [{ num: contactsOf(about, a, b) }] : []),
      withoutChain(block.residues_a[at]),
      withoutChain(block.residues_b[at]),
    ]);
    const header = ["Chains", { num: Scores.shortLabel(ipsae) }, ...(contacts ? [{ num: "Contacts, mean" }] : []), "Residues of the first", "Residues of the second"];
    return element("div", { className: "interfaces" }, plainTable(header, rows));
  }

  function contactsOf(about, a, b) {
    const row = rowOf(about, a, b);
    return row < 0 ? "–" : Scores.format(Scores.find("interfaces", "num_contacts"), about.run.pairs.num_contacts_mean[row]);
  }

  function rowOf(about, a, b) {
    const { pairs } = about.run;
    const ends = [Math.min(a, b) + about.first, Math.max(a, b) + about.first];
    return rowsOf(about).find((row) => pairs.row_a[row] === ends[0] && pairs.row_b[row] === ends[1]) ?? -1;
  }

  /** Places in the block of the pairs that touch in a sample. */
  function touching({ pairBlock: block }, sample) {
    const found = [];
    for (let i = 0; i < (block?.residues_sample?.length ?? 0); i++) {
      if (block.residues_sample[i] === sample) found.push(i);
    }
    return found;
  }

  /** The residues of a pair's interface in the shown sample: texts of both sides, or null. */
  function residuesOf(about, a, b) {
    const { pairBlock: block } = about;
    const [low, high] = [Math.min(a, b), Math.max(a, b)];
    const at = touching(about, about.shownSample).find((i) => block.residues_chain_a[i] === low && block.residues_chain_b[i] === high);
    return at === undefined ? null : [block.residues_a[at], block.residues_b[at]];
  }

  /** A:3-9,14 as 3–9, 14. */
  function withoutChain(text) {
    return text.slice(text.lastIndexOf(":") + 1).replaceAll("-", "–").replaceAll(",", ", ");
  }

  /** [first, last] of every run of residues in A:3-9,14. */
  function runsOf(text) {
    const parts = text.slice(text.lastIndexOf(":") + 1).split(",");
    return parts.map((part) => part.split("-").map(Number)).map((ends) => [ends[0], ends.at(-1)]);
  }

  /** All about one pair. */
  async function detail(about, [a, b], onclose) {
    const { labels, run } = about;
    const [first, second] = [Math.min(a, b), Math.max(a, b)];
    const row = rowOf(about, a, b);
    const facts = [];
    const residues = residuesOf(about, first, second);
    if (residues) {
      const where = `in sample ${about.shownSample}`;
      facts.push([`Residues of ${labels[first]} ${where}`, withoutChain(residues[0])], [`Residues of ${labels[second]} ${where}`, withoutChain(residues[1])]);
    } else if (about.pairBlock) facts.push(["Interface", `no residues within 5 Å of the other chain in sample ${about.shownSample}`]);
    if (row >= 0) facts.push([Run.GATE_LABEL, `${Run.gateText(run.pairs.afdb_gate[row])} (${Run.GATE_MEANING})`]);
    const dockq = await Evaluation.dockqText(about, first, second);
    if (dockq) facts.push(["DockQ against experiment", dockq]);
    return element(
      "section",
      { className: "detail", tabIndex: -1 },
      element("div", { className: "bar" }, element("h2", {}, `Pair ${labels[first]} – ${labels[second]}`), element("button", { type: "button", onclick: onclose }, "Close")),
      element("dl", {}, facts.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)])),
      row >= 0 ? scoresOf(about, first, second, row) : "",
    );
  }

  /** The scores of a pair: those with bands, then the others. */
  function scoresOf(about, a, b, row) {
    const { names, run } = about;
    const known = Scores.described.interfaces.filter((score) => !Number.isNaN(run.pairs[`${score.name}_mean`]?.[row] ?? NaN));
    const shown = about.sample === Samples.MEAN ? "mean of samples" : `sample ${about.sample}`;
    const header = ["Score", { num: `${names[a]} → ${names[b]}, ${shown}` }, { num: `${names[b]} → ${names[a]}, ${shown}` }, { num: "Mean of all" }, { num: "Lowest" }, { num: "Highest" }];
    const banded = known.filter((score) => score.bands.length);
    const lines = banded.map((score) => {
      const { values, isDirected } = matrixOf(about, score);
      const directed = isDirected ? [values[a][b], values[b][a]] : [NaN, NaN];
      const statistics = ["mean", "min", "max"].map((name) => run.pairs[`${score.name}_${name}`]?.[row] ?? NaN);
      return [scoreName(score), ...[...directed, ...statistics].map((value) => ({ num: Overview.valueWithDot(score, value) }))];
    });
    const others = known.filter((score) => !score.bands.length).map((score) => [scoreName(score), { num: Scores.format(score, run.pairs[`${score.name}_mean`][row]) }]);
    return element(
      "div",
      {},
      plainTable(header, lines),
      element("details", {}, element("summary", {}, `${others.length} other scores, mean of samples and directions`), plainTable(["Score", { num: "Mean" }], others)),
    );
  }

  function scoreName(score) {
    return element("span", { title: score.sentence || score.description }, Scores.axisTitle(score));
  }

  return { figures, interfaces, detail, residuesOf, runsOf };
})();
