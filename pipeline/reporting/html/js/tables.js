"use strict";
// Large tables by Tabulator: only the rows in sight are in the page.

const Tables = (() => {
  const HEIGHT = "min(70vh, 640px)";
  const MAX_PRINTED_ROWS = 200;
  const FEW_ROWS = 30;

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
        // The table is one stop of the tab key; arrow keys go from link to link.
        return element("a", { href: row.link, title: cell.getValue(), tabIndex: -1 }, cell.getValue());
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
    container.parentElement.querySelector(".printed")?.remove();
    const printed = element("p", { className: "printed" });
    container.before(printed);
    const table = new Tabulator(container, {
      data: rows,
      columns,
      // A short table is no taller than its rows, which then are all in the page.
      ...(rows.length <= FEW_ROWS ? { maxHeight: height } : { height }),
      layout: "fitColumns",
      initialSort: sort,
      placeholder: placeholder ?? "Nothing matches these filters.",
      columnDefaults: { headerTooltip: false, resizable: "header", headerWordWrap: true },
      index: "id",
      printAsHtml: true,
      printStyled: false,
      printRowRange: () => {
        printed.textContent = printedCount(table);
        return table.getRows("active").slice(0, MAX_PRINTED_ROWS);
      },
    });
    if (onopen) {
      table.on("rowClick", (event, row) => {
        if (!event.target.closest("a")) onopen(row.getData());
      });
    }
    await new Promise((resolve) => table.on("tableBuilt", resolve));
    makeHeadersOperable(container);
    container.addEventListener("keydown", moveByKey);
    return table;
  }

  /** How many rows are on paper, where it is not all of them. */
  function printedCount(table) {
    const count = table.getDataCount("active");
    return count > MAX_PRINTED_ROWS ? `The first ${MAX_PRINTED_ROWS} of ${formatCount(count)} rows:` : "";
  }

  /** Arrow keys go from row to row by their links, which Enter opens. */
  function moveByKey(event) {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const holder = event.target.closest(".tabulator-tableholder");
    if (!holder) return;
    const row = event.target.closest(".tabulator-row");
    const next = row
      ? event.key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling
      : firstInSight(holder);
    const link = next?.querySelector("a");
    if (!link) return;
    event.preventDefault();
    link.focus();
  }

  function firstInSight(holder) {
    const top = holder.getBoundingClientRect().top;
    return [...holder.querySelectorAll(".tabulator-row")].find((row) => row.getBoundingClientRect().top >= top - 1);
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
