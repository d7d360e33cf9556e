"use strict";
// Two runs, pair by pair.

const Comparison = (() => {
  async function show() {
    const pairs = await Data.block("pairs");
    const select = byId("comparison-score");
    const options = Scores.described.interfaces.map((score) => element("option", { value: score.name }, score.label));
    select.append(...options);
    select.addEventListener("change", () => draw(pairs));
    byId("comparison-search").addEventListener("input", debounced(() => applySearch()));
    byId("comparison-export").addEventListener("click", () => exportRows());
    await draw(pairs);
  }

  let table = null;
  let current = null;

  async function draw(pairs) {
    const score = Scores.find("interfaces", byId("comparison-score").value);
    current = score;
    byId("comparison-sentence").textContent = score.sentence;
    const rows = [];
    for (let i = 0; i < pairs.length; i++) {
      const [first, second] = [pairs[`${score.name}_first`][i], pairs[`${score.name}_second`][i]];
      rows.push({
        id: i,
        name: pairs.name[i],
        title: pairs.title[i],
        pair: `${pairs.molecule_a[i]} – ${pairs.molecule_b[i]}`,
        first,
        second,
        change: second - first,
        size: Math.abs(second - first),
        bands: [first, second].map((value) => Scores.band(score, value)?.name ?? "").join(" → "),
        text: `${pairs.name[i]} ${pairs.title[i]} ${pairs.molecule_a[i]} ${pairs.molecule_b[i]}`.toLowerCase(),
      });
    }
    await scatter(rows, score);
    await fillTable(rows, score);
  }

  async function scatter(rows, score) {
    const known = rows.filter((row) => !Number.isNaN(row.size));
    const top = known.reduce((most, row) => Math.max(most, row.first, row.second), 0) || 1;
    const domain = score.isShare ? [0, 1] : [0, top];
    const specify = (width) => ({
      width: Math.min(width, 560),
      height: Math.min(width, 420),
      autosize: { type: "fit", contains: "padding" },
      layer: [
        {
          data: { values: known },
          mark: { type: "circle", size: 30, opacity: 0.6 },
          encoding: {
            x: { field: "first", type: "quantitative", title: `${Scores.axisTitle(score)}, first run`, scale: { domain } },
            y: { field: "second", type: "quantitative", title: "second run", scale: { domain } },
            color: { field: "size", type: "quantitative", title: "difference", scale: { scheme: "viridis", reverse: true } },
            tooltip: [{ field: "name" }, { field: "pair" }, { field: "first", format: ".3~f" }, { field: "second", format: ".3~f" }],
          },
        },
        {
          data: { values: domain.map((at) => ({ at })) },
          mark: { type: "line", strokeDash: [5, 4], color: Charts.css("--soft") },
          encoding: { x: { field: "at", type: "quantitative" }, y: { field: "at", type: "quantitative" } },
        },
      ],
    });
    await Charts.draw(byId("plot-comparison"), specify, { label: `${score.label} of both runs` });
    const changes = known.map((row) => Math.abs(row.change));
    const score2 = { ...score, bands: [], isLowerBetter: true, label: `difference of ${score.label}` };
    await Charts.draw(byId("plot-differences"), Charts.histogram(score2, changes, { height: 300 }), { label: "Distribution of differences" });
  }

  async function fillTable(rows, score) {
    table?.destroy();
    table = await Tables.create(byId("comparison-table"), {
      rows,
      columns: [
        Tables.textColumn("Complex", "name", { minWidth: 90 }),
        Tables.textColumn("Title", "title", { widthGrow: 2 }),
        Tables.textColumn("Pair", "pair", { widthGrow: 2, minWidth: 160 }),
        Tables.scoreColumn(score, "first", "First run"),
        Tables.scoreColumn(score, "second", "Second run"),
        Tables.numberColumn("Change", "change", (value) => (Number.isNaN(value) ? "–" : (value > 0 ? "+" : "") + value.toFixed(3)), 110),
        Tables.numberColumn("Size", "size", (value) => (Number.isNaN(value) ? "–" : value.toFixed(3)), 90),
        Tables.textColumn("Bands", "bands", { minWidth: 130 }),
      ],
      sort: [{ column: "size", dir: "desc" }],
    });
    applySearch();
  }

  function applySearch() {
    const words = byId("comparison-search").value.toLowerCase().split(/\s+/).filter(Boolean);
    table.setFilter((row) => words.every((word) => row.text.includes(word)));
  }

  function exportRows() {
    const fields = ["name", "title", "pair", "first", "second", "change", "bands"];
    const rows = table.getData("active").map((row) => fields.map((field) => row[field]));
    download(`comparison-${current.name}.csv`, toCsv(fields, rows), "text/csv");
  }

  return { show };
})();
