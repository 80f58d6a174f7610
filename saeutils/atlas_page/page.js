"use strict";
// Everything on the page is made from the JSON above; names enter as text, never as markup.
const DATA = JSON.parse(document.getElementById("content").textContent);
const { meta, latents, clips } = DATA;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const node = /^(svg|path|line|rect|g)$/.test(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// numbers -----------------------------------------------------------------------------------
const known = (value) => value !== null && value !== undefined;
const minus = (text) => text.replace("-", "−");
const fixed = (value, digits = 2) => known(value) ? minus(value.toFixed(digits)) : "–";
const signed = (value, digits = 2) => known(value) ? (value > 0 ? "+" : "") + fixed(value, digits) : "–";
const percent = (value) => known(value) ? (value > 0 && value < .01 ? "<1\u00a0%" : Math.round(100 * value) + "\u00a0%") : "–";
const words = (name) => String(name).replaceAll("_", " ");
const fact = (latent, split, metric) => ((latent.facts[split] || {})[metric] || [null, null, null, 0]);
const stability = (latent) => latent.stability ? latent.stability.code_correlation[0] : null;
const answers = (latent) => (latent.responses || []).filter((r) => !r.factor.startsWith("placebo"));
const strongest = (latent) => answers(latent).filter((r) => r.exceeds)
  .sort((a, b) => (b.specificity || 0) - (a.specificity || 0))[0] || null;
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

// sound and pictures ------------------------------------------------------------------------
const blobs = new Map();
function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) out[i] = raw.charCodeAt(i);
  return out;
}
function link(id, kind) {
  const key = kind + id;
  if (!blobs.has(key)) {
    const type = kind === "mp3" ? "audio/mpeg" : "image/webp";
    blobs.set(key, URL.createObjectURL(new Blob([bytes(clips[id][kind])], { type })));
  }
  return blobs.get(key);
}

let current = null; // the figure that plays
function stop() {
  if (!current) return;
  current.audio.pause();
  current.draw();
}
const ICONS = { play: "M3 1.5v11l9.5-5.5z", pause: "M3 1.5h3v11h-3zM8 1.5h3v11h-3z" };

function path(values, height, close) {
  const last = Math.max(values.length - 1, 1);
  let text = "";
  values.forEach((value, i) => {
    text += `${i ? "L" : "M"}${(1000 * i / last).toFixed(1)} ${(height * (1 - value)).toFixed(2)}`;
  });
  return close ? `${text}L1000 ${close}L0 ${close}Z` : text;
}

function pieces(levels) { // the line only where the frame-level latent fires
  const last = Math.max(levels.length - 1, 1);
  let text = "";
  let down = false;
  levels.forEach((level, i) => {
    if (level > 0) text += `${down ? "L" : "M"}${(1000 * i / last).toFixed(1)} ${(97 - 92 * level / 255).toFixed(1)}`;
    down = level > 0;
  });
  return text;
}

