"use strict";
// Plots by Vega-Lite and Vega, in the colours of the page.

const Charts = (() => {
  // Okabe and Ito's colours, which colour-blind people tell apart.
  const CATEGORIES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999"];
  const views = new Map(); // container -> view, so that a plot drawn anew frees the old one
  let isPrinted = false;
  const redraws = new Map(); // container -> function that draws it again, in other colours or widths

  function colourOf(number) {
    return CATEGORIES[number % CATEGORIES.length];
  }

  function css(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function config() {
    const ink = css("--ink");
    const soft = css("--soft");
    const line = css("--line");
    return {
      background: "transparent",
      font: "system-ui, -apple-system, Segoe UI, Roboto, Liberation Sans, sans-serif",
      view: { stroke: line },
      axis: {
        labelColor: soft,
        titleColor: soft,
        gridColor: line,
        domainColor: line,
        tickColor: line,
        titleFontWeight: "normal",
        labelFontSize: 11,
        titleFontSize: 12,
        gridOpacity: 0.6,
      },
      legend: { labelColor: soft, titleColor: soft, titleFontWeight: "normal", labelLimit: 220 },
      title: { color: ink, fontSize: 13, fontWeight: 600, anchor: "start" },
      text: { color: ink },
      rule: { color: soft },
      range: { category: CATEGORIES },
    };
  }

  const tooltip = element("div", { id: "tooltip", hidden: true });
  document.body.append(tooltip);

  function showTooltip(handler, event, item, value) {
    tooltip.hidden = value === null || value === undefined || value === "";
    if (tooltip.hidden) return;
    tooltip.textContent =
      typeof value === "object"
        ? Object.entries(value).map(([name, text]) => `${name}: ${text}`).join("\n")
        : value;
    const left = Math.min(event.clientX + 14, window.innerWidth - tooltip.offsetWidth - 8);
    const top = Math.min(event.clientY + 14, window.innerHeight - tooltip.offsetHeight - 8);
    tooltip.style.left = `${Math.max(4, left)}px`;
    tooltip.style.top = `${Math.max(4, top)}px`;
  }

  /** Draws a specification that depends on the width of its container; `onclick` gets the datum;
   * `isPixels` is for what would be a large or, as of a layout by forces, an unfinished SVG. */
  async function draw(container, specify, { onclick, label, isPixels } = {}) {
    await Data.library("vega");
    await Data.library("vega-lite");
    const again = () => {
      const width = Math.max(160, container.clientWidth);
      let specification = specify(width);
      if (!String(specification.$schema ?? "").includes("/vega/")) {
        specification = { config: config(), ...specification };
        specification = vegaLite.compile(specification).spec;
      } else {
        specification = { config: config(), ...specification };
      }
      views.get(container)?.finalize();
      container.replaceChildren();
      container.setAttribute("role", "img");
      if (label) container.setAttribute("aria-label", label);
      const view = new vega.View(vega.parse(specification), { renderer: isPrinted && !isPixels ? "svg" : "canvas", hover: true });
      view.tooltip(showTooltip).initialize(container);
      if (onclick) {
        view.addEventListener("click", (event, item) => item?.datum && onclick(datumOf(item)));
      }
      views.set(container, view);
      // The browser does not wait for plots while it prepares to print.
      return isPrinted ? view.run() : view.runAsync();
    };
    redraws.set(container, again);
    return again();
  }

  function datumOf(item) {
    return item.datum.datum ?? item.datum;
  }

  /** Draws all plots that are in sight again; those of parts that are gone are forgotten. */
  function redrawAll() {
    for (const [container, again] of redraws) {
      if (!container.isConnected) {
        views.get(container)?.finalize();
        views.delete(container);
        redraws.delete(container);
      } else if (container.clientWidth) again();
    }
  }

  /** Draws all plots in sight for paper, in the width and the colours that the page has now. */
  function print(printed) {
    isPrinted = printed;
    redrawAll();
  }

  let lastWidth = window.innerWidth;
  window.addEventListener(
    "resize",
    debounced(() => {
      if (window.innerWidth !== lastWidth) redrawAll();
      lastWidth = window.innerWidth;
    }),
  );
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);

  /** Range of a score's axis: 0 to 1 of a share, else from 0. */
  function domain(score) {
    return score.isShare ? [0, 1] : undefined;
  }

  /** Colour of a value by its band, as an encoding; one colour without bands. */
  function bandColour(score, field, legend) {
    if (!score.bands.length) return { value: CATEGORIES[0] };
    const names = score.bands.map((band) => band.name);
    const colours = score.bands.map((band) => band.colour);
    return { field, type: "nominal", scale: { domain: names, range: colours }, legend, sort: names };
  }

  /** Bars of how many values fall where, coloured by band. */
  function histogram(score, values, { height = 220, steps = 40, title } = {}) {
    const known = values.filter((value) => !Number.isNaN(value));
    // Not Math.max(...known), which takes 65,536 values at most.
    const top = known.reduce((a, b) => Math.max(a, b), 0);
    const low = known.reduce((a, b) => Math.min(a, b), 0);
    const extent = score.isShare ? [0, 1] : [low, top > low ? top : low + 1];
    const width = (extent[1] - extent[0]) / steps;
    const counts = new Array(steps).fill(0);
    for (const value of known) {
      counts[Math.min(steps - 1, Math.floor((value - extent[0]) / width + 1e-9))]++;
    }
    const rows = counts.map((count, i) => {
      const from = extent[0] + i * width;
      const middle = Scores.band(score, from + width / 2);
      return { from, to: from + width, count, band: middle ? middle.name : "" };
    });
    return (plotWidth) => ({
      data: { values: rows },
      title,
      width: plotWidth,
      height,
      autosize: { type: "fit", contains: "padding" },
      mark: { type: "bar", binSpacing: 1 },
      encoding: {
        x: {
          field: "from",
          type: "quantitative",
          bin: "binned",
          title: title ? null : Scores.axisTitle(score),
          scale: { domain: extent, nice: false },
          axis: { tickCount: title ? 5 : 10 },
        },
        x2: { field: "to" },
        y: { field: "count", type: "quantitative", title: null, scale: { nice: 4 }, axis: { tickMinStep: 1, tickCount: 4 } },
        color: bandColour(score, "band", title ? null : { title: null, orient: "top" }),
        tooltip: [
          { field: "from", title: "from", format: ".3~f" },
          { field: "to", title: "to", format: ".3~f" },
          { field: "count", title: "number" },
          { field: "band", title: "band" },
        ],
      },
    });
  }

  return { draw, histogram, colourOf, css, domain, bandColour, redrawAll, print, CATEGORIES };
})();
