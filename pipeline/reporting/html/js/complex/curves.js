"use strict";
// PAE of all tokens of a sample; pLDDT and the depth of the alignment along the chains.

const Curves = (() => {
  /** A heat map of PAE in a container; empty where the page has none. */
  async function showPae(container, about, block) {
    container.replaceChildren();
    container.hidden = !block;
    if (block && !block.pae) container.append(element("p", {}, `The PAE of sample ${about.shownSample} was not kept; write.pae says of which samples it is.`));
    if (!block?.pae) return;
    const edges = block.facts.pae_edges;
    const bins = edges.length - 1;
    const score = Scores.described.interfaces.find((one) => one.name.startsWith("pae"));
    // Squares reach a little under their neighbours, or the background would shine through.
    const overlap = edges[bins] / 400;
    const rows = [];
    for (let i = 0; i < bins; i++) {
      for (let j = 0; j < bins; j++) {
        const pae = block.pae[i * bins + j];
        if (Number.isNaN(pae)) continue; // not kept
        rows.push({ x: edges[j], x2: Math.min(edges[bins], edges[j + 1] + overlap), y: edges[i], y2: Math.min(edges[bins], edges[i + 1] + overlap), pae });
      }
    }
    const borders = chainStarts(about).map((start) => ({ start }));
    const plot = element("div");
    const caption = `Predicted aligned error of sample ${about.shownSample}, in Å: the error to expect at the scored token, seen from the aligned one. Lines are borders of chains. ${score ? score.sentence : ""}`;
    container.append(plot, element("figcaption", {}, caption));
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
    await Charts.draw(plot, specify, { label: "Predicted aligned error of all pairs of tokens", isPixels: true });
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

  /** The colours of chains with a curve, and their legend. */
  function chainColour(about, shown, width) {
    const domain = about.labels.filter((label) => shown.has(label));
    const range = domain.map((label) => Charts.colourOf(about.labels.indexOf(label)));
    const legend = domain.length > 24 ? null : { orient: "bottom", columns: width < 700 ? 2 : 4 };
    return { field: "chain", type: "nominal", title: null, scale: { domain, range }, legend };
  }

  async function showPlddt(container, about, block) {
    container.replaceChildren();
    const score = Scores.find("chains", "plddt");
    const rows = [];
    for (let i = 0; i < (block?.residue_plddt.length ?? 0); i++) {
      if (!block.residue_polymer[i]) continue;
      rows.push({ chain: about.labels[block.residue_chain[i]], number: block.residue_number[i], value: block.residue_plddt[i] / 100 });
    }
    container.hidden = !rows.length || !score;
    if (container.hidden) return;
    const bands = score.bands.map((band, i) => ({ low: band.limit ?? 0, high: i ? score.bands[i - 1].limit : 1, name: band.name }));
    const colours = score.bands.map((band) => band.colour);
    const plot = element("div");
    const names = score.bands.map((band) => (band.limit === null ? band.name : `${band.name} from ${band.limit}`));
    container.append(plot, element("figcaption", {}, `pLDDT of every residue of sample ${about.shownSample}; the background is its band: ${names.join(", ")}.`));
    const shown = new Set(rows.map((row) => row.chain));
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
            y: { field: "low", type: "quantitative", scale: { domain: [0, 1] } },
            y2: { field: "high" },
            color: { field: "name", type: "nominal", scale: { domain: bands.map((band) => band.name), range: colours }, legend: null },
          },
        },
        {
          data: { values: rows },
          mark: { type: "line", strokeWidth: 1.4 },
          encoding: {
            x: { field: "number", type: "quantitative", title: "residue", scale: { nice: false } },
            y: { field: "value", type: "quantitative", title: "pLDDT" },
            color: chainColour(about, shown, width),
          },
        },
      ],
    });
    await Charts.draw(plot, specify, { label: "pLDDT of every residue" });
  }

  /** How many sequences of the alignment have a residue, along each chain. */
  async function showDepth(container, about) {
    const block = about.pairBlock;
    const rows = [];
    for (let i = 0; i < (block?.depth?.length ?? 0); i++) {
      rows.push({ chain: about.labels[block.depth_chain[i]], number: block.depth_residue[i], value: block.depth[i] });
    }
    const { chains } = about.run;
    const isAlone = Array.from({ length: about.count }, (_, i) => chains.msa_depth[about.first + i]).every((depth) => depth <= 1);
    container.hidden = !rows.length && !isAlone;
    if (!rows.length) {
      container.append(element("p", {}, "No alignment: every chain was folded from its own sequence alone."));
      return;
    }
    const shown = new Set(rows.map((row) => row.chain));
    const without = about.labels.filter((label, i) => !shown.has(label) && chains.molecule_type[about.first + i] === "protein");
    const plot = element("div");
    const missing = without.length ? ` Without an alignment: ${without.slice(0, 12).join(", ")}${without.length > 12 ? ", …" : ""}.` : "";
    container.append(plot, element("figcaption", {}, `Depth of the alignment: the different sequences, with the chain's own, that have a residue at each place, on a logarithmic scale. Where fewer than about 30 do, expect a lower pLDDT.${missing}`));
    const specify = (width) => ({
      data: { values: rows },
      width,
      height: 260,
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "line", strokeWidth: 1.4 },
      encoding: {
        x: { field: "number", type: "quantitative", title: "residue", scale: { nice: false } },
        y: { field: "value", type: "quantitative", title: "sequences", scale: { type: "log", domainMin: 1 }, axis: { format: ",.0f", tickCount: 5 } },
        color: chainColour(about, shown, width),
      },
    });
    await Charts.draw(plot, specify, { label: "Depth of the alignment at every residue" });
  }

  return { showPae, showPlddt, showDepth };
})();