function clipFigure(latent, item, label) {
  const clip = clips[item.clip];
  const curve = Array.from(bytes(item.curve), (b) => b / 255);
  const zero = 100 * (1 - latent.zero);
  const above = curve.map((value) => Math.max(value, latent.zero));
  const what = `${words(clip.technique)}, ${words(clip.singer)}`;
  const when = peak(curve, clip.seconds);
  const svg = el("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    el("line", { class: "zero", x1: 0, x2: 1000, y1: zero, y2: zero }),
    el("path", { class: "area", d: path(above, 100, zero.toFixed(2)) }),
    el("path", { class: "line", d: path(curve, 100) }));
  if (item.frames) {
    svg.append(el("path", { class: "frame", d: pieces(bytes(item.frames)) }));
  }
  const icon = el("path", { d: ICONS.play });
  const button = el("button", { type: "button", class: "play", "aria-label": `Play ${label}: ${what}` },
    el("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, icon));
  const head = el("div", { class: "head" });
  const image = el("img", { src: link(item.clip, "mel"), alt:
    `Mel spectrogram of ${what}, ${[words(clip.exercise), clip.vowel].filter((t) => t && t !== "–").join(", ")} ${fixed(clip.seconds, 1)} s. ${when}` });
  const spec = el("div", { class: "spec", role: "slider", tabindex: 0, "aria-label": `Position in ${label}: ${what}`,
    "aria-valuemin": 0, "aria-valuemax": fixed(clip.seconds, 1), "aria-valuenow": 0 },
    image, svg, head, el("span", { class: "place" }, label), el("span", { class: "place long" }, `${fixed(clip.seconds, 1)} s`), button);
  const audio = el("audio", { preload: "metadata", src: link(item.clip, "mp3") });
  const figure = el("figure", { class: "clip", "data-clip": item.clip }, spec, audio,
    el("figcaption", {},
      el("span", {}, el("b", {}, words(clip.technique)), [clip.singer, clip.exercise, clip.vowel].filter((t) => t && t !== "–").map((t) => ` · ${words(t)}`).join("")),
      el("span", { class: "val", title: "the latent's value on the whole clip" }, `code ${fixed(item.value, 2)}`)));
  const state = { audio, figure, draw, toggle };
  figure.player = state;
  function draw() {
    const at = audio.duration ? audio.currentTime / audio.duration : 0;
    head.style.left = `${100 * at}%`;
    spec.setAttribute("aria-valuenow", audio.currentTime.toFixed(1));
    icon.setAttribute("d", audio.paused ? ICONS.play : ICONS.pause);
    button.setAttribute("aria-label", `${audio.paused ? "Play" : "Pause"} ${label}: ${what}`);
    figure.classList.toggle("playing", !audio.paused);
    figure.classList.toggle("paused", audio.paused && audio.currentTime > 0 && !audio.ended);
    if (!audio.paused) requestAnimationFrame(draw);
  }
  function toggle() {
    if (audio.paused) {
      if (current && current !== state) stop();
      current = state;
      audio.play().then(draw, draw);
    } else {
      audio.pause();
      draw();
    }
  }
  function seek(share) {
    if (audio.duration) audio.currentTime = Math.min(Math.max(share, 0), .999) * audio.duration;
    draw();
  }
  button.addEventListener("click", (event) => { event.stopPropagation(); toggle(); });
  spec.addEventListener("click", (event) => {
    const box = spec.getBoundingClientRect();
    seek((event.clientX - box.left) / box.width);
    if (audio.paused) toggle();
  });
  spec.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -.05, ArrowRight: .05 }[event.key];
    if (step && audio.duration) { seek(audio.currentTime / audio.duration + step); event.preventDefault(); event.stopPropagation(); }
    if ((event.key === " " || event.key === "Enter") && event.target === spec) { toggle(); event.preventDefault(); event.stopPropagation(); }
  });
  audio.addEventListener("ended", () => { audio.currentTime = 0; draw(); });
  audio.addEventListener("pause", draw);
  return figure;
}

function peak(curve, seconds) {
  const top = curve.indexOf(Math.max(...curve));
  return `The latent is highest at ${fixed(seconds * top / Math.max(curve.length - 1, 1), 1)} s.`;
}

// bars and tables ---------------------------------------------------------------------------
function bars(rows, best, unit) {
  const values = rows.flatMap((r) => [r.value, r.train, r.high]).filter(known);
  const most = Math.max(...values, 1e-9);
  const x = (value) => `${Math.min(100 * Math.max(value, 0) / most, 100)}%`;
  return rows.map((r) => {
    const svg = el("svg", { "aria-hidden": "true" },
      el("rect", { class: "track", x: 0, y: 0, width: "100%", height: "100%", rx: 2 }),
      el("rect", { class: "fill", x: 0, y: 0, width: x(r.value), height: "100%", rx: 2 }));
    if (known(r.low) && known(r.high)) svg.append(el("line", { class: "whisker", x1: x(r.low), x2: x(r.high), y1: "50%", y2: "50%" }));
    if (known(r.train)) svg.append(el("line", { class: "tick", x1: x(r.train), x2: x(r.train), y1: "-10%", y2: "110%" }));
    const range = known(r.low) ? `, 95 % interval ${fixed(r.low)} to ${fixed(r.high)}` : "";
    const title = `${words(r.name)}: ${fixed(r.value)} ${unit}${range}, ${plural(r.n, "clip")}` +
      (known(r.train) ? `; training singers ${fixed(r.train)}` : "");
    return el("div", { class: `bar${r.name === best ? " on" : ""}`, title },
      el("span", { class: "lab" }, words(r.name)), svg, el("span", { class: "num" }, fixed(r.value)));
  });
}

