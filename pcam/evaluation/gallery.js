// The error gallery's page side. It knows the model only through get, set, on, off and save_changes, so the same
// module runs on a live Jupyter kernel and on values stored in a page. Text from data (slide names!) is only ever set
// as textContent. Counts are exact: all scores are here, sorted by class, and each threshold is a binary search.

const OUTCOMES = {
  FN: ["False negatives", "tumour, called none"],
  FP: ["False positives", "no tumour, called tumour"],
  TP: ["True positives", "tumour, called tumour"],
  TN: ["True negatives", "no tumour, called none"],
  P: ["Called positive", "truth not known"],
  N: ["Called negative", "truth not known"],
};
const PAGE = 120; // tiles added at a time, so that 5,000 patches answer as fast as 100
const BINS = 60;

/** Make an element: make("p", { class: "note", onclick: f, text: "…" }, child, …). */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

function unpack({ kind, data }) {
  const bytes = bytesOf(data);
  return kind === "f4" ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer);
}

/** How many of the sorted scores are at least t. */
function countFrom(sorted, t) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < t) low = middle + 1; else high = middle;
  }
  return sorted.length - low;
}

const whole = (number) => number.toLocaleString("en");
const share = (part, of) => (of ? (part / of).toFixed(3) : "undefined");
const short = (t) => (t > 1 ? "above 1" : t.toFixed(3));
const plural = (n, one, many) => `${whole(n)} ${n === 1 ? one : many}`;
/** Touch the page only where something changed: an equal text set again would be laid out again. */
const write = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const mark = (node, name, value) => { if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value); };

