"use strict";
// The page of one complex.

const ComplexPage = (() => {
  let current = null; // what is shown, so that a slower page of before does not draw over it

  /** `value` is the key of a complex, and after a slash the numbers of two chains. */
  async function show(value = "") {
    const [key, pair] = value.split("/");
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
    const samples = await Samples.load(run, number);
    const about = {
      run,
      number,
      first,
      count: last - first,
      names: run.chains.chain.slice(first, last),
      labels: Array.from({ length: last - first }, (_, i) => labelOf(run.chains, first + i)),
      samples,
      sample: samples.list.length > 1 ? Samples.MEAN : samples.list[0].sample,
      pairBlock: Data.has(`samples-${number}`) ? await Data.block(`samples-${number}`) : null,
      /** The sample of what a mean cannot be of: the structure, its PAE and pLDDT. */
      get shownSample() {
        return this.sample === Samples.MEAN ? samples.list[0].sample : this.sample;
      },
    };
    current = about;
    await build(container, about, pairOf(pair, about.count));
  }

  /** Two numbers of chains in a text such as 0-3; null if they are none. */
  function pairOf(text, count) {
    const ends = (text ?? "").split("-").map(Number);
    const isPair = ends.length === 2 && ends.every((end) => Number.isInteger(end) && end >= 0 && end < count);
    return isPair && ends[0] !== ends[1] ? ends : null;
  }

  async function build(container, about, pair) {
    const parts = {
      structure: element("figure"),
      pae: element("figure"),
      plddt: element("figure"),
      depth: element("figure"),
      pair: element("div", { hidden: true }),
      interfaces: element("div"),
    };
    let view = null;
    let drawnSample = null;
    let chosen = pair;
    const showPair = async (scrolls) => {
      parts.pair.hidden = !chosen;
      history.replaceState(null, "", `${about.run.link(about.number)}${chosen ? `/${chosen.join("-")}` : ""}`);
      if (!chosen) {
        parts.pair.replaceChildren();
        view?.highlight(null);
        return;
      }
      const ends = chosen;
      const detail = await Pairs.detail(about, ends, () => choosePair(null));
      if (chosen !== ends) return;
      parts.pair.replaceChildren(detail);
      const [a, b] = [Math.min(...ends), Math.max(...ends)];
      const residues = Pairs.residuesOf(about, a, b);
      view?.highlight(residues && [[a, Pairs.runsOf(residues[0])], [b, Pairs.runsOf(residues[1])]]);
      if (scrolls) parts.pair.scrollIntoView({ block: "start" });
    };
    const choosePair = (ends) => {
      chosen = ends;
      showPair(ends !== null).catch(Main.report);
    };
    const pairs = about.count > 1 ? Pairs.figures(about, choosePair) : null;
    const draw = async () => {
      const name = `structure-${about.number}-${about.shownSample}`;
      const block = Data.has(name) ? await Data.block(name) : null;
      const experiment = Data.has(`experiment-${about.number}`) ? await Data.block(`experiment-${about.number}`) : null;
      if (current !== about) return;
      // The mean of all is shown with the structure of the best sample.
      const isDrawn = drawnSample === about.shownSample;
      drawnSample = about.shownSample;
      if (!isDrawn) view = await showStructure(parts.structure, about, block, experiment);
      await pairs?.draw();
      if (!isDrawn) {
        await Curves.showPae(parts.pae, about, block);
        await Curves.showPlddt(parts.plddt, about, block);
      }
      const found = about.count > 1 ? Pairs.interfaces(about, choosePair) : null;
      parts.interfaces.replaceChildren(...(found ? [element("h2", {}, `Interfaces of sample ${about.shownSample}`), element("p", { className: "soft" }, "Residues with an atom nearer than 5 Å to the other chain, numbered from 1 along each chain. A click on a pair shows all about it."), found] : []));
      await showPair(false);
    };
    const choose = (sample) => {
      about.sample = sample;
      return draw().catch(Main.report);
    };
    container.append(
      Samples.chooser(about, choose),
      element("div", { className: "two" }, parts.structure, ...(pairs?.parts ?? []), parts.pae),
      parts.pair,
      parts.interfaces,
      element("h2", {}, "Along the chains"),
      element("div", { className: "two" }, parts.plddt, parts.depth),
      element("h2", {}, "Chains and their alignments"),
      chainsTable(about),
      Samples.allScores(about),
    );
    await draw();
    await Curves.showDepth(parts.depth, about);
    if (pair) parts.pair.scrollIntoView({ block: "start" });
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
      complexes.gpu_seconds[number] > 0 ? `${formatDuration(complexes.gpu_seconds[number])} of ${Data.facts.device} time` : "",
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

  async function showStructure(figure, about, block, experiment) {
    const path = about.samples.list.find(({ sample }) => sample === about.shownSample).structure;
    if (!block) {
      const text = path
        ? `The structure of sample ${about.shownSample} is not in this page, which holds the best complexes as far as they fit. The file: `
        : `No structure of sample ${about.shownSample} was kept.`;
      figure.replaceChildren(element("p", {}, text, path ? element("code", { className: "path" }, path) : ""));
      return null;
    }
    const place = element("div");
    const which = about.samples.list[0].sample === about.shownSample ? "the best one" : "not the best one";
    const placed = experiment?.facts.samples[about.shownSample];
    const beside = placed ? "; in grey the experimental structure, superposed on all residues that both have" : "";
    figure.replaceChildren(place, element("figcaption", { className: "path" }, `Sample ${about.shownSample}, ${which}, as a ribbon${beside}; all atoms are in ${path}`));
    return Structure.show(place, block, about.names, about.number, placed && { columns: experiment, ...placed });
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

  return { show };
})();