function diverging(value, most) {
  const width = Math.min(50 * Math.abs(value) / (most || 1), 50);
  return el("svg", { height: 12, "aria-hidden": "true" },
    el("rect", { class: value < 0 ? "neg" : "pos", x: `${value < 0 ? 50 - width : 50}%`, y: 1, width: `${width}%`, height: 10, rx: 1.5 }),
    el("line", { class: "axis", x1: "50%", x2: "50%", y1: 0, y2: 12 }));
}

function weightTable(rows, caption) {
  const most = Math.max(...rows.map((r) => Math.abs(r.weight)), 1e-9);
  const body = rows.map((r) => el("tr", {},
    el("td", { title: r.name }, r.label), el("td", { class: "draw" }, diverging(r.weight, most)),
    el("td", {}, signed(r.weight)), el("td", { class: r.r2_alone < .05 ? "weak" : null }, fixed(r.r2_alone)),
    el("td", {}, fixed(r.r2_all))));
  return el("div", { class: "scroll" }, el("table", { class: "table" },
    el("caption", { class: "hidden" }, caption),
    el("thead", {}, el("tr", {}, ...[caption, "", "weight", "R² alone", "R² all codes"].map((t) => el("th", { scope: "col" }, t)))),
    el("tbody", {}, ...body)));
}

function responseTable(latent) {
  const rows = latent.responses;
  const heights = rows.flatMap((r) => r.steps.map((s) => Math.abs(s[1])));
  const most = Math.max(...heights, 1e-9);
  const reach = Math.max(...answers(latent).flatMap((r) => r.steps.map((s) => Math.abs(s[0]))), 1);
  const body = rows.map((r) => {
    const placebo = r.factor.startsWith("placebo");
    const strong = r.exceeds && !placebo;
    const points = (placebo ? r.steps.filter((s) => Math.abs(s[0]) <= reach) : [...r.steps, [0, 0, 0]]).sort((a, b) => a[0] - b[0]);
    const d = points.map(([x, y], i) => `${i ? "L" : "M"}${(50 + 48 * x / reach).toFixed(1)} ${(15 - 13 * y / most).toFixed(2)}`).join("");
    const picture = placebo && r.factor.endsWith("noise") ? null
      : el("svg", { height: 30, viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" },
        el("line", { class: "axis", x1: 0, x2: 100, y1: 15, y2: 15 }), el("path", { class: "curve", d }));
    return el("tr", { class: placebo ? "placebo" : strong ? "strong" : null },
      el("td", { title: `${r.n} base clips` }, words(r.label)), el("td", { class: "draw" }, picture),
      el("td", {}, placebo ? "–" : percent(r.specificity)), el("td", {}, placebo ? "–" : signed(r.trend)),
      el("td", {}, placebo ? "placebo" : r.exceeds ? "yes" : "no"));
  });
  return el("div", { class: "scroll" }, el("table", { class: "table" },
    el("thead", {}, el("tr", {}, ...["cause that was moved", "change of the code by step", "share of its response", "trend", "above placebo"].map((t) => el("th", { scope: "col" }, t)))),
    el("tbody", {}, ...body)));
}

// the card ----------------------------------------------------------------------------------
function section(title, note, ...children) {
  return el("section", {}, el("h3", {}, title), note ? el("p", { class: "note" }, note) : null, ...children);
}

function story(latent) {
  const [auc] = fact(latent, "unseen", "auc");
  const [trained] = fact(latent, "train", "auc");
  const rho = fact(latent, "unseen", "rank_correlation")[0];
  const fires = fact(latent, "unseen", "fires")[0];
  const parts = [];
  if (known(auc)) {
    parts.push(`On ${plural(meta.n_unseen_singers, "unseen singer")} it puts a random ${words(latent.technique)} clip above a clip of another technique ` +
      `in ${Math.round(100 * auc)} of 100 draws (50 would be chance; ${known(trained) ? Math.round(100 * trained) : "–"} on the training singers it was chosen on).`);
  }
  parts.push(`It fires on ${percent(fires)} of the clips and ${latent.direction === "+" ? "rises" : "falls"} with ${latent.attribute_name} (rank correlation ${signed(rho)}).`);
  const own = strongest(latent);
  if (own && own.specificity >= .5) parts.push(`When only ${words(own.label)} is moved, the latent answers: ${percent(own.specificity)} of all its responses are to that cause.`);
  else if (latent.responses) parts.push("No single cause that was moved owns half of its response.");
  return parts.join(" ");
}

function tile(name, value, small) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value), el("small", {}, small));
}

