"use strict";
// Large tables by Tabulator: only the rows in sight are in the page.

const Tables = (() => {
  const HEIGHT = "min(70vh, 640px)";

  /** A column of a score: coloured dot of its band, number, sorted with missing ones last. */
  function scoreColumn(score, field, title, width = 118) {
    return {
      title: title ?? score.label,
      field,
      width,
      hozAlign: "right",
      headerHozAlign: "right",
      sorter: missingLast,
      headerSortStartingDir: score.isLowerBetter ? "asc" : "desc",
      formatter: (cell) => {
        const value = cell.getValue();
        const band = Scores.band(score, value);
        const parts = [Scores.format(score, value)];
        if (band) parts.unshift(dot(band.colour));
        return element("span", { title: band ? band.name : "" }, parts);
      },
    };
  }

  function numberColumn(title, field, format = formatCount, width = 96) {
    return {
      title,
      field,
      width,
      hozAlign: "right",
      headerHozAlign: "right",
      sorter: missingLast,
      headerSortStartingDir: "desc",
      formatter: (cell) => element("span", {}, format(cell.getValue())),
    };
  }

  function textColumn(title, field, options = {}) {
    return {
      title,
      field,
      minWidth: 110,
      formatter: (cell) => element("span", { title: cell.getValue() }, cell.getValue()),
      ...options,
    };
  }

  /** A link to the page of the row's complex. */
  function complexColumn(title, field, options = {}) {
    return textColumn(title, field, {
      formatter: (cell) => {
        const row = cell.getData();
        return element("a", { href: row.link, title: cell.getValue() }, cell.getValue());
      },
      ...options,
    });
  }

  function missingLast(a, b, rowA, rowB, column, direction) {
    const missing = (value) => value === null || Number.isNaN(value);
    if (missing(a) || missing(b)) {
      const order = missing(a) - missing(b);
      return direction === "asc" ? order : -order;
    }
    return a - b;
  }

  async function create(container, { columns, rows, sort, height = HEIGHT, placeholder, onopen }) {
    await Data.library("tabulator-tables");
    const table = new Tabulator(container, {
      data: rows,
      columns,
      height,
      layout: "fitColumns",
      initialSort: sort,
      placeholder: placeholder ?? "Nothing matches these filters.",
      columnDefaults: { headerTooltip: false, resizable: "header", headerWordWrap: true },
      keybindings: {},
      index: "id",
    });
    if (onopen) {
      table.on("rowClick", (event, row) => {
        if (!event.target.closest("a")) onopen(row.getData());
      });
    }
    await new Promise((resolve) => table.on("tableBuilt", resolve));
    makeHeadersOperable(container);
    return table;
  }

  /** Sorting by the keyboard: headers take the focus, Enter and space click them. */
  function makeHeadersOperable(container) {
    for (const header of container.querySelectorAll(".tabulator-col.tabulator-sortable")) {
      header.tabIndex = 0;
      header.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        header.click();
      });
    }
  }

  return { create, scoreColumn, numberColumn, textColumn, complexColumn };
})();
