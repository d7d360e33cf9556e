"use strict";
// Tables of all interfaces and of all complexes: sorted, searched, filtered, exported.

const Interfaces = (() => {
  const GROUPINGS = [
    ["molecules", "copies of a molecule merged"],
    ["complexes", "copies and complexes merged"],
    ["chains", "every pair of chains"],
  ];
  const STATISTICS = [
    ["mean", "mean"],
    ["max", "highest"],
    ["min", "lowest"],
  ];
  const NUM_OTHER_SCORES = 3; // with bands, beside the one that is chosen
  const state = { grouping: "molecules", statistic: "mean", score: null };
  let table = null;
  let filters = null;

  /** Rows of pairs, the best by the score first; of merged ones the best stands for all. */
  function groupRows(run, grouping, score, statistic) {
    const { complexes, chains, pairs } = run;
    const values = pairs[Run.pairField(pairs, score, statistic)];
    const order = Array.from({ length: pairs.length }, (_, pair) => pair);
    order.sort((a, b) => Scores.compare(score, values[a], values[b]) || a - b);
    const rows = [];
    const groups = new Map();
    for (const pair of order) {
      const complex = pairs.complex[pair];
      const [a, b] = [pairs.row_a[pair], pairs.row_b[pair]];
      if (grouping !== "chains") {
        const ends = [Run.moleculeKey(chains, a), Run.moleculeKey(chains, b)].sort().join("|");
        const key = grouping === "complexes" ? ends : `${complex}|${ends}`;
        const known = groups.get(key);
        if (known) {
          known.copies++;
          known.complexes.add(complex);
          continue;
        }
        groups.set(key, { copies: 1, complexes: new Set([complex]) });
        rows.push({ group: groups.get(key) });
      } else rows.push({});
      Object.assign(rows.at(-1), {
        id: pair,
        pair,
        complex,
        link: run.pairLink(pair),
        name: complexes.name[complex],
        title: complexes.title[complex],
        organism: complexes.organism[complex],
        tokens: complexes.num_tokens[complex],
        a: Run.moleculeName(chains, a),
        b: Run.moleculeName(chains, b),
        pairName: [a, b].map((row) => chains.gene[row] || chains.accession[row] || Run.moleculeName(chains, row)).join(" – "),
        chainPair: `${chains.chain[a]}–${chains.chain[b]}`,
        kind: Run.moleculeKey(chains, a) === Run.moleculeKey(chains, b) ? "homo" : "hetero",
        types: [chains.molecule_type[a], chains.molecule_type[b]].sort().join("–"),
        value: values[pair],
        gate: Run.gateText(pairs.afdb_gate[pair]),
      });
    }
    for (const row of rows) {
      row.copies = row.group?.copies ?? 1;
      row.numComplexes = row.group?.complexes.size ?? 1;
      row.text = `${row.name} ${row.title} ${row.a} ${row.b}`.toLowerCase();
      delete row.group;
    }
    return rows;
  }

  async function show() {
    const run = await Run.load();
    if (!Scores.described.interfaces.length) {
      byId("interfaces-count").textContent = "None: no complex of two or more chains has a result.";
      return;
    }
    if (!filters) {
      state.score = Scores.described.interfaces[0];
      makeFilters(run);
      await rebuild(run);
    }
  }

  function makeFilters(run) {
    const scores = Scores.described.interfaces.map((score) => [score.name, score.label]);
    const form = byId("interfaces-filters");
    filters = Filters.make(form, {
      organisms: run.complexes.organism,
      onchange: () => applyFilters(),
      onexport: () => exportRows(run),
      types: typesOf(run),
      hasGate: true,
    });
    const again = (name) => (value) => {
      state[name] = name === "score" ? Scores.find("interfaces", value) : value;
      rebuild(run);
    };
    form.prepend(
      choice("One row for", GROUPINGS.map(([v, t]) => [v, t]), again("grouping"), state.grouping),
      choice("Score", scores, again("score"), state.score.name),
      choice("over samples, directions", STATISTICS, again("statistic"), state.statistic),
    );
  }

  function typesOf(run) {
    return new Set(run.chains.molecule_type).size > 1;
  }

  async function rebuild(run) {
    const rows = groupRows(run, state.grouping, state.score, state.statistic);
    const others = Scores.described.interfaces.filter((score) => score !== state.score);
    const shown = [...Overview.firstOfEachKind(others.filter((s) => s.bands.length), state.score).slice(0, NUM_OTHER_SCORES), ...others.filter((s) => s.name === "num_contacts")];
    for (const row of rows) {
      for (const score of shown) row[score.name] = run.pairs[Run.pairField(run.pairs, score, state.statistic)][row.pair];
    }
    const columns = [
      ...nameColumns(),
      Tables.scoreColumn(state.score, "value", Scores.shortLabel(state.score), 106),
      ...shown.map((score) => Tables.scoreColumn(score, score.name, Scores.shortLabel(score), 98)),
      Tables.textColumn(Run.GATE_LABEL, "gate", { width: 84, minWidth: 84, headerTooltip: Run.GATE_MEANING }),
      Tables.numberColumn("Tokens", "tokens", formatCount, 84),
    ];
    if (state.grouping !== "chains") columns.push(Tables.numberColumn("Copies", "copies", formatCount, 82));
    if (state.grouping === "complexes") columns.push(Tables.numberColumn("Complexes", "numComplexes", formatCount, 116));
    table?.destroy();
    filters.setScore(state.score);
    table = await Tables.create(byId("interfaces-table"), {
      columns,
      rows,
      sort: [{ column: "value", dir: state.score.isLowerBetter ? "asc" : "desc" }],
      placeholder: run.pairs.length ? undefined : "No complex of two or more chains has a result.",
      onopen: (row) => (location.hash = row.link),
    });
    table.on("dataFiltered", (active, found) => {
      byId("interfaces-count").textContent = `${formatCount(found.length)} of ${formatCount(rows.length)} pairs`;
    });
    applyFilters();
  }

  /** What a pair is called; on a phone in less width, so that the score is in sight. */
  function nameColumns() {
    if (window.innerWidth < 700) {
      return [
        Tables.complexColumn("Complex", "name", { width: 100, minWidth: 60 }),
        Tables.textColumn("Pair", "pairName", { width: 144 }),
      ];
    }
    return [
      Tables.complexColumn("Complex", "name", { widthGrow: 2, minWidth: 108 }),
      Tables.textColumn("Molecule A", "a", { widthGrow: 2, minWidth: 138 }),
      Tables.textColumn("Molecule B", "b", { widthGrow: 2, minWidth: 138 }),
      Tables.textColumn("Chains", "chainPair", { width: 80, minWidth: 80 }),
    ];
  }

  function applyFilters() {
    const accepts = filters.predicate(state.score);
    table.setFilter((row) => accepts(row));
  }

  function exportRows(run) {
    const { pairs, chains, complexes } = run;
    const fields = Object.keys(pairs).filter((name) => !["facts", "length", "complex", "row_a", "row_b"].includes(name));
    const header = ["key", "name", "title", "organism", "num_tokens", "chain_a", "chain_b", "accession_a", "accession_b", "molecule_a", "molecule_b", "copies", "complexes", ...fields];
    const lines = table.getData("active").map((row) => {
      const [a, b] = [pairs.row_a[row.pair], pairs.row_b[row.pair]];
      return [
        complexes.key[row.complex], row.name, row.title, row.organism, row.tokens,
        chains.chain[a], chains.chain[b], chains.accession[a], chains.accession[b], row.a, row.b,
        row.copies, row.numComplexes, ...fields.map((field) => pairs[field][row.pair]),
      ];
    });
    download("interfaces.csv", toCsv(header, lines), "text/csv");
  }

  return { show, groupRows };
})();