function facts(latent) {
  const auc = fact(latent, "unseen", "auc");
  const each = fact(latent, "unseen", "auc_singers");
  const fires = fact(latent, "unseen", "fires");
  const tiles = !latent.technique ? [] : [
    tile(`Ranks ${words(latent.technique)}`, fixed(auc[0]), `AUC, ${plural(auc[3], "unseen clip")}; training ${fixed(fact(latent, "train", "auc")[0])}`),
    tile("Singer by singer", known(each[0]) ? fixed(each[0]) : "–", known(each[1]) ? `mean AUC, 95 % ${fixed(Math.max(each[1], 0))} to ${fixed(Math.min(each[2], 1))}, ${each[3]} singers` : "one singer: no interval"),
  ];
  tiles.push(tile("Fires on", percent(fires[0]), `of unseen clips; training ${percent(fact(latent, "train", "fires")[0])}`));
  const value = stability(latent);
  const chance = meta.stability_null;
  if (meta.panels.stability) tiles.push(tile("Stable over seeds", fixed(value), `correlation with its match; untrained ${fixed(chance)}`));
  const own = strongest(latent);
  if (meta.panels.responses) tiles.push(tile("Largest cause", own ? percent(own.specificity) : "none", own ? words(own.label) : "above the placebo"));
  return el("dl", { class: "facts" }, ...tiles);
}

const PLACES = { q90: "90th percentile", q50: "median clip", q10: "10th percentile" };
const placeName = (place) => PLACES[place] || words(place);

function groupBars(latent) {
  const technique = (latent.groups.technique || []).filter((r) => r.name);
  const vowel = (latent.groups.vowel || []).filter((r) => r.name && r.name !== "–");
  const singer = [...(latent.groups.singer || [])].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const unit = "SD";
  const block = (title, rows, best, small) => el("div", { class: `group${small ? " small" : ""}` }, el("h4", {}, title), ...bars(rows, best, unit));
  const sung = technique.length ? block("Techniques", technique, latent.technique) : vowel.length ? block("Vowels", vowel, null) : null;
  if (technique.length && vowel.length) sung.append(el("h4", { style: "margin-top:1rem" }, "Vowels"), ...bars(vowel, null, unit));
  return el("div", { class: "columns" }, sung, block("Singers (unseen)", singer, null, singer.length > 8));
}

