"use strict";
// Packed columns of the page (embedding/columns.py), unpacked when they are first asked for.

const Data = (() => {
  const MISSING_16 = 65535;
  const MISSING_32 = -(2 ** 31);
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const unpacked = new Map();

  async function bytesOf(id) {
    const text = document.getElementById(id).textContent;
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  function has(name) {
    return document.getElementById(`block-${name}`) !== null;
  }

  /** The columns of a block by name, as arrays, with `facts` and `length`, that of the first one. */
  function block(name) {
    if (!unpacked.has(name)) unpacked.set(name, bytesOf(`block-${name}`).then(readColumns));
    return unpacked.get(name);
  }

  function readColumns(buffer) {
    const size = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
    const columns = { facts: header.facts, length: header.columns[0].length };
    for (const column of header.columns) {
      columns[column.name] = READERS[column.kind](buffer, 4 + size + column.offset, column);
    }
    return columns;
  }

  const READERS = {
    textu2: (buffer, at, c) => textsOf(new Uint16Array(buffer, at, c.length), c.values),
    textu4: (buffer, at, c) => textsOf(new Uint32Array(buffer, at, c.length), c.values),
    decimal(buffer, at, c) {
      // Halves of a step away from what is meant would be seen as 0.30000001.
      const perUnit = Math.round(1 / c.step);
      const values = new Float64Array(c.length);
      new Uint16Array(buffer, at, c.length).forEach((code, i) => {
        values[i] = code === MISSING_16 ? NaN : c.low + code / perUnit;
      });
      return values;
    },
    floatf4: (buffer, at, c) => new Float32Array(buffer, at, c.length),
    floatf8: (buffer, at, c) => new Float64Array(buffer, at, c.length),
    integer(buffer, at, c) {
      const codes = new Int32Array(buffer, at, c.length);
      return Float64Array.from(codes, (code) => (code === MISSING_32 ? NaN : code));
    },
    small(buffer, at, c) {
      const codes = new Uint8Array(buffer, at, c.length);
      return Float32Array.from(codes, (code) => (code === 255 ? NaN : code * c.step));
    },
    differencei2: (buffer, at, c) => sums(new Int16Array(buffer, at, c.length), c.step),
    differencei4: (buffer, at, c) => sums(new Int32Array(buffer, at, c.length), c.step),
  };

  function sums(changes, step) {
    const values = new Float64Array(changes.length);
    let sum = 0;
    changes.forEach((change, i) => {
      sum += change;
      values[i] = sum * step;
    });
    return values;
  }

  function textsOf(codes, values) {
    return Array.from(codes, (code) => values[code]);
  }

  /** Runs a library of the page once; later calls wait for the same run. */
  const loaded = new Map();
  function library(name) {
    if (!loaded.has(name)) {
      const ready = bytesOf(`library-${name}`).then((buffer) => {
        const script = document.createElement("script");
        script.textContent = new TextDecoder().decode(buffer);
        document.head.append(script);
      });
      loaded.set(name, ready);
    }
    return loaded.get(name);
  }

  /** [first, last) of every number 0..count-1 in a sorted array. */
  function ranges(numbers, count) {
    const found = Array.from({ length: count }, () => [0, 0]);
    for (let i = 0; i < numbers.length; ) {
      let end = i;
      while (end < numbers.length && numbers[end] === numbers[i]) end++;
      if (numbers[i] >= 0) found[numbers[i]] = [i, end];
      i = end;
    }
    return found;
  }

  return { facts, has, block, library, ranges };
})();
