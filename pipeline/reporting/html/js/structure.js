"use strict";
// The 3-D view of a structure, by 3Dmol.js.

const Structure = (() => {
  const STEP = 10; // degrees of an arrow key
  let viewer = null; // one for the whole page: browsers allow few WebGL contexts
  let host = null;
  let colour = "plddt"; // kept from one sample to the next
  let shown = null; // number of the complex, whose samples are seen from the same side
  let withExperiment = true; // kept likewise
  const EXPERIMENT_COLOUR = "#b0b0b0";

  /**
   * Shows a sample of the complex `number` in `container`; `names` are those of its chains, and
   * `experiment`, if any, has the columns of the experimental structure, the places of the chains
   * that are shown, and their superposition.
   */
  async function show(container, columns, names, number, experiment) {
    await Data.library("3dmol");
    const view = viewer && shown === number ? viewer.getView() : null;
    shown = number;
    let spins = false;
    const stage = element("div", { className: "viewer", tabIndex: 0, role: "application" });
    stage.setAttribute("aria-label", "Structure; arrow keys turn it, plus and minus zoom");
    const buttons = element("div", { className: "bar" });
    const legend = element("ul", { className: "bands" });
    container.replaceChildren(buttons, stage, legend);
    attach(stage);
    viewer.clear();
    const model = viewer.addModel();
    model.addAtoms(atomsOf(columns, names));
    const reference = experiment ? viewer.addModel() : null;
    reference?.addAtoms(superposed(atomsOf(experiment.columns, experiment.columns.facts.chains, experiment.chains), experiment.superposition));
    let interfaceRuns = null;
    const paint = () => {
      style(model, (atom) => colourOf(colour, atom));
      if (reference) style(reference, () => EXPERIMENT_COLOUR);
      if (reference && !withExperiment) reference.hide();
      fillLegend(legend, colour, names, reference !== null && withExperiment);
      if (interfaceRuns) highlight(model, interfaceRuns);
      viewer.render();
    };
    const colourButtons = [["plddt", "pLDDT"], ["chain", "Chain"]].map(([value, text]) =>
      element("button", { type: "button", onclick: () => press(value) }, text),
    );
    const press = (value) => {
      colour = value;
      colourButtons.forEach((button, i) => button.setAttribute("aria-pressed", String(["plddt", "chain"][i] === value)));
      paint();
    };
    const spin = element("button", { type: "button", onclick: () => {
      spins = !spins;
      viewer.spin(spins ? "y" : false);
      spin.setAttribute("aria-pressed", String(spins));
    } }, "Turn");
    const reset = element("button", { type: "button", onclick: () => { viewer.zoomTo(); viewer.render(); } }, "Reset");
    buttons.append("Coloured by", ...colourButtons, spin, reset);
    if (reference) buttons.append(experimentButton(reference, paint));
    if (view) viewer.setView(view);
    else viewer.zoomTo();
    press(colour);
    stage.addEventListener("keydown", turnByKey);
    return {
      highlight: (runs) => {
        interfaceRuns = runs;
        paint();
      },
    };
  }

  /** Shows and hides the experimental structure. */
  function experimentButton(reference, paint) {
    const button = element("button", { type: "button" }, "Experiment");
    const press = (isShown) => {
      withExperiment = isShown;
      button.setAttribute("aria-pressed", String(isShown));
      if (isShown) reference.show();
      paint();
    };
    button.onclick = () => press(!withExperiment);
    button.setAttribute("aria-pressed", String(withExperiment));
    return button;
  }

  /** Atoms moved by a rotation, row by row, and a translation: x R + t. */
  function superposed(atoms, [xx, xy, xz, yx, yy, yz, zx, zy, zz, ...shift]) {
    for (const atom of atoms) {
      const { x, y, z } = atom;
      atom.x = x * xx + y * yx + z * zx + shift[0];
      atom.y = x * xy + y * yy + z * zy + shift[1];
      atom.z = x * xz + y * yz + z * zz + shift[2];
    }
    return atoms;
  }

  /** Moves the one viewer into an element. */
  function attach(stage) {
    if (!viewer) {
      host = element("div");
      host.style.cssText = "position:absolute;inset:0";
      stage.append(host);
      viewer = $3Dmol.createViewer(host, { backgroundAlpha: 0, antialias: true });
    } else {
      stage.append(host);
      viewer.spin(false);
      viewer.resize();
    }
    viewer.setBackgroundColor(Charts.css("--paper"));
  }

  function stop() {
    viewer?.spin(false);
  }

  function turnByKey(event) {
    const turns = { ArrowLeft: [-STEP, "y"], ArrowRight: [STEP, "y"], ArrowUp: [-STEP, "x"], ArrowDown: [STEP, "x"] };
    if (event.key in turns) viewer.rotate(...turns[event.key]);
    else if (event.key === "+") viewer.zoom(1.15);
    else if (event.key === "-") viewer.zoom(0.87);
    else return;
    event.preventDefault();
    viewer.render();
  }

  /** Atoms of all chains, or of those at some places. */
  function atomsOf(c, names, chains = null) {
    const atoms = [];
    for (let i = 0; i < c.atom_x.length; i++) {
      const residue = c.atom_residue[i];
      if (chains && !chains.includes(c.residue_chain[residue])) continue;
      atoms.push({
        serial: atoms.length + 1,
        index: atoms.length,
        atom: c.atom_name[i],
        elem: capitalize(c.atom_element[i]),
        x: c.atom_x[i],
        y: c.atom_y[i],
        z: c.atom_z[i],
        resn: c.residue_name[residue],
        resi: c.residue_number[residue],
        chain: names[c.residue_chain[residue]],
        hetflag: !c.residue_polymer[residue],
        ss: c.residue_fold[residue],
        b: c.residue_plddt[residue],
        bonds: [],
        bondOrder: [],
        properties: { residue, chainNumber: c.residue_chain[residue] },
      });
    }
    bondLigands(atoms);
    markEnds(atoms);
    return atoms;
  }

  /** Bonds of what is not a polymer, by distance; ribbons need none. */
  function bondLigands(atoms) {
    const ligands = atoms.filter((atom) => atom.hetflag);
    for (let i = 0; i < ligands.length; i++) {
      for (let j = i + 1; j < Math.min(ligands.length, i + 80); j++) {
        const [a, b] = [ligands[i], ligands[j]];
        const squared = (a.x - b.x) ** 2 + (a.y - b.y) ** 2 + (a.z - b.z) ** 2;
        if (squared > 3.6 || a.chain !== b.chain) continue;
        a.bonds.push(b.index);
        a.bondOrder.push(1);
        b.bonds.push(a.index);
        b.bondOrder.push(1);
      }
    }
  }

  /** The ends of helices and strands, where a ribbon has its arrow heads. */
  function markEnds(atoms) {
    const alphas = atoms.filter((atom) => atom.atom === "CA" && !atom.hetflag);
    alphas.forEach((atom, i) => {
      const next = alphas[i + 1];
      const before = alphas[i - 1];
      const differs = (other) => !other || other.chain !== atom.chain || other.ss !== atom.ss;
      if (atom.ss !== "c") {
        atom.ssbegin = differs(before);
        atom.ssend = differs(next);
      }
    });
  }

  function capitalize(text) {
    return text[0].toUpperCase() + text.slice(1).toLowerCase();
  }

  function colourOf(colour, atom) {
    return colour === "plddt" ? plddtColour(atom) : Charts.colourOf(atom.properties.chainNumber);
  }

  function style(model, colourOf) {
    model.setStyle({}, {});
    const ribbon = model.selectedAtoms({ atom: "O" }).length
      ? { arrows: true, thickness: 0.5 }
      : { style: "trace", thickness: 0.6 };
    model.setStyle({ hetflag: false }, { cartoon: { colorfunc: colourOf, ...ribbon } });
    model.setStyle({ hetflag: true }, { stick: { colorfunc: colourOf, radius: 0.25 }, sphere: { colorfunc: colourOf, scale: 0.3 } });
  }

  function plddtScore() {
    return Scores.described.chains.find((score) => score.name === "plddt") ?? Scores.described.chains[0];
  }

  function plddtColour(atom) {
    return Scores.band(plddtScore(), atom.b / 100)?.colour ?? "#999999";
  }

  function fillLegend(legend, colour, names, withExperiment) {
    const entries =
      colour === "plddt"
        ? plddtScore().bands.map((band) => [band.colour, `${band.name}${band.limit === null ? "" : `, from ${band.limit}`}`])
        : names.slice(0, 40).map((name, i) => [Charts.colourOf(i), name]);
    if (withExperiment) entries.push([EXPERIMENT_COLOUR, "experiment"]);
    legend.replaceChildren(...entries.map(([colour, text]) => element("li", {}, dot(colour), text)));
  }

  /** Shows residues as spheres: of each [chain, [[first, last], …]]. */
  function highlight(model, chains) {
    const isIn = (atom) =>
      chains.some(([chain, runs]) => chain === atom.properties.chainNumber && runs.some(([first, last]) => first <= atom.resi && atom.resi <= last));
    const chosen = model.selectedAtoms({}).filter((atom) => ["CA", "C1'", "P"].includes(atom.atom) && isIn(atom));
    const sphere = { radius: 1.1, colorfunc: (atom) => colourOf(colour, atom) };
    model.setStyle({ index: chosen.map((atom) => atom.index) }, { sphere }, true);
  }

  /** Puts a picture of the structure in its place for paper, and takes it away again. */
  function print(printed) {
    const stage = host?.parentElement;
    if (!stage?.clientWidth) return; // not in sight
    stage.querySelector("img")?.remove();
    viewer.setBackgroundColor(Charts.css("--paper"));
    viewer.render();
    if (printed) stage.append(element("img", { src: viewer.pngURI(), alt: "Structure" }));
  }

  return { show, stop, print };
})();