function card(latent) {
  stop();
  current = null;
  const top = latent.clips.filter((c) => c.place.startsWith("top"));
  const lower = latent.clips.filter((c) => !c.place.startsWith("top"));
  const frame = meta.panels.frames && latent.clips.some((c) => c.frames);
  const r = (fact(latent, "unseen", "frame_match") || [])[0];
  const children = [
    el("div", { class: "back" }, el("button", { type: "button", class: "plain", onclick: () => view("list") }, "← All latents"),
      el("span", {}, el("button", { type: "button", class: "plain", onclick: () => move(-1), "aria-label": "Previous latent" }, "↑"),
        el("button", { type: "button", class: "plain", onclick: () => move(1), "aria-label": "Next latent" }, "↓"))),
    el("div", { class: "title" }, el("h2", {}, `Latent ${latent.id}`), el("span", { class: "for" }, `chosen for ${words(latent.chosen_for)}`)),
    el("p", { class: "story" }, story(latent)), facts(latent),
    section("When it fires", `The clips of unseen singers that excite it most. The curve is the latent frame by frame, before TopK: where it lies above the dotted zero it pushes the code up, and its mean over the clip is the code's value before TopK.`,
      el("div", { class: "legend" }, el("span", {}, el("i", { class: "key clip" }), "this latent over time"),
        frame ? el("span", {}, el("i", { class: "key frame" }), `closest latent of a frame-level dictionary${known(r) ? ` (r = ${fixed(r)} on unseen frames)` : ""}`) : null,
        el("span", {}, el("i", { class: "key ink" }), "mel spectrogram, 60 Hz to 7.6 kHz")),
      el("div", { class: "clips" }, ...top.map((c) => clipFigure(latent, c, placeName(c.place)))),
      lower.length ? el("div", { class: "lower" }, el("h4", {}, "And clips that excite it less"),
        el("div", { class: "clips" }, ...lower.map((c) => clipFigure(latent, c, placeName(c.place))))) : null),
    section("Who excites it", "Mean code in standard deviations over training clips. Bars: unseen singers, with a 95 % interval over singers where there are two or more. Ticks: training singers, on whom the latent was chosen.", groupBars(latent)),
  ];
  const tables = [];
  if ((latent.weights.attribute || []).length) tables.push(el("div", {}, weightTable(latent.weights.attribute, "eGeMAPS attribute")));
  if ((latent.weights.factor || []).length) tables.push(el("div", {}, weightTable(latent.weights.factor, "recorded cause")));
  const note = "Weight of this latent in the sparse linear map of each property, fitted on training singers; blue lowers, orange raises. R² alone: a line through this latent only; R² all codes: the whole map. Both on unseen singers; for recorded causes the whole map is cross-validated over singers on the crossed clips. A weight is a correlation, not a meaning.";
  children.push(section("What it goes along with", tables.length ? note : "No property gives this latent a weight.",
    el("div", { class: "columns" }, ...tables)));
  if (!meta.panels.factors) children.at(-1).append(el("p", { class: "note" }, "Recorded causes: left out, this material has none."));
  if (latent.responses) {
    const pair = latent.pair;
    const natural = latent.responses.some((r) => r.factor === "placebo_vowel");
    children.push(section("What moves it", natural
      ? "Pairs made by nature: one singer, vowel and exercise, straight and with a technique. Share: how much of the latent's response belongs to that technique. The placebo is another vowel, straight like the first. More than the technique can differ in such a pair."
      : "The same clip again with one cause moved and all else held. Share: how much of the latent's response belongs to that cause. Trend: Kendall's tau over the steps. Placebos are a new noise seed and a new gain. The curves have one scale, in steps of up to two population SDs.",
      el("div", { class: "columns" }, el("div", {}, responseTable(latent)),
        pair ? el("div", { class: "pairs" }, el("h4", {}, `Before and after: ${words(pair.name)} ${signed(pair.step, 1)} SD`),
          el("div", { class: "clips two" }, ...pair.both.map((c, i) => clipFigure(latent, c, i ? "after" : "before"))),
          el("p", { class: "note", style: "margin-top:.5rem" }, "The pair with the largest change of this latent: the best case, not the average one.")) : null)));
  } else children.push(section("What moves it", "Left out: this material has no counterfactual clips."));
  if (!latent.stability) children.push(section("Stability", "Left out: another seed of the same training is needed to say whether this latent would be found again."));
  const target = $("card");
  target.replaceChildren(...children);
  target.setAttribute("aria-label", `Latent ${latent.id}, ${words(latent.chosen_for)}`);
}

// the list ----------------------------------------------------------------------------------
const controls = ["search", "technique", "attribute", "stability", "sort"].map($);
let shown = [];
let chosen = null;

