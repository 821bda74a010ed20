"use strict";

// The page stops after so many events when it is opened as /?events=8.
const limit = Number(new URLSearchParams(location.search).get("events")) || Infinity;
const shown = 30_000; // ms of the charts
const width = 600, height = 100; // of their coordinates

const live = document.getElementById("live");
const load = document.getElementById("load");
const start = document.getElementById("start");

const history = []; // of figures, oldest first
let events = 0, last = null;

// figuresOf returns the figures of a sample by name, those of all servers added up.
function figuresOf(sample, before) {
  const f = { At: sample.At, Requests: sample.Requests, Goroutines: sample.Goroutines, Heap: sample.Heap };
  for (const stats of sample.Servers) {
    for (const [name, n] of Object.entries(stats)) f[name] = (f[name] ?? 0) + n;
  }
  f.PoolBytes = sample.Servers[0].PoolBytes; // of the process
  f.Open = f.New + f.Handshaking + f.Active + f.Idle + f.Parked + f.Hijacked;
  const rate = name => before && f.At > before.At ? Math.round((f[name] - before[name]) * 1000 / (f.At - before.At)) : 0;
  f.RequestRate = rate("Requests");
  f.ReadRate = rate("BytesRead");
  f.WriteRate = rate("BytesWritten");
  return f;
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function format(n, unit = "") {
  if (!unit.startsWith("B")) return plain.format(n) + unit;
  const prefixes = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; n >= 1000 && i < prefixes.length - 1; i++) n /= 1024;
  return `${i ? short.format(n) : plain.format(n)} ${prefixes[i]}${unit.slice(1)}`;
}

function show(sample) {
  const f = figuresOf(sample, history.at(-1));
  history.push(f);
  while (history.length > 2 && history[1].At < f.At - shown) history.shift();

  for (const element of document.querySelectorAll("data")) {
    element.value = f[element.id];
    element.textContent = format(f[element.id], element.dataset.unit);
  }
  const rows = [...document.querySelectorAll("tbody tr")];
  const most = Math.max(1, ...rows.map(row => row.querySelector("data").value));
  for (const row of rows) {
    row.querySelector(".bar").style.setProperty("--share", row.querySelector("data").value / most);
  }
  document.querySelectorAll("svg").forEach(draw);
  showLoad(sample.Load);
}

// draw draws a line for each series, or areas on top of one another. The right edge is now.
function draw(svg) {
  const names = svg.dataset.series.split(" ");
  const stacked = "stacked" in svg.dataset;
  const now = history.at(-1).At;
  const x = f => (width * (1 - (now - f.At) / shown)).toFixed(1);
  const total = f => names.reduce((sum, name) => stacked ? sum + f[name] : Math.max(sum, f[name]), 0);
  const top = scale(Math.max(...history.map(total)), svg.dataset.unit);
  const y = n => (height * (1 - n / top)).toFixed(1);

  if (!svg.hasChildNodes()) {
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("preserveAspectRatio", "none");
    for (const name of names) {
      svg.appendChild(document.createElementNS(svg.namespaceURI, "path")).setAttribute("class", name);
    }
  }
  let below = history.map(() => 0);
  names.forEach((name, i) => {
    const above = history.map((f, j) => stacked ? below[j] + f[name] : f[name]);
    const points = history.map((f, j) => `${x(f)},${y(above[j])}`);
    if (stacked) points.push(...history.map((f, j) => `${x(f)},${y(below[j])}`).reverse(), "Z");
    svg.children[i].setAttribute("d", "M" + points.join(" "));
    if (stacked) below = above;
  });
  svg.nextElementSibling.replaceChildren(...[`${shown / 1000} s ago`, "top: " + format(top, svg.dataset.unit), "now"].map(text => {
    const span = document.createElement("span");
    span.textContent = text;
    return span;
  }));
}

// scale returns a round number that is not below n; for bytes a power of two.
function scale(n, unit = "") {
  if (n < 10) return 10;
  if (unit.startsWith("B")) return 2 ** Math.ceil(Math.log2(n));
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find(m => m * power >= n) * power;
}

// showLoad changes the text at the beginning and the end only, since it is read aloud.
function showLoad({ Running, Answered, Failed }) {
  if (Running === last?.Running && (Running || Answered === last.Answered)) return;
  start.disabled = Running;
  if (Running) {
    load.textContent = "The load is running.";
  } else if (Answered + Failed > 0) {
    load.textContent = `The load has ended: ${plain.format(Answered)} requests answered, ${plain.format(Failed)} failed.`;
  }
  last = { Running, Answered };
}

start.onclick = async () => {
  start.disabled = true;
  try {
    const answer = await fetch("/load?for=8s", { method: "POST" });
    if (!answer.ok) throw await answer.text();
  } catch (err) {
    load.textContent = `The load has not started: ${err}`;
    start.disabled = false;
  }
};

const source = new EventSource("/events");
source.onopen = () => { live.textContent = "Live"; };
source.onerror = () => { live.textContent = "No connection, trying again …"; };
source.onmessage = event => {
  show(JSON.parse(event.data));
  if (++events >= limit) {
    source.close();
    live.textContent = `Stopped after ${events} events`;
  }
};
