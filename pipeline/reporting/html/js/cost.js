"use strict";
// When which GPU did what, how busy they were, and how good the forecast was.

const Cost = (() => {
  // Outcomes that may be seen, done first.
  const OUTCOMES = ["done", "oom", "worker_died", "timeout", "error", "invalid", "stopped"];
  const COLOURS = ["#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#f0e442", "#999999", "#56b4e9"];
  let isShown = false;

  async function show() {
    if (isShown) return;
    isShown = true;
    const attempts = await Data.block("attempts");
    const run = await Run.load();
    const container = byId("cost-plots");
    if (attempts.length) {
      await gantt(container, attempts);
      await use(container);
      await forecast(container, attempts);
    }
    await table(attempts, run);
  }

  function figure(container, title, caption) {
    const plot = element("div");
    container.append(element("h2", {}, title), element("figure", {}, plot, element("figcaption", {}, caption)));
    return plot;
  }

  function colour(legend = { title: null, orient: "top", columns: window.innerWidth < 700 ? 3 : 6 }) {
    return { field: "outcome", type: "nominal", scale: { domain: OUTCOMES, range: COLOURS }, legend };
  }

  /** One bar for every attempt on every GPU. */
  async function gantt(container, attempts) {
    const rows = [];
    const used = new Set();
    for (let i = 0; i < attempts.length; i++) {
      if (Number.isNaN(attempts.start[i]) || Number.isNaN(attempts.seconds[i])) continue;
      for (const gpu of gpuNames(attempts.gpus[i])) {
        used.add(gpu);
        rows.push({ gpu, from: attempts.start[i] / 3600, to: (attempts.start[i] + attempts.seconds[i] * Math.max(1, attempts.batch[i])) / 3600, outcome: attempts.outcome[i], name: attempts.name[i], tokens: attempts.num_tokens[i], time: formatDuration(attempts.seconds[i]), fallbacks: attempts.fallbacks[i] });
      }
    }
    const gpus = [...used].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const unit = timeUnit(rows.reduce((last, row) => Math.max(last, row.to), 0));
    for (const row of rows) {
      row.from *= unit.perHour;
      row.to *= unit.perHour;
    }
    const left = Data.facts.cost.num_left_out;
    const caption = left ? `The longest attempts; ${formatCount(left)} shorter ones are left out.` : "Every attempt on every GPU (rank of a CPU).";
    const plot = figure(container, "GPUs over time", caption);
    const specify = (width) => ({
      data: { values: rows },
      width,
      height: Math.min(600, 90 + 22 * gpus.length),
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "bar", height: { band: 0.8 }, stroke: Charts.css("--raised"), strokeWidth: rows.length > 1000 ? 0 : 0.5 },
      encoding: {
        x: { field: "from", type: "quantitative", title: `${unit.name} since the first attempt` },
        x2: { field: "to" },
        y: { field: "gpu", type: "nominal", title: null, sort: gpus, axis: { labelLimit: 130 } },
        color: colour(),
        tooltip: [{ field: "name" }, { field: "outcome" }, { field: "tokens", format: "," }, { field: "time" }, { field: "fallbacks" }],
      },
    });
    await Charts.draw(plot, specify, { label: "Attempts on every GPU over time" });
  }

  /** As cost.py: node:0,1 are two GPUs of a node. */
  function gpuNames(text) {
    let node = "";
    return text.split(",").filter(Boolean).map((part) => {
      const colon = part.lastIndexOf(":");
      if (colon >= 0) node = part.slice(0, colon);
      return `${node}:${part.slice(colon + 1)}`;
    });
  }

  function timeUnit(hours) {
    if (hours > 2) return { name: "hours", perHour: 1 };
    return hours > 0.05 ? { name: "minutes", perHour: 60 } : { name: "seconds", perHour: 3600 };
  }

  async function use(container) {
    const points = Data.facts.cost.use;
    if (!points.length) return;
    const unit = timeUnit(points.at(-1)[0] / 3600);
    const rows = points.map(([seconds, busy]) => ({ time: (seconds / 3600) * unit.perHour, busy }));
    const plot = figure(container, "Use", "GPUs (ranks) that worked on a complex at a time.");
    const specify = (width) => ({
      data: { values: rows },
      width,
      height: 160,
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "area", interpolate: "step-after", color: COLOURS[0], opacity: 0.7 },
      encoding: {
        x: { field: "time", type: "quantitative", title: `${unit.name} since the first attempt` },
        y: { field: "busy", type: "quantitative", title: "at work" },
      },
    });
    await Charts.draw(plot, specify, { label: "GPUs at work over time" });
  }

  async function forecast(container, attempts) {
    const rows = [];
    let [low, high] = [Infinity, 0];
    for (let i = 0; i < attempts.length; i++) {
      const [seconds, predicted] = [attempts.seconds[i], attempts.predicted_seconds[i]];
      if (!(seconds > 0) || !(predicted > 0)) continue;
      low = Math.min(low, seconds, predicted);
      high = Math.max(high, seconds, predicted);
      rows.push({ seconds, predicted, outcome: attempts.outcome[i], name: attempts.name[i], tokens: attempts.num_tokens[i] });
    }
    if (!rows.length) return;
    const plot = figure(container, "Forecast against truth", "Below the line an attempt took less time than the cost model had predicted.");
    const scale = { type: "log", domain: [low * 0.8, high * 1.25], nice: false };
    const axis = { tickCount: 6, format: "~s" };
    const specify = (width) => ({
      width: Math.min(width, 640),
      height: 320,
      autosize: { type: "fit", contains: "padding" },
      layer: [
        {
          data: { values: rows },
          mark: { type: "circle", size: 26, opacity: 0.6 },
          encoding: {
            x: { field: "predicted", type: "quantitative", title: "predicted seconds", scale, axis },
            y: { field: "seconds", type: "quantitative", title: "seconds", scale, axis },
            color: colour(),
            tooltip: [{ field: "name" }, { field: "tokens", format: "," }, { field: "predicted", format: ".1f" }, { field: "seconds", format: ".1f" }, { field: "outcome" }],
          },
        },
        {
          data: { values: [{ at: low * 0.8 }, { at: high * 1.25 }] },
          mark: { type: "line", strokeDash: [5, 4], color: Charts.css("--soft") },
          encoding: { x: { field: "at", type: "quantitative" }, y: { field: "at", type: "quantitative" } },
        },
      ],
    });
    await Charts.draw(plot, specify, { label: "Predicted against measured seconds" });
  }

  async function table(attempts, run) {
    const rows = Array.from({ length: attempts.length }, (_, i) => ({
      id: i,
      complex: attempts.complex[i],
      link: attempts.complex[i] < 0 ? null : run.link(attempts.complex[i]),
      name: attempts.name[i],
      attempt: attempts.attempt[i],
      outcome: attempts.outcome[i],
      reason: attempts.reason[i],
      fallbacks: attempts.fallbacks[i],
      tokens: attempts.num_tokens[i],
      size: attempts.group_size[i],
      seconds: attempts.seconds[i],
      predicted: attempts.predicted_seconds[i],
      memory: attempts.peak_bytes[i],
    }));
    const trouble = (row) => 2 * (row.outcome !== "done") + (row.fallbacks !== "");
    rows.sort((a, b) => trouble(b) - trouble(a) || b.seconds - a.seconds);
    await Tables.create(byId("attempts-table"), {
      rows,
      height: "min(60vh, 420px)",
      placeholder: "No attempts yet.",
      columns: [
        Tables.complexColumn("Complex", "name", { minWidth: 90, widthGrow: 2 }),
        Tables.numberColumn("Attempt", "attempt", formatCount, 94),
        Tables.textColumn("Outcome", "outcome", { minWidth: 100 }),
        Tables.textColumn("Reason", "reason", { widthGrow: 3 }),
        Tables.textColumn("Made smaller by", "fallbacks", { widthGrow: 2 }),
        Tables.numberColumn("Tokens", "tokens"),
        Tables.numberColumn("GPUs", "size", formatCount, 82),
        Tables.numberColumn("Time", "seconds", formatDuration),
        Tables.numberColumn("Predicted", "predicted", formatDuration, 108),
        Tables.numberColumn("Memory", "memory", (bytes) => (Number.isNaN(bytes) ? "–" : `${(bytes / 1e9).toFixed(1)} GB`), 100),
      ],
      onopen: (row) => row.link && (location.hash = row.link),
    });
  }

  return { show };
})();