function spark(latent) {
  const named = (latent.groups.technique || []).filter((r) => r.name);
  const rows = named.length ? named : latent.groups.singer || [];
  const most = Math.max(...rows.map((r) => r.value || 0), 1e-9);
  const wide = 62 / Math.max(rows.length, 1);
  return el("svg", { class: "bars", viewBox: "0 0 62 30", "aria-hidden": "true" }, el("line", { x1: 0, x2: 62, y1: 29.5, y2: 29.5 }),
    ...rows.map((r, i) => {
      const height = 28 * Math.max(r.value || 0, 0) / most;
      return el("rect", { class: r.name === latent.technique ? "on" : null, x: i * wide + .8, y: 29 - height, width: Math.max(wide - 1.6, 1), height: Math.max(height, .6) });
    }));
}

const text = (latent) => [`latent ${latent.id}`, latent.technique, words(latent.technique), latent.attribute, latent.attribute_name, latent.chosen_for,
  ...Object.values(latent.weights).flat().slice(0, 12).map((w) => w.label),
  ...(strongest(latent) ? [strongest(latent).label] : [])].join(" ").toLowerCase();
const SORTS = {
  order: ["atlas order", (l) => l.order], auc: ["technique, best first", (l) => -(fact(l, "unseen", "auc")[0] ?? -1)],
  cause: ["cause, most specific first", (l) => -((strongest(l) || {}).specificity ?? -1)],
  stability: ["most stable first", (l) => -(stability(l) ?? -1)], rare: ["rarest first", (l) => fact(l, "unseen", "fires")[0]],
  id: ["number", (l) => l.id],
};

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, name]) => el("option", { value }, name)));
}

function prepare() {
  for (const latent of latents) latent.text = text(latent);
  const techniques = [...new Set(latents.map((l) => l.technique))].filter(Boolean).sort();
  $("technique").closest("label").hidden = !techniques.length; // nothing to choose from
  options($("technique"), [["", "any"], ...techniques.map((t) => [t, words(t)])]);
  const names = new Map();
  for (const latent of latents) {
    names.set(latent.attribute, latent.attribute_name);
    for (const w of Object.values(latent.weights).flatMap((rows) => rows.slice(0, 3))) names.set(w.name, w.label);
  }
  options($("attribute"), [["", "any"], ...[...names].sort((a, b) => a[1].localeCompare(b[1]))]);
  options($("stability"), meta.panels.stability ? [["", "any"], [".3", "0.3 or more"], [".5", "0.5 or more"], [".7", "0.7 or more"]] : [["", "one seed only"]]);
  options($("sort"), Object.entries(SORTS).filter(([key]) => (key !== "auc" || techniques.length) && (key !== "stability" || meta.panels.stability) && (key !== "cause" || meta.panels.responses))
    .map(([key, [name]]) => [key, name]));
  for (const control of controls) control.addEventListener("input", refresh);
}

function refresh() {
  const asked = $("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const technique = $("technique").value;
  const attribute = $("attribute").value;
  const least = $("stability").value;
  const meets = (l, word) => (/^\d+$/.test(word) ? String(l.id).startsWith(word) : l.text.includes(word));
  shown = latents.filter((l) => asked.every((word) => meets(l, word)) && (!technique || l.technique === technique)
    && (!attribute || l.attribute === attribute || Object.values(l.weights).some((rows) => rows.slice(0, 3).some((w) => w.name === attribute)))
    && (!least || (stability(l) ?? -1) >= Number(least)));
  const rank = SORTS[$("sort").value || "order"][1];
  shown.sort((a, b) => rank(a) - rank(b) || a.order - b.order);
  $("list").replaceChildren(...shown.map((l) => el("li", {}, el("button", { type: "button", "data-latent": l.id, "aria-current": l === chosen ? "true" : null, onclick: () => choose(l, true) },
    el("span", { class: "no" }, String(l.id)), el("span", { class: "name" }, words(l.chosen_for)), spark(l),
    el("span", { class: "more" }, `${l.technique ? `AUC ${fixed(fact(l, "unseen", "auc")[0])} ${l.chosen_for === words(l.technique) ? "" : words(l.technique)}` : l.attribute_name}${known(stability(l)) ? ` · r ${fixed(stability(l))}` : ""}`)))));
  const filtered = shown.length < latents.length;
  $("count").replaceChildren(el("span", {}, filtered ? `${shown.length} of ${plural(latents.length, "latent")}` : plural(latents.length, "latent")),
    filtered ? el("button", { type: "button", class: "plain", onclick: clear }, "show all") : "");
}

function clear() {
  for (const control of controls.slice(0, 4)) control.value = "";
  refresh();
}

function choose(latent, open) {
  chosen = latent;
  for (const button of $("list").querySelectorAll("button")) {
    const own = Number(button.dataset.latent) === latent.id;
    if (own) { button.setAttribute("aria-current", "true"); if (open !== null) button.scrollIntoView({ block: "nearest" }); } else button.removeAttribute("aria-current");
  }
  card(latent);
  history.replaceState(null, "", `#latent-${latent.id}`);
  if (open) view("card");
  if (open !== null) window.scrollTo(0, 0);
}

function view(name) {
  document.body.dataset.view = name;
  if (name === "list" && chosen) {
    const own = $("list").querySelector('[aria-current="true"]');
    if (own) own.scrollIntoView({ block: "center" });
  }
}

function move(by) {
  if (!shown.length) return;
  const at = shown.indexOf(chosen);
  choose(shown[at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1)], document.body.dataset.view === "card");
}