/** A form of search, score, band, size and organism; its predicate tells rows that match. */
const Filters = (() => {
  function make(form, { organisms, onchange, onexport, types, hasGate }) {
    const known = [...new Set(organisms)].filter(Boolean).sort();
    const later = debounced(onchange);
    const search = element("input", { type: "search", oninput: later, placeholder: "gene, accession, complex" });
    const least = element("input", { type: "number", step: "any", oninput: later });
    const most = element("input", { type: "number", min: 0, step: 1, oninput: later });
    const leastLabel = element("span", {}, "At least");
    const band = element("select", { onchange });
    const organism = element("select", { onchange }, element("option", { value: "" }, "all"), known.map((name) => element("option", { value: name }, name)));
    const kind = element("select", { onchange }, [["", "all"], ["homo", "of one molecule"], ["hetero", "of two molecules"], ["ligand", "with a ligand"], ["na", "with DNA or RNA"]].map(([value, text]) => element("option", { value }, text)));
    const gate = element("select", { onchange }, [["", "all"], ["passes", "passes"], ["fails", "fails"]].map(([value, text]) => element("option", { value }, text)));
    form.append(
      element("label", { className: "wide" }, "Search", search),
      element("label", {}, leastLabel, least),
      element("label", {}, "Band", band),
      element("label", {}, "Tokens at most", most),
      known.length > 1 ? element("label", {}, "Organism", organism) : "",
      hasGate ? element("label", { title: Run.GATE_MEANING }, Run.GATE_LABEL, gate) : "",
      types !== undefined ? element("label", {}, "Pairs", kind) : "",
      element("button", { type: "reset" }, "Clear"),
      element("button", { type: "button", onclick: onexport }, "Export CSV"),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(onchange));

    /** `name` stands for the score's in the label of its limit. */
    function setScore(score, name) {
      least.parentElement.hidden = !score;
      band.parentElement.hidden = !score?.bands.length;
      if (!score) return;
      leastLabel.textContent = `${name ?? Scores.shortLabel(score)} ${score.isLowerBetter ? "at most" : "at least"}`;
      least.step = score.isShare ? 0.05 : 1;
      const names = score.bands.map((one) => one.name);
      band.replaceChildren(...["", ...names].map((name) => element("option", { value: name }, name || "all")));
    }

    function predicate(score) {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const limit = least.value === "" ? null : Number(least.value);
      const size = most.value === "" ? null : Number(most.value);
      return (row) =>
        words.every((word) => row.text.includes(word)) &&
        (limit === null || (score.isLowerBetter ? row.value <= limit : row.value >= limit)) &&
        (size === null || row.tokens <= size) &&
        (!gate.value || row.gate === gate.value) &&
        (!organism.value || row.organism === organism.value) &&
        (!band.value || Scores.band(score, row.value)?.name === band.value) &&
        (!kind.value || row.kind === kind.value || (kind.value === "ligand" && row.types.includes("ligand")) || (kind.value === "na" && /[dr]na/.test(row.types)));
    }

    return { setScore, predicate };
  }

  return { make };
})();