/** Bars of the scores by class: with tumour above the line, without below. Heights are square roots, to show the few. */
function histogram(negative, positive, labelled) {
  const svg = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const bins = [negative, positive].map((scores) => {
    const counts = new Array(BINS).fill(0);
    for (const score of scores) counts[Math.min(BINS - 1, Math.floor(score * BINS))]++;
    return counts;
  });
  const tallest = Math.sqrt(Math.max(1, ...bins.flat()));
  const room = labelled ? 48 : 96;
  const chart = svg("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const clips = ["left", "right"].map(() => svg("rect", { y: 0, height: 100 }));
  const base = labelled ? 50 : 98;
  for (const [side, clip] of clips.entries()) {
    const layer = svg("g", { class: side ? "pg-right" : "pg-left" });
    for (const [truth, counts] of bins.entries()) {
      const path = counts.map((count, bin) => {
        const height = (Math.sqrt(count) / tallest) * room;
        const top = truth || !labelled ? base - height : base;
        return count ? `M${bin * 10 + 0.5} ${top}h9v${height}h-9z` : "";
      });
      layer.append(svg("path", { class: truth ? "pg-tumour" : labelled ? "pg-none" : "pg-all", d: path.join("") }));
    }
    const inner = svg("svg", { y: 0, height: 100 }); // a nested svg clips its content: no ids that could clash
    inner.append(layer);
    chart.append(inner);
    clips[side] = { inner, layer };
  }
  chart.append(svg("line", { x1: 0, x2: 600, y1: base, y2: base, class: "pg-axis" }));
  const cut = svg("line", { y1: 0, y2: 100, class: "pg-cut" });
  chart.append(cut);
  const move = (t) => {
    const x = 600 * Math.min(1, Math.max(0, t));
    clips[0].inner.setAttribute("width", x);
    clips[1].inner.setAttribute("x", x);
    clips[1].inner.setAttribute("width", 600 - x);
    clips[1].layer.setAttribute("transform", `translate(${-x} 0)`);
    cut.setAttribute("x1", x);
    cut.setAttribute("x2", x);
  };
  return { chart, move };
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const drawn = new WeakMap(); // canvas → what it is to show

/** A function that draws one patch into a canvas. A sheet is decoded, beside the page's own work, when first asked for. */
function painter({ sheets, side, each }) {
  const held = [];
  const sheet = (number) => (held[number] ??= createImageBitmap(new Blob([bytesOf(sheets[number].split(",")[1])], { type: "image/webp" }))
    .then((picture) => (held[number] = picture)));
  const copy = (picture, place, canvas) => {
    const wide = picture.width / side, x = (place % wide) * side, y = Math.floor(place / wide) * side;
    canvas.getContext("2d").drawImage(picture, x, y, side, side, 0, 0, side, side);
  };
  return (canvas, place) => {
    const picture = sheet(Math.floor(place / each)), asked = {};
    drawn.set(canvas, asked); // the last patch asked for is the one drawn, whichever sheet is decoded first
    if (picture instanceof ImageBitmap) copy(picture, place % each, canvas);
    else picture.then((decoded) => { if (drawn.get(canvas) === asked) copy(decoded, place % each, canvas); });
  };
}

/** Paint an attribution: orange speaks for tumour, blue against, and what says little stays clear. */
function paintMap(canvas, { data }, side) {
  const values = new Int8Array(bytesOf(data).buffer);
  const image = new ImageData(side, side);
  values.forEach((value, at) => image.data.set([...(value > 0 ? [230, 120, 0] : [0, 90, 200]), 1.75 * Math.abs(value)], 4 * at));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function render({ model, el }) {
  const content = model.get("content");
  const [negative, positive] = content.scores.map(unpack);
  const { labelled, patches } = content, { side } = content.pictures;
  const names = labelled ? ["FN", "FP", "TP", "TN"] : ["P", "N"];
  const featureNames = content.features.map((feature) => feature.name);
  const initial = () => ({
    outcomes: new Set(labelled ? ["FN", "FP"] : ["P", "N"]), slide: null, slice: "", suspect: false, from: 0, to: 1, limit: PAGE,
  });
  const view = { ...initial(), sort: labelled ? "loss" : "score", down: true };
  let threshold = model.get("threshold");
  let listed = [];

  const outcomeOf = ({ label, score }) => {
    const called = score >= threshold;
    if (label === null) return called ? "P" : "N";
    return label ? (called ? "TP" : "FN") : called ? "FP" : "TN";
  };
  const loss = ({ label, score }) => -Math.log(Math.max(Number.EPSILON, label ? score : 1 - score));
  const keys = {
    loss: ["loss", loss],
    confidence: ["confidence (distance from threshold)", (patch) => Math.abs(patch.score - threshold)],
    score: ["score", (patch) => patch.score],
    index: ["index", (patch) => patch.index],
  };
  if (!labelled) delete keys.loss;
  featureNames.forEach((name, place) => { keys[name] = [name, (patch) => patch.features[place]]; });

  const draw = painter(content.pictures);
  const tiles = new Map();
  const tileOf = (patch) => {
    if (!tiles.has(patch)) {
      const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
      draw(canvas, patch.place);
      const badge = make("span", { class: "pg-badge" });
      const text = make("span", { class: "pg-score", text: patch.score.toFixed(3) });
      const button = make("button", { type: "button", tabindex: "-1", onclick: () => { rove(button); select(patch.index); } },
        make("span", { class: "pg-frame" }, canvas), make("span", { class: "pg-caption" }, badge, text));
      tiles.set(patch, { item: make("li", {}, button), button, badge });
    }
    return tiles.get(patch);
  };

  // ---- the decision: slider, histogram, table of outcomes
  const { chart, move } = histogram(negative, positive, labelled);
  const setThreshold = (value) => {
    if (!Number.isFinite(value)) return;
    threshold = value; // a live model tells of its change later than the next frame
    schedule();
    model.set("threshold", value);
    model.save_changes();
  };
  const slider = make("input", {
    type: "range", min: 0, max: 1, step: 0.001, "aria-label": "Threshold", oninput: () => setThreshold(Number(slider.value)),
  });
  const exact = make("input", {
    type: "number", min: 0, step: 0.001, "aria-label": "Threshold, exact value",
    onchange: () => (exact.value === "" ? schedule() : setThreshold(Number(exact.value))),
  });
  const reset = make("button", {
    type: "button", class: "pg-plain", text: `Back to ${short(content.threshold.value)}`, title: content.threshold.rule,
    onclick: () => setThreshold(content.threshold.value),
  });
  const cells = {};
  const cell = (name) => {
    const number = make("strong");
    const button = make("button", {
      type: "button", class: `pg-cell ${name}`, "data-outcome": name,
      onclick: () => { view.outcomes.delete(name) || view.outcomes.add(name); view.limit = PAGE; update(); },
    }, make("span", { class: "pg-badge", text: name }), number, make("span", { class: "pg-small", text: OUTCOMES[name][0].toLowerCase() }));
    cells[name] = { button, number };
    return make("td", {}, button);
  };
  const rates = make("dl", { class: "pg-rates" });
  const [sensitivity, specificity] = ["Sensitivity", "Specificity"].map((name) => {
    const value = make("strong"), of = make("span", { class: "pg-small" });
    rates.append(make("dt", { text: name }), make("dd", {}, value, " ", of));
    return (part, all) => { write(value, share(part, all)); write(of, `${whole(part)} of ${whole(all)}`); };
  });
  const printed = make("p", { class: "pg-printed" });
  const head = (text, scope) => make("th", { scope, text });
  const matrix = labelled
    ? make("table", {}, make("tr", {}, make("td"), head("called tumour", "col"), head("called none", "col")),
        make("tr", {}, head("tumour", "row"), cell("TP"), cell("FN")),
        make("tr", {}, head("no tumour", "row"), cell("FP"), cell("TN")))
    : make("table", {}, make("tr", {}, head("called positive", "col"), head("called negative", "col")),
        make("tr", {}, cell("P"), cell("N")));

  // ---- filters and order
  const choice = (label, options, onpick) => {
    const list = make("select", { "aria-label": label.trim(), onchange: () => onpick(list.value) });
    list.append(...options.map(([value, text]) => make("option", { value, text })));
    return [list, make("label", {}, label, list)];
  };
  const refilter = (key, value) => { view[key] = value; view.limit = PAGE; update(); };
  const slides = [...new Set(patches.map((patch) => patch.slide))].filter((slide) => slide !== null).sort();
  const [slideList, slideField] = choice("Slide ", [["", "all"], ...slides.map((s, i) => [String(i), s])],
    (v) => refilter("slide", v === "" ? null : slides[Number(v)]));
  const [sliceList, sliceField] = choice("Slice ", [["", "all"], ...content.slices.map((s, i) => [String(i), s])],
    (v) => refilter("slice", v));
  const [sortList, sortField] = choice("Sort by ", Object.entries(keys).map(([key, [text]]) => [key, text]), (v) => refilter("sort", v));
  const bound = (key, label) => make("input", {
    type: "number", min: 0, max: 1, step: 0.05, value: view[key], "aria-label": label,
    oninput: (event) => refilter(key, event.target.value === "" ? initial()[key] : Number(event.target.value)),
  });
  const from = bound("from", "Lowest score shown"), to = bound("to", "Highest score shown");
  const order = make("button", {
    type: "button", class: "pg-plain", onclick: () => { view.down = !view.down; update(); },
  });
  const box = make("input", { type: "checkbox", checked: true, onchange: () => root.classList.toggle("pg-boxed", box.checked) });
  const doubtful = make("input", { type: "checkbox", onchange: () => refilter("suspect", doubtful.checked) });
  const clear = make("button", {
    type: "button", class: "pg-plain", text: "Reset filters",
    onclick: () => { Object.assign(view, initial()); doubtful.checked = false; slideList.value = sliceList.value = ""; from.value = 0; to.value = 1; update(); },
  });
  const status = make("p", { class: "pg-status" });
  // A screen reader is told the counts once the slider rests: at each step it would never finish a sentence.
  const spoken = make("p", { class: "pg-spoken", role: "status", "aria-live": "polite" });
  let resting = 0;
  const speak = (text) => { clearTimeout(resting); resting = setTimeout(() => { spoken.textContent = text; }, 600); };
  const grid = make("ul", { class: "pg-grid", role: "list", "aria-label": "Patches" });
  const more = make("button", {
    type: "button", class: "pg-plain pg-more",
    onclick: () => { const next = listed[view.limit]; view.limit += PAGE; update(); rove(tileOf(next).button).focus(); },
  });
  // One tab stop for the grid, which stays where the reader was.
  let stop = null;
  const rove = (button) => {
    if (stop) stop.tabIndex = -1;
    stop = button;
    stop.tabIndex = 0;
    return button;
  };

  // ---- one patch, large
  const large = make("canvas", { width: side, height: side, role: "img" });
  const map = content.attribution && make("canvas", { class: "pg-map", width: content.attribution.side, height: content.attribution.side, "aria-hidden": "true", hidden: true });
  const mapped = make("input", { type: "checkbox", onchange: () => showSelected() });
  const mapText = make("p", { class: "pg-small" }), across = map && side / map.width;
  const near = content.neighbours;
  const drawNear = near && painter(near.pictures);
  const nearList = make("ol", { class: "pg-near", "aria-label": "Nearest training patches" });
  const facts = make("dl", { class: "pg-facts" });
  const title = make("h2", { tabindex: "-1", "aria-live": "polite" }); // says which patch is next while focus stays
  const step = (by) => {
    const place = listed.findIndex((patch) => patch.index === model.get("selected")) + by;
    if (!listed[place]) return;
    if (tileOf(listed[place]).item.isConnected) rove(tileOf(listed[place]).button);
    select(listed[place].index);
  };
  const before = make("button", { type: "button", class: "pg-plain", text: "← Previous", onclick: () => step(-1) });
  const after = make("button", { type: "button", class: "pg-plain", text: "Next →", onclick: () => step(1) });
  const dialog = make("dialog", {
    "aria-label": "One patch",
    onclose: () => {
      select(null);
      if (grid.contains(document.activeElement) && stop.isConnected) stop.focus(); // the patch looked at last
    },
    onclick: (event) => event.target === dialog && dialog.close(), // on the backdrop
    onkeydown: (event) => {
      if (event.key === "ArrowLeft") step(-1);
      else if (event.key === "ArrowRight") step(1);
      else return;
      event.preventDefault();
    },
  }, make("header", {}, title, make("button", { type: "button", class: "pg-plain", text: "Close", onclick: () => dialog.close() })),
  make("div", { class: "pg-sides" },
    make("div", { class: "pg-looked" }, make("span", { class: "pg-frame" }, large, map),
      map && make("label", {}, mapped, " show what moved the score"), map && mapText),
    facts),
  near && make("div", { class: "pg-like" }, make("p", {}, make("strong", { text: `Most alike in ${near.split}` }), make("span", { class: "pg-small",
    text: ` by ${near.by}, among ${near.searched < near.of ? `${whole(near.searched)} of its ${whole(near.of)}` : `its ${whole(near.of)}`} patches, shown at 1/${side / near.pictures.side} of their size; distances in standard deviations` })), nearList),
  make("footer", {}, before, make("span", { class: "pg-small pg-keys", text: "← → between patches, Esc to close" }), after));
  const select = (index) => {
    model.set("selected", index);
    model.save_changes();
    showSelected();
  };
  function showSelected() {
    const patch = patches.find(({ index }) => index === model.get("selected"));
    if (!patch) { if (dialog.open) dialog.close(); return; }
    const outcome = outcomeOf(patch), [name, meaning] = OUTCOMES[outcome];
    title.textContent = `${name.replace(/s$/, "")} #${patch.index}`;
    large.setAttribute("aria-label", `Patch ${patch.index} of ${content.split}, enlarged: ${meaning}`);
    draw(large, patch.place);
    if (map) {
      map.hidden = !mapped.checked;
      paintMap(map, patch.map, content.attribution.side);
      large.classList.toggle("pg-under", mapped.checked);
      mapText.textContent = mapped.checked ? "Orange speaks for tumour, blue against, by integrated gradients. The strongest "
        + `${across} × ${across} pixels move the logit by ${patch.map.most}; all together, starting from plain mean colour, by `
        + `${patch.map.sum > 0 ? "+" : ""}${patch.map.sum}.` : "";
    }
    if (near) nearList.replaceChildren(...patch.near.map(([place, distance]) => {
      const other = near.patches[place], canvas = make("canvas", { width: near.pictures.side, height: near.pictures.side, "aria-hidden": "true" });
      drawNear(canvas, place);
      const truth = other.label === null ? "no label" : other.label ? "tumour" : "no tumour";
      return make("li", { title: other.slide === null ? null : `slide ${other.slide}` }, canvas,
        make("span", {}, make("strong", { text: truth }), make("span", { class: "pg-small", text: `#${other.index}, distance ${distance}` })));
    }));
    const rows = [
      ["outcome", `${outcome}: ${meaning}`], ["score", String(Number(patch.score.toPrecision(6)))], ["threshold", short(threshold)],
      labelled ? ["loss", loss(patch).toFixed(3)] : null, patch.suspect ? ["label", "in doubt: the model contradicts it surely"] : null, ["split, index", `${content.split}, ${patch.index}`],
      patch.slide === null ? null : ["slide", patch.slide],
      patch.slices.length ? ["slices", patch.slices.map((place) => content.slices[place]).join(", ")] : null,
      ...content.features.map(({ name, unit }, place) => [name, `${patch.features[place]} ${unit}`]),
    ].filter(Boolean);
    facts.replaceChildren(...rows.flatMap(([term, text]) => [make("dt", { text: term }), make("dd", { text })]));
    const place = listed.indexOf(patch);
    // Not `disabled`, which would drop the focus and with it the arrow keys.
    mark(before, "aria-disabled", place < 1);
    mark(after, "aria-disabled", place < 0 || place + 1 >= listed.length);
    if (!dialog.open) { dialog.showModal(); title.focus(); }
  }

  // ---- keyboard: arrows inside the grid
  grid.addEventListener("keydown", (event) => {
    const buttons = [...grid.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const top = (button) => button.parentNode.getBoundingClientRect().top, first = top(buttons[0]);
    const columns = Math.max(1, buttons.findIndex((button) => top(button) > first + 1));
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: buttons.length - 1 - at };
    const target = buttons[at + by[event.key]];
    if (!target) return;
    event.preventDefault();
    rove(target).focus();
  });

  // ---- what follows from threshold and view
  let pending = 0, started = false;
  function schedule() { if (!pending) pending = requestAnimationFrame(() => { pending = 0; update(); }); }
  function update() {
    move(threshold);
    slider.value = threshold;
    mark(slider, "aria-valuetext", `threshold ${short(threshold)}`);
    if (document.activeElement !== exact) exact.value = Number(threshold.toFixed(6));
    write(printed, `Called ${labelled ? "tumour" : "positive"} from score ${Number(threshold.toFixed(6))}.`);
    const tp = countFrom(positive, threshold), fp = countFrom(negative, threshold);
    const counts = { TP: tp, FN: positive.length - tp, FP: fp, TN: negative.length - fp, P: fp, N: negative.length - fp };
    for (const [name, { button, number }] of Object.entries(cells)) {
      write(number, whole(counts[name]));
      mark(button, "aria-pressed", view.outcomes.has(name));
      mark(button, "aria-label", `${OUTCOMES[name][0]}: ${whole(counts[name])}; show them below`);
    }
    if (labelled) { sensitivity(tp, positive.length); specificity(counts.TN, negative.length); }
    const value = keys[view.sort][1], sign = view.down ? -1 : 1;
    listed = patches.filter((patch) => view.outcomes.has(outcomeOf(patch)) && patch.score >= view.from && patch.score <= view.to
      && (!view.suspect || patch.suspect) && (view.slide === null || patch.slide === view.slide) && (!view.slice || patch.slices.includes(Number(view.slice))));
    listed.forEach((patch) => { patch.key = sign * value(patch); }); // once a patch, not once a comparison
    listed.sort((a, b) => a.key - b.key || a.index - b.index);
    const visible = listed.slice(0, view.limit);
    const shown = Object.fromEntries(names.map((name) => [name, 0]));
    listed.forEach((patch) => { shown[outcomeOf(patch)]++; });
    for (const patch of visible) {
      const tile = tileOf(patch), { button, badge } = tile, outcome = outcomeOf(patch);
      if (tile.outcome === outcome) continue; // most tiles stay what they are when the threshold moves
      tile.outcome = outcome;
      button.className = `pg-tile ${outcome}`;
      badge.textContent = outcome;
      const slide = patch.slide === null ? "" : `, slide ${patch.slide}`;
      button.setAttribute("aria-label", `Patch ${patch.index}, ${OUTCOMES[outcome][1]}, score ${patch.score.toFixed(3)}${slide}`);
      button.title = `#${patch.index}${slide}`;
    }
    // Moving a node costs its focus and a layout, so those that stay in order are not touched.
    const items = visible.map((patch) => tileOf(patch).item), kept = new Set(items);
    for (const item of [...grid.children]) if (!kept.has(item)) item.remove();
    let here = grid.firstChild;
    for (const item of items) if (item === here) here = here.nextSibling; else grid.insertBefore(item, here);
    if (visible.length && !(stop && kept.has(stop.parentNode))) rove(tileOf(visible[0]).button);
    const parts = names.filter((name) => shown[name]).map((name) => `${whole(shown[name])} ${name}`);
    write(status, listed.length
      ? `${whole(listed.length)} of the ${plural(patches.length, "patch", "patches")} on show: ${parts.join(", ")}${listed.length > view.limit ? `; the first ${whole(view.limit)} below` : ""}.`
      : patches.length ? "No patch on show fits. Move the threshold, or switch on another cell of the table." : "There are no patches to show.");
    more.hidden = listed.length <= view.limit;
    write(more, `Show ${Math.min(PAGE, listed.length - view.limit)} more`);
    write(order, view.down ? "↓ high first" : "↑ low first");
    mark(order, "aria-label", view.down ? "Order: high first" : "Order: low first");
    if (started) speak(`Threshold ${short(threshold)}: ${names.map((name) => `${whole(counts[name])} ${OUTCOMES[name][0].toLowerCase()}`).join(", ")}`
      + `${labelled ? `; sensitivity ${share(tp, positive.length)}, specificity ${share(counts.TN, negative.length)}` : ""}. ${status.textContent}`);
    if (dialog.open) showSelected();
  }

  const total = negative.length + positive.length;
  const { error } = content.pictures, none = !patches.length;
  const chosen = none ? " No patch is on show." : patches.length < total
    ? ` ${plural(patches.length, "patch is", "patches are")} on show: ${labelled ? "the gravest mistakes, and right calls" : "a choice"} from the lowest to the highest score.` : "";
  const pixels = none ? "" : error ? ` To save room, pictures are compressed: pixels are off by ${error.mean} of 255 on average, by ${error.most} at most.`
    : " Pixels are the file's own.";
  const root = make("section", { class: "pcam-gallery pg-boxed", "aria-label": `Error gallery, ${content.split}`,
    // Else JupyterLab takes arrows and letters for commands to its cells, and the focus to the active one.
    "data-lm-suppress-shortcuts": true, onkeydown: (event) => event.stopPropagation() },
    make("p", { class: "pg-lead" }, make("strong", { text: `Errors on ${content.split}. ` }),
      labelled ? `Counts are over all ${whole(total)} patches, ${whole(positive.length)} with tumour.${chosen}` : `${whole(total)} patches without labels: calls, not errors.${chosen}`, pixels),
    make("div", { class: "pg-decision" },
      make("div", { class: "pg-cutting" },
        make("div", { class: "pg-row" }, make("label", {}, "Call tumour from score ", exact), reset),
        make("div", { class: "pg-plot" },
          labelled ? make("span", { class: "pg-key", text: "with tumour" }) : null, chart,
          labelled ? make("span", { class: "pg-key", text: "without" }) : null, slider,
          make("div", { class: "pg-ticks", "aria-hidden": "true" }, ...["0", "0.25", "0.5", "0.75", "1"].map((text) => make("span", { text })))),
        make("p", { class: "pg-small", text: `Score of each patch, ${labelled ? "by truth; " : ""}bar heights are square roots of counts. The threshold started at ${short(content.threshold.value)}: ${content.threshold.rule}.` })),
      make("div", { class: "pg-outcomes" }, matrix, labelled ? rates : null, printed,
        none ? null : make("p", { class: "pg-small pg-hint", text: "Click a cell to show or hide its patches below." }))),
    make("div", { class: "pg-toolbar", role: "group", "aria-label": "Filters and order", hidden: none },
      slides.length ? slideField : null, content.slices.length ? sliceField : null,
      content.suspects === null ? null
        : make("label", { title: "The model contradicts their label surely enough to look at the label first." }, doubtful, ` label suspects only (${whole(content.suspects)} of all)`),
      make("span", { class: "pg-range" }, "Score ", from, " to ", to), make("span", { class: "pg-range" }, sortField, order),
      make("label", {}, box, " centre 32 × 32, which defines the label"), clear),
    status, spoken, grid, more, dialog);
  const heard = { "change:threshold": () => { threshold = model.get("threshold"); schedule(); }, "change:selected": showSelected };
  for (const [event, hear] of Object.entries(heard)) model.on(event, hear);
  el.append(root);
  update();
  started = true;
  if (model.get("selected") !== null) showSelected();
  return () => { clearTimeout(resting); for (const [event, hear] of Object.entries(heard)) model.off(event, hear); root.remove(); };
}

export default { render };