// keys, theme, dialogs ----------------------------------------------------------------------
const THEMES = ["auto", "light", "dark"];
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
try { theme = localStorage.getItem("atlas-theme") || "auto"; } catch (error) { theme = "auto"; /* storage is off */ }
function paint() {
  const now = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  document.documentElement.dataset.theme = now;
  $("theme").textContent = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[theme];
}
function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % 3];
  try { localStorage.setItem("atlas-theme", theme); } catch (error) { /* kept for this visit only */ }
  paint();
}
dark.addEventListener("change", paint);
$("theme").addEventListener("click", nextTheme);

function playNumber(n) {
  const figure = $("card").querySelectorAll("figure.clip")[n];
  if (figure) { figure.player.toggle(); figure.scrollIntoView({ block: "nearest" }); }
}

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
  const field = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "Escape") { stop(); if (field) event.target.blur(); else if (document.body.dataset.view === "card") view("list"); return; }
  if (field && !(event.target.id === "search" && /^Arrow(Up|Down)$/.test(event.key))) return;
  const does = {
    ArrowDown: () => move(1), j: () => move(1), ArrowUp: () => move(-1), k: () => move(-1), "/": () => { view("list"); $("search").focus(); },
    " ": () => (current && !current.audio.ended ? current.toggle() : playNumber(0)), t: nextTheme, "?": () => $("keys").showModal(), a: () => $("about").showModal(),
  }[event.key] || (/^[1-9]$/.test(event.key) ? () => playNumber(Number(event.key) - 1) : null);
  if (!does || (event.key === " " && event.target.tagName === "BUTTON")) return;
  event.preventDefault();
  does();
});

function dialog(id, title, ...children) {
  const box = $(id);
  box.setAttribute("aria-label", title);
  box.replaceChildren(el("h2", {}, title), ...children, el("button", { type: "button", class: "close", onclick: () => box.close() }, "Close"));
  $(`open-${id}`).addEventListener("click", () => box.showModal());
}
dialog("keys", "Keys", el("dl", {}, ...[["↓ j", "next latent"], ["↑ k", "previous latent"], ["1 … 9", "play that clip"], ["space", "play or pause"], ["← →", "move within a clip that has the focus"],
  ["/", "search"], ["Esc", "stop, leave the field, back to the list"], ["t", "light, dark, or as the system"], ["a", "about this page"]]
  .flatMap(([key, what]) => [el("dt", {}, ...key.split(" ").map((k) => el("kbd", {}, k))), el("dd", {}, what)])));
dialog("about", "About this page", ...meta.about.map((line) => el("p", {}, line)));

$("where").textContent = `${meta.encoder} encoder, layer ${meta.layer}, ${meta.sparsity} % sparse · ${meta.face}` +
  (meta.cut_of ? ` · the first ${latents.length} of ${meta.cut_of}` : "");
paint();
prepare();
refresh();
const asked = latents.find((l) => location.hash === `#latent-${l.id}`);
if (asked) choose(asked, true);
else choose(latents[0], null);
