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
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
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

/** A function that draws one patch of a sheet into a canvas; those asked for before the picture is decoded wait for it. */
function painter(sheet, count, side) {
  const picture = new Image(), wide = Math.ceil(Math.sqrt(count));
  let waiting = [];
  const draw = (canvas, place) => {
    if (!picture.complete || !picture.naturalWidth) { waiting.push([canvas, place]); return; }
    const x = (place % wide) * side, y = Math.floor(place / wide) * side;
    canvas.getContext("2d").drawImage(picture, x, y, side, side, 0, 0, side, side);
  };
  picture.onload = () => { const due = waiting; waiting = []; due.forEach(([canvas, place]) => draw(canvas, place)); };
  if (sheet) picture.src = sheet;
  return draw;
}

/** Paint an attribution: orange speaks for tumour, blue against, and what says little stays clear. */
function paintMap(canvas, { data }, side) {
  const values = new Int8Array(Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer);
  const image = new ImageData(side, side);
  values.forEach((value, at) => image.data.set([...(value > 0 ? [230, 120, 0] : [0, 90, 200]), 1.75 * Math.abs(value)], 4 * at));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function render({ model, el }) {
  const content = model.get("content");
  const [negative, positive] = content.scores.map(unpack);
  const { labelled, patches, side } = content;
  const names = labelled ? ["FN", "FP", "TP", "TN"] : ["P", "N"];
  const featureNames = content.features.map((feature) => feature.name);
  patches.forEach((patch, place) => { patch.place = place; });
  const initial = () => ({
    outcomes: new Set(labelled ? ["FN", "FP"] : ["P", "N"]), slide: "", slice: "", suspect: false, from: 0, to: 1, limit: PAGE,
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

  const draw = painter(content.sheet, patches.length, side);
  const tiles = new Map();
  const tileOf = (patch) => {
    if (!tiles.has(patch.place)) {
      const canvas = make("canvas", { width: side, height: side, "aria-hidden": "true" });
      draw(canvas, patch.place);
      const badge = make("span", { class: "pg-badge" });
      const text = make("span", { class: "pg-score", text: patch.score.toFixed(3) });
      const button = make("button", { type: "button", tabindex: "-1", onclick: () => select(patch.index) },
        make("span", { class: "pg-frame" }, canvas), make("span", { class: "pg-caption" }, badge, text));
      tiles.set(patch.place, { item: make("li", {}, button), button, badge });
    }
    return tiles.get(patch.place);
  };

  // ---- the decision: slider, histogram, table of outcomes
  const { chart, move } = histogram(negative, positive, labelled);
  const setThreshold = (value) => {
    if (!Number.isFinite(value)) return;
    model.set("threshold", value);
    model.save_changes();
    threshold = value; // a live model tells of its change later than the next frame
    schedule();
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
  const [slideList, slideField] = choice("Slide ", [["", "all"], ...slides.map((s) => [s, s])], (v) => refilter("slide", v));
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
  const status = make("p", { class: "pg-status", role: "status" });
  // A screen reader is told the counts once the slider rests: at each step it would never finish a sentence.
  const spoken = make("p", { class: "pg-spoken", "aria-live": "polite" });
  let resting = 0;
  const speak = (text) => { clearTimeout(resting); resting = setTimeout(() => { spoken.textContent = text; }, 600); };
  const grid = make("ul", { class: "pg-grid", "aria-label": "Patches" });
  const more = make("button", { type: "button", class: "pg-plain pg-more", onclick: () => { view.limit += PAGE; update(); } });

  // ---- one patch, large
  const large = make("canvas", { width: side, height: side, role: "img" });
  const map = content.attribution && make("canvas", { class: "pg-map", width: content.attribution.side, height: content.attribution.side, "aria-hidden": "true", hidden: true });
  const mapped = make("input", { type: "checkbox", onchange: () => showSelected() });
  const mapText = make("p", { class: "pg-small" });
  const near = content.neighbours;
  const drawNear = near && painter(near.sheet, near.patches.length, near.side);
  const nearList = make("ol", { class: "pg-near", "aria-label": "Nearest training patches" });
  const facts = make("dl", { class: "pg-facts" });
  const title = make("h2", { tabindex: "-1" });
  const step = (by) => {
    const place = listed.findIndex((patch) => patch.index === model.get("selected")) + by;
    if (listed[place]) select(listed[place].index);
  };
  const before = make("button", { type: "button", class: "pg-plain", text: "← Previous", onclick: () => step(-1) });
  const after = make("button", { type: "button", class: "pg-plain", text: "Next →", onclick: () => step(1) });
  const dialog = make("dialog", {
    "aria-label": "One patch",
    onclose: () => select(null),
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
    text: ` by ${near.by}, among ${near.searched < near.of ? `${whole(near.searched)} of its ${whole(near.of)}` : `its ${whole(near.of)}`} patches; distances in standard deviations` })), nearList),
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
        + `4 × 4 pixels move the logit by ${patch.map.most}; all together, starting from plain mean colour, by `
        + `${patch.map.sum > 0 ? "+" : ""}${patch.map.sum}.` : "";
    }
    if (near) nearList.replaceChildren(...patch.near.map(([place, distance]) => {
      const other = near.patches[place], canvas = make("canvas", { width: near.side, height: near.side, "aria-hidden": "true" });
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
    before.disabled = place < 1;
    after.disabled = place < 0 || place + 1 >= listed.length;
    if (!dialog.open) { dialog.showModal(); title.focus(); }
  }

  // ---- keyboard: one tab stop for the grid, arrows inside it
  grid.addEventListener("keydown", (event) => {
    const buttons = [...grid.querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
    if (at < 0) return;
    const columns = Math.max(1, buttons.filter((button) => button.offsetTop === buttons[0].offsetTop).length);
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: buttons.length - 1 - at };
    const target = buttons[at + by[event.key]];
    if (!target) return;
    event.preventDefault();
    buttons[at].tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
  });

  // ---- what follows from threshold and view
  let pending = 0, started = false;
  function schedule() { if (!pending) pending = requestAnimationFrame(() => { pending = 0; update(); }); }
  function update() {
    move(threshold);
    slider.value = threshold;
    slider.setAttribute("aria-valuetext", `threshold ${short(threshold)}`);
    if (document.activeElement !== exact) exact.value = Number(threshold.toFixed(6));
    const tp = countFrom(positive, threshold), fp = countFrom(negative, threshold);
    const counts = { TP: tp, FN: positive.length - tp, FP: fp, TN: negative.length - fp, P: fp, N: negative.length - fp };
    for (const [name, { button, number }] of Object.entries(cells)) {
      number.textContent = whole(counts[name]);
      button.setAttribute("aria-pressed", view.outcomes.has(name));
      button.setAttribute("aria-label", `${OUTCOMES[name][0]}: ${whole(counts[name])}; show them below`);
    }
    const rate = (name, part, of) => [make("dt", { text: name }), make("dd", {}, make("strong", { text: share(part, of) }),
      make("span", { class: "pg-small", text: ` ${whole(part)} of ${whole(of)}` }))];
    if (labelled) rates.replaceChildren(...rate("Sensitivity", tp, positive.length), ...rate("Specificity", counts.TN, negative.length));
    if (started) speak(`Threshold ${short(threshold)}: ${names.map((name) => `${whole(counts[name])} ${OUTCOMES[name][0].toLowerCase()}`).join(", ")}`
      + (labelled ? `; sensitivity ${share(tp, positive.length)}, specificity ${share(counts.TN, negative.length)}.` : "."));
    const value = keys[view.sort][1], sign = view.down ? -1 : 1;
    listed = patches.filter((patch) => view.outcomes.has(outcomeOf(patch)) && patch.score >= view.from && patch.score <= view.to
      && (!view.suspect || patch.suspect) && (!view.slide || patch.slide === view.slide) && (!view.slice || patch.slices.includes(Number(view.slice))));
    listed.forEach((patch) => { patch.key = sign * value(patch); }); // once a patch, not once a comparison
    listed.sort((a, b) => a.key - b.key || a.index - b.index);
    const visible = listed.slice(0, view.limit);
    const shown = Object.fromEntries(names.map((name) => [name, 0]));
    listed.forEach((patch) => { shown[outcomeOf(patch)]++; });
    visible.forEach((patch, place) => {
      const tile = tileOf(patch), { button, badge } = tile, outcome = outcomeOf(patch);
      button.tabIndex = place ? -1 : 0;
      if (tile.outcome === outcome) return; // most tiles stay what they are when the threshold moves
      tile.outcome = outcome;
      button.className = `pg-tile ${outcome}`;
      badge.textContent = outcome;
      const slide = patch.slide === null ? "" : `, slide ${patch.slide}`;
      button.setAttribute("aria-label", `Patch ${patch.index}, ${OUTCOMES[outcome][1]}, score ${patch.score.toFixed(3)}${slide}`);
      button.title = `#${patch.index}${slide}`;
    });
    // Moving a node drops its focus, so nodes that stay in place are not touched.
    const items = visible.map((patch) => tileOf(patch).item);
    if (items.length !== grid.children.length || items.some((item, place) => grid.children[place] !== item)) grid.replaceChildren(...items);
    const parts = names.filter((name) => shown[name]).map((name) => `${whole(shown[name])} ${name}`);
    status.textContent = listed.length
      ? `${whole(listed.length)} of the ${whole(patches.length)} patches on show: ${parts.join(", ")}.`
      : patches.length ? "No patch on show fits. Move the threshold, or switch on another cell of the table." : "There are no patches to show.";
    more.hidden = listed.length <= view.limit;
    more.textContent = `Show ${Math.min(PAGE, listed.length - view.limit)} more`;
    order.textContent = view.down ? "↓ high first" : "↑ low first";
    order.setAttribute("aria-label", view.down ? "Order: high first" : "Order: low first");
    if (dialog.open) showSelected();
  }

  const total = negative.length + positive.length;
  const chosen = patches.length < total ? ` ${whole(patches.length)} patches are on show: the gravest mistakes, and right calls from the lowest to the highest score.` : "";
  const root = make("section", { class: "pcam-gallery pg-boxed", "aria-label": `Error gallery, ${content.split}` },
    make("p", { class: "pg-lead" }, make("strong", { text: `Errors on ${content.split}. ` }),
      labelled ? `Counts are over all ${whole(total)} patches, ${whole(positive.length)} with tumour.${chosen}` : `${whole(total)} patches without labels: calls, not errors.`),
    make("div", { class: "pg-decision" },
      make("div", { class: "pg-cutting" },
        make("div", { class: "pg-row" }, make("label", {}, "Call tumour from score ", exact), reset),
        make("div", { class: "pg-plot" },
          labelled ? make("span", { class: "pg-key", text: "with tumour" }) : null, chart,
          labelled ? make("span", { class: "pg-key", text: "without" }) : null, slider,
          make("div", { class: "pg-ticks", "aria-hidden": "true" }, ...["0", "0.25", "0.5", "0.75", "1"].map((text) => make("span", { text })))),
        make("p", { class: "pg-small", text: `Score of each patch, ${labelled ? "by truth; " : ""}bar heights are square roots of counts. The threshold started at ${short(content.threshold.value)}: ${content.threshold.rule}.` })),
      make("div", { class: "pg-outcomes" }, matrix, labelled ? rates : null,
        make("p", { class: "pg-small pg-hint", text: "Click a cell to show or hide its patches below." }))),
    make("div", { class: "pg-toolbar", role: "group", "aria-label": "Filters and order" },
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
