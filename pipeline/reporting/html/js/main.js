"use strict";
// Which part of the page is seen: the address after # names it.

const Main = (() => {
  const PARTS = {
    run: { overview: Overview.show, complexes: Complexes.show, interfaces: Interfaces.show, complex: ComplexPage.show, cost: Cost.show, reading: null },
    comparison: { comparison: Comparison.show, reading: null },
  };
  const parts = PARTS[Data.facts.page];
  const first = Object.keys(parts)[0];
  const shown = new Set();
  let request = 0; // the latest one; earlier ones that are still at work are not shown

  async function route() {
    const [wanted, value] = location.hash.slice(1).split("=");
    const part = wanted in parts ? wanted : first;
    const mine = ++request;
    Structure.stop();
    for (const section of document.querySelectorAll("main > section")) {
      // Their names differ from the address, or the browser would scroll to them.
      section.hidden = section.id !== `part-${part}`;
    }
    for (const link of document.querySelectorAll("nav a")) {
      if (link.dataset.part === part) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    window.scrollTo(0, 0);
    delete document.body.dataset.ready;
    if (part === "complex") await parts.complex(value);
    else if (!shown.has(part)) {
      shown.add(part);
      await parts[part]?.();
    } else Charts.redrawAll();
    if (mine === request) document.body.dataset.ready = part;
  }

  function report(error) {
    const line = byId("problem");
    line.hidden = false;
    line.textContent = `This part of the page cannot be shown: ${error.message ?? error}`;
    console.error(error);
  }

  // It does not change the address, which names a part of the page.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("content").focus();
  });

  function print(printed) {
    document.documentElement.toggleAttribute("data-print", printed);
    Charts.print(printed);
    Structure.print(printed);
  }

  window.addEventListener("beforeprint", () => print(true));
  window.addEventListener("afterprint", () => print(false));

  const safely = () => route().catch(report);
  window.addEventListener("hashchange", safely);
  safely();
  return { report };
})();
