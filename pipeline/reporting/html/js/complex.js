"use strict";
// The page of one complex.

const ComplexPage = (() => {
  const MAX_NETWORK_CHAINS = 80;
  const MAX_LABELLED_CHAINS = 16; // of the matrix: with numbers in its cells
  const MIN_EDGE = 0.05; // of the scale of a score, below which the network has no edge
  const MAX_CONTACT_PAIRS = 60;

  async function show(key) {
    const run = await Run.load();
    const number = run.numbers.get(key);
    const container = byId("part-complex");
    if (number === undefined) {
      container.replaceChildren(element("h2", {}, "No complex has this key"), element("p", {}, element("a", { href: "#complexes" }, "All complexes")));
      return;
    }
    const { complexes } = run;
    container.replaceChildren(headOf(run, number));
    if (complexes.outcome[number] !== "done") {
      container.append(element("p", { className: "warning" }, `${complexes.outcome[number]}: ${complexes.reason[number]}`));
    }
    container.append(notesOf(complexes.notes[number]), sourceOf(complexes.source[number]));
    const [first, last] = run.chainRanges[number];
    if (first === last) return;
    const about = {
      run,
      number,
      first,
      count: last - first,
      names: run.chains.chain.slice(first, last),
      labels: Array.from({ length: last - first }, (_, i) => labelOf(run.chains, first + i)),
    };
    const structureBlock = Data.has(`structure-${number}`) ? await Data.block(`structure-${number}`) : null;
    const sampleBlock = Data.has(`samples-${number}`) ? await Data.block(`samples-${number}`) : null;
    const grid = element("div", { className: "two" });
    container.append(grid);
    const shown = await showStructure(grid, about, structureBlock, complexes.structure[number]);
    if (about.count > 1) await showPairs(grid, about, sampleBlock);
    if (structureBlock) {
      await showPae(grid, about, structureBlock);
    }
    const samples = await samplesOf(run, number);
    container.append(element("h2", {}, "Samples side by side"), samplesTable(samples));
    if (structureBlock) await showPlddt(container, about, structureBlock);
    container.append(element("h2", {}, "Chains and their alignments"), chainsTable(about));
    if (structureBlock) showContacts(container, about, structureBlock, shown);
  }

  function labelOf(chains, row) {
    const name = Run.moleculeName(chains, row);
    return name.endsWith(` ${chains.chain[row]}`) ? chains.chain[row] : `${chains.chain[row]} ${name}`;
  }

  function headOf(run, number) {
    const { complexes } = run;
    const facts = [
      complexes.organism[number],
      Number.isNaN(complexes.num_chains[number]) ? "" : `${complexes.num_chains[number]} chains`,
      Number.isNaN(complexes.num_tokens[number]) ? "" : `${formatCount(complexes.num_tokens[number])} tokens`,
      complexes.gpu_seconds[number] > 0 ? `${formatDuration(complexes.gpu_seconds[number])} of GPU time` : "",
      complexes.precision[number],
    ];
    return element(
      "div",
      {},
      element("div", { className: "complex-head" }, element("h2", {}, complexes.name[number]), element("span", { className: "soft" }, facts.filter(Boolean).join(" · "))),
      complexes.title[number] !== complexes.name[number] ? element("p", { className: "wrap" }, complexes.title[number]) : "",
    );
  }

  function notesOf(notes) {
    if (!notes) return "";
    const lines = notes.split("\n").map((note) => element("li", {}, note));
    return element("details", { open: lines.length < 3 }, element("summary", {}, `Notes on the input (${lines.length})`), element("ul", { className: "wrap" }, lines));
  }

  /** What the database says of the complex. */
  function sourceOf(source) {
    if (!source) return "";
    const entries = source.split("\n").map((line) => line.split("\t"));
    const list = entries.flatMap(([label, text]) => [element("dt", {}, label), element("dd", {}, text)]);
    return element("details", {}, element("summary", {}, "What the database says"), element("dl", {}, list));
  }

  async function samplesOf(run, number) {
    const samples = await Data.block("samples");
    run.sampleRanges ??= Data.ranges(samples.complex, run.complexes.length);
    const [first, last] = run.sampleRanges[number];
    return { samples, first, last };
  }

  function samplesTable({ samples, first, last }) {
    // A score of what the complex does not have, such as ligands, is 0 in every sample.
    const isKnown = (score) => samples[score.name].subarray(first, last).some((value) => value);
    const scores = Scores.described.complexes.filter(isKnown);
    const rows = [];
    for (let row = first; row < last; row++) {
      rows.push([
        samples.rank[row] === 0 ? element("b", {}, `${samples.sample[row]} (best)`) : String(samples.sample[row]),
        ...scores.map((score) => ({ num: Overview.valueWithDot(score, samples[score.name][row]) })),
      ]);
    }
    return plainTable(["Sample", ...scores.map((score) => ({ num: score.label }))], rows);
  }

  async function showStructure(container, about, block, path) {
    if (!block) {
      const text = path
        ? "It is not in this page, which holds the best complexes as far as they fit. The file: "
        : "No structure was kept.";
      container.append(element("figure", {}, element("p", {}, text, path ? element("code", { className: "path" }, path) : "")));
      return null;
    }
    const place = element("div");
    container.append(element("figure", {}, place, element("figcaption", { className: "path" }, `The best sample, as a ribbon; all atoms are in ${path}`)));
    return Structure.show(place, block, about.names);
  }

  /** Matrix and network of the chains, of a score and a sample that can be chosen. */
  async function showPairs(container, about, sampleBlock) {
    const scores = Scores.described.interfaces;
    const state = { score: scores[0], sample: "mean" };
    const matrix = element("div");
    const network = element("div");
    const caption = element("figcaption");
    const draw = async () => {
      const values = matrixOf(about, sampleBlock, state);
      caption.textContent = sampleBlock && state.score.name in sampleBlock
        ? "Rows: chains whose frames are used; columns: chains that are scored."
        : "Mean over samples and directions; the page has no single samples of this score.";
      await drawMatrix(matrix, about, state.score, values);
      await drawNetwork(network, about, state.score, values);
    };
    const samples = sampleBlock ? sampleBlock.facts.samples.map((sample) => [String(sample), `sample ${sample}`]) : [];
    const form = element(
      "form",
      { className: "bar" },
      choice("Score", scores.map((s) => [s.name, s.label]), (name) => { state.score = Scores.find("interfaces", name); draw(); }),
      samples.length > 1 ? choice("Sample", [["mean", "mean of all"], ...samples], (sample) => { state.sample = sample; draw(); }) : "",
    );
    container.append(
      element("figure", {}, form, matrix, caption),
      element("figure", {}, network, element("figcaption", {}, "Chains as a network by the same score: the better it is, the thicker the edge.")),
    );
    await draw();
  }

  /** values[a][b] of the chosen score and sample. */
  function matrixOf({ run, number, first, count }, block, { score, sample }) {
    const values = Array.from({ length: count }, () => new Array(count).fill(NaN));
    if (block && score.name in block) {
      const flat = block[score.name];
      const all = block.facts.samples.map((_, s) => s);
      const chosen = sample === "mean" ? all : [block.facts.samples.indexOf(Number(sample))];
      for (let a = 0; a < count; a++) {
        for (let b = 0; b < count; b++) {
          const known = chosen.map((s) => flat[(s * count + a) * count + b]).filter((v) => !Number.isNaN(v));
          if (known.length) values[a][b] = known.reduce((x, y) => x + y, 0) / known.length;
        }
      }
      return values;
    }
    const { pairs } = run;
    const means = pairs[`${score.name}_mean`];
    const [from, to] = run.pairRanges[number];
    for (let row = from; row < to; row++) {
      const [a, b] = [pairs.row_a[row] - first, pairs.row_b[row] - first];
      values[a][b] = means[row];
      values[b][a] = means[row];
    }
    return values;
  }

  function drawMatrix(container, { labels, count }, score, values) {
    const rows = [];
    for (let a = 0; a < count; a++) {
      for (let b = 0; b < count; b++) {
        if (a === b || Number.isNaN(values[a][b])) continue;
        rows.push({ a: labels[a], b: labels[b], value: values[a][b], text: Scores.format(score, values[a][b]), band: Scores.band(score, values[a][b])?.name ?? "" });
      }
    }
    const largest = rows.reduce((most, row) => Math.max(most, row.value), 0);
    const extent = score.isShare ? [0, 1] : [0, largest || 1];
    const axis = { labelLimit: 110, labelAngle: count > 6 ? -60 : -30, labelOverlap: true };
    const specify = (width) => {
      const side = Math.min(width, 520);
      const encoding = {
        x: { field: "b", type: "nominal", sort: labels, scale: { domain: labels }, title: "scored", axis: { ...axis, orient: "bottom" } },
        y: { field: "a", type: "nominal", sort: labels, scale: { domain: labels }, title: "frames", axis: { labelLimit: 110, labelOverlap: true } },
        tooltip: [{ field: "a", title: "frames" }, { field: "b", title: "scored" }, { field: "text", title: score.label }, { field: "band" }],
      };
      const cells = {
        mark: { type: "rect", stroke: Charts.css("--raised") },
        encoding: { color: { field: "value", type: "quantitative", title: null, scale: { domain: extent, scheme: "viridis", reverse: score.isLowerBetter }, legend: { gradientLength: Math.min(200, side / 2) } } },
      };
      const numbers = {
        mark: { type: "text", fontSize: 11 },
        encoding: {
          text: { field: "text" },
          color: { condition: { test: `datum.value ${score.isLowerBetter ? "<" : ">"} ${(extent[0] + extent[1]) * 0.6}`, value: "#10161d" }, value: "#ffffff" },
        },
      };
      const room = side / (count + 2);
      return {
        data: { values: rows },
        width,
        height: Math.min(420, Math.max(200, side * 0.8)),
        autosize: { type: "fit", contains: "padding" },
        encoding,
        layer: count <= MAX_LABELLED_CHAINS && room > 32 ? [cells, numbers] : [cells],
      };
    };
    return Charts.draw(container, specify, { label: `${score.label} of every pair of chains` });
  }

  function drawNetwork(container, { labels, names, count, run, first }, score, values) {
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
        strength: strength(edge.value),
        colour: Scores.band(score, edge.value)?.colour ?? Charts.CATEGORIES[0],
        tooltip: { pair: `${labels[edge.a]} – ${labels[edge.b]}`, [score.label]: Scores.format(score, edge.value), band: Scores.band(score, edge.value)?.name ?? "" },
      }))
      .filter((edge) => edge.strength >= MIN_EDGE);
    const nodes = names.map((name, index) => ({ index, name, label: labels[index], tokens: run.chains.num_tokens[first + index], colour: Charts.colourOf(index) }));
    const specify = (width) => networkSpecification(width, nodes, edges);
    return Charts.draw(container, specify, { label: `Network of chains by ${score.label}` });
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

  async function showPae(container, about, block) {
    if (!block.pae) return;
    const edges = block.facts.pae_edges;
    const bins = edges.length - 1;
    const score = Scores.described.interfaces.find((one) => one.name.startsWith("pae"));
    const rows = [];
    for (let i = 0; i < bins; i++) {
      for (let j = 0; j < bins; j++) {
        const pae = block.pae[i * bins + j];
        if (Number.isNaN(pae)) continue; // not kept
        rows.push({ x: edges[j], x2: edges[j + 1], y: edges[i], y2: edges[i + 1], pae });
      }
    }
    const borders = chainStarts(about).map((start) => ({ start }));
    const plot = element("div");
    container.append(element("figure", {}, plot, element("figcaption", {}, `Predicted aligned error of the best sample, in Å; lines are borders of chains. ${score ? score.sentence : ""}`)));
    const specify = (width) => {
      const side = Math.min(width - 110, 400);
      const axis = { grid: false, tickCount: 6 };
      const scale = { domain: [0, edges[bins]], nice: false };
      return {
        width: side,
        height: side,
        layer: [
          {
            data: { values: rows },
            mark: { type: "rect", strokeWidth: 0 },
            encoding: {
              x: { field: "x", type: "quantitative", title: "scored token", scale, axis },
              x2: { field: "x2" },
              y: { field: "y", type: "quantitative", title: "aligned token", scale: { ...scale, reverse: true }, axis },
              y2: { field: "y2" },
              color: { field: "pae", type: "quantitative", title: "Å", scale: { domain: [0, 32], scheme: "viridis", reverse: true } },
              tooltip: [{ field: "y", title: "aligned" }, { field: "x", title: "scored" }, { field: "pae", title: "Å", format: ".1f" }],
            },
          },
          { data: { values: borders }, mark: { type: "rule", color: "#ffffff", strokeWidth: 1.2 }, encoding: { x: { field: "start", type: "quantitative" } } },
          { data: { values: borders }, mark: { type: "rule", color: "#ffffff", strokeWidth: 1.2 }, encoding: { y: { field: "start", type: "quantitative" } } },
        ],
      };
    };
    await Charts.draw(plot, specify, { label: "Predicted aligned error of all pairs of tokens" });
  }

  /** The first token of every chain but the first. */
  function chainStarts({ run, first, count }) {
    const starts = [];
    let sum = 0;
    for (let i = 0; i < count - 1; i++) {
      sum += run.chains.num_tokens[first + i];
      starts.push(sum);
    }
    return starts;
  }

  async function showPlddt(container, about, block) {
    const score = Scores.described.chains.find((one) => one.name === "plddt");
    const rows = [];
    for (let i = 0; i < block.residue_plddt.length; i++) {
      if (!block.residue_polymer[i]) continue;
      rows.push({ chain: about.labels[block.residue_chain[i]], number: block.residue_number[i], plddt: block.residue_plddt[i] });
    }
    if (!rows.length || !score) return;
    const shown = new Set(rows.map((row) => row.chain));
    const domain = about.labels.filter((label) => shown.has(label));
    const bands = score.bands.map((band, i) => ({ low: 100 * (band.limit ?? 0), high: i ? 100 * score.bands[i - 1].limit : 100, name: band.name }));
    const colours = score.bands.map((band) => band.colour);
    const plot = element("div");
    container.append(element("h2", {}, "pLDDT along the chains"), element("figure", {}, plot));
    const specify = (width) => ({
      width,
      height: 260,
      autosize: { type: "fit", contains: "padding" },
      resolve: { scale: { color: "independent" } },
      layer: [
        {
          data: { values: bands },
          mark: { type: "rect", opacity: 0.13 },
          encoding: {
            y: { field: "low", type: "quantitative", scale: { domain: [0, 100] } },
            y2: { field: "high" },
            color: { field: "name", type: "nominal", scale: { domain: bands.map((band) => band.name), range: colours }, legend: null },
          },
        },
        {
          data: { values: rows },
          mark: { type: "line", strokeWidth: 1.4 },
          encoding: {
            x: { field: "number", type: "quantitative", title: "residue", scale: { nice: false } },
            y: { field: "plddt", type: "quantitative", title: "pLDDT" },
            color: { field: "chain", type: "nominal", title: null, scale: { domain, range: domain.map((label) => Charts.colourOf(about.labels.indexOf(label))) }, legend: domain.length > 24 ? null : { orient: "bottom", columns: width < 500 ? 1 : 4 } },
          },
        },
      ],
    });
    await Charts.draw(plot, specify, { label: "pLDDT of every residue" });
  }

  function chainsTable({ run, first, count }) {
    const { chains } = run;
    const scores = Scores.described.chains;
    const rows = Array.from({ length: count }, (_, i) => {
      const row = first + i;
      return [
        element("span", {}, dot(Charts.colourOf(i)), chains.chain[row]),
        moleculeCell(chains, row),
        chains.molecule_type[row],
        { num: formatCount(chains.num_residues[row]) },
        { num: formatCount(chains.msa_depth[row]) },
        { num: Number.isNaN(chains.msa_neff[row]) ? "–" : chains.msa_neff[row].toFixed(0) },
        { num: Number.isNaN(chains.msa_coverage[row]) ? "–" : `${(100 * chains.msa_coverage[row]).toFixed(0)}%` },
        ...scores.map((score) => ({ num: Overview.valueWithDot(score, chains[score.name][row]) })),
      ];
    });
    const header = ["Chain", "Molecule", "Type", { num: "Residues" }, { num: "MSA rows" }, { num: "Neff" }, { num: "Coverage" }, ...scores.map((score) => ({ num: score.label }))];
    return plainTable(header, rows);
  }

  function moleculeCell(chains, row) {
    const more = [chains.protein_name[row], chains.residue_range[row] && `residues ${chains.residue_range[row]}`];
    return element("span", {}, Run.moleculeName(chains, row), element("br"), element("span", { className: "soft" }, more.filter(Boolean).join(", ")));
  }

  function showContacts(container, about, block, shown) {
    const pairs = new Map();
    for (let i = 0; i < block.contact_a.length; i++) {
      let [a, b] = [block.contact_a[i], block.contact_b[i]];
      if (block.residue_chain[a] > block.residue_chain[b]) [a, b] = [b, a];
      const key = block.residue_chain[a] * 65536 + block.residue_chain[b];
      if (!pairs.has(key)) pairs.set(key, { a: new Set(), b: new Set(), count: 0 });
      const pair = pairs.get(key);
      pair.a.add(a);
      pair.b.add(b);
      pair.count++;
    }
    if (!pairs.size) return;
    const ordered = [...pairs].sort((x, y) => y[1].count - x[1].count).slice(0, MAX_CONTACT_PAIRS);
    const rows = ordered.map(([key, pair]) => {
      const [a, b] = [Math.floor(key / 65536), key % 65536];
      const button = shown ? element("button", { type: "button", onclick: () => shown.highlight([...pair.a, ...pair.b]) }, "Show") : "";
      return [`${about.labels[a]} – ${about.labels[b]}`, { num: String(pair.count) }, residueRanges(block, pair.a), residueRanges(block, pair.b), button];
    });
    container.append(
      element("h2", {}, "Contacts"),
      element("p", { className: "soft" }, "Residues within 8 Å of the other chain in the best sample, between CB atoms (CA of glycine, C1' of nucleotides)."),
      element("div", { className: "contacts" }, plainTable(["Chains", { num: "Pairs" }, "Residues of the first", "Residues of the second", ""], rows)),
    );
  }

  /** Numbers of residues, as 3–7, 12, 40–42. */
  function residueRanges(block, residues) {
    const numbers = [...new Set([...residues].map((residue) => block.residue_number[residue]))].sort((a, b) => a - b);
    const parts = [];
    for (let i = 0; i < numbers.length; ) {
      let end = i;
      while (end + 1 < numbers.length && numbers[end + 1] === numbers[end] + 1) end++;
      parts.push(end > i ? `${numbers[i]}–${numbers[end]}` : String(numbers[i]));
      i = end + 1;
    }
    return parts.join(", ");
  }

  return { show };
})();