/** The table of complexes. */
const Complexes = (() => {
  const COLUMNS = ["confidence_score", "iptm", "ptm", "complex_plddt"];
  let table = null;
  let filters = null;

  async function show() {
    if (table) return;
    const run = await Run.load();
    const { complexes } = run;
    const scores = Scores.described.complexes;
    const best = Scores.described.interfaces[0] ?? scores[0]; // of the filters
    const bestName = best && best !== scores[0] ? `Best ${best.label.split(" ")[0]}` : undefined;
    const shown = COLUMNS.map((name) => Scores.find("complexes", name)).filter(Boolean);
    const values = best === scores[0] ? complexes[best?.name] : complexes.best_pair;
    const rows = Array.from({ length: complexes.length }, (_, number) => ({
      id: number,
      complex: number,
      link: run.link(number),
      name: complexes.name[number],
      title: complexes.title[number],
      organism: complexes.organism[number],
      outcome: complexes.outcome[number],
      tokens: complexes.num_tokens[number],
      chains: complexes.num_chains[number],
      notes: complexes.notes[number] ? complexes.notes[number].split("\n").length : 0,
      seconds: complexes.gpu_seconds[number],
      value: values ? values[number] : NaN,
      text: textOf(run, number),
      ...Object.fromEntries(scores.map((score) => [score.name, complexes[score.name][number]])),
    }));
    filters = Filters.make(byId("complexes-filters"), {
      organisms: complexes.organism,
      onchange: () => table.setFilter(filters.predicate(best)),
      onexport: () => exportRows(scores),
    });
    filters.setScore(best, bestName);
    const bestColumn = bestName ? [Tables.scoreColumn(best, "value", bestName, 100)] : [];
    const isNarrow = window.innerWidth < 700; // a phone, with the score in sight
    table = await Tables.create(byId("complexes-table"), {
      columns: [
        Tables.complexColumn("Complex", "name", { widthGrow: 2, minWidth: 108 }),
        ...(isNarrow ? bestColumn : []),
        Tables.textColumn("Title", "title", { widthGrow: 3 }),
        Tables.textColumn("Outcome", "outcome", { width: 104, minWidth: 104 }),
        Tables.numberColumn("Chains", "chains", formatCount, 86),
        Tables.numberColumn("Tokens", "tokens", formatCount, 92),
        ...(isNarrow ? [] : bestColumn),
        ...shown.map((score) => Tables.scoreColumn(score, score.name, score.label, 112)),
        Tables.numberColumn("Notes", "notes", formatCount, 82),
        Tables.numberColumn(`${Data.facts.device} time`, "seconds", formatDuration, 104),
      ],
      rows,
      sort: best && best !== scores[0] ? [{ column: "value", dir: "desc" }] : [],
      onopen: (row) => (location.hash = row.link),
    });
    const count = (found) => {
      byId("complexes-count").textContent = `${formatCount(found)} of ${formatCount(rows.length)} complexes`;
    };
    table.on("dataFiltered", (active, found) => count(found.length));
    count(rows.length);
  }

  function textOf(run, number) {
    const [first, last] = run.chainRanges[number];
    const { name, title, reason, source } = run.complexes;
    const words = [name[number], title[number], reason[number], source[number]];
    for (let row = first; row < last; row++) words.push(Run.moleculeName(run.chains, row));
    return words.join(" ").toLowerCase();
  }

  function exportRows(scores) {
    const fields = ["name", "title", "organism", "outcome", "chains", "tokens", "value", ...scores.map((s) => s.name), "notes", "seconds"];
    const header = fields.map((field) => (field === "value" ? "best_pair" : field));
    download("complexes.csv", toCsv(header, table.getData("active").map((row) => fields.map((field) => row[field]))), "text/csv");
  }

  return { show };
})();
