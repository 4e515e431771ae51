// Switch of colours, sorting of tables, the place in the contents, and what models expected at the token under the pointer.
"use strict";

const root = document.documentElement;
const themes = ["auto", "light", "dark"];
const stored = { get() { try { return localStorage.getItem("fusion-theme"); } catch { return null; } },
  set(value) { try { localStorage.setItem("fusion-theme", value); } catch { /* a page from disk may keep nothing */ } } };
const button = document.querySelector(".theme");
function paint(theme) {
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  button.textContent = { auto: "◐ as the system", light: "○ light", dark: "● dark" }[theme];
  button.value = theme;
}
paint(themes.includes(stored.get()) ? stored.get() : "auto");
button.hidden = false;
button.addEventListener("click", () => {
  const next = themes[(themes.indexOf(button.value) + 1) % themes.length];
  stored.set(next);
  paint(next);
});

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const press = document.createElement("button");
    press.append(...head.childNodes);
    head.append(press);
    press.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const number = (text) => (text === "" || text === "–" ? NaN : Number(text.replaceAll(",", "")));
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)], [m, n] = [number(x), number(y)];
        if (Number.isNaN(m) !== Number.isNaN(n)) return Number.isNaN(m) ? 1 : -1; // what has no number stays below
        return down * (Number.isNaN(m) ? x.localeCompare(y) : m - n);
      });
      table.tBodies[0].append(...rows);
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
    });
  });
}

const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.getAttribute("href").slice(1), a]));
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) {
    links.forEach((a) => a.classList.remove("here"));
    links.get(entry.target.id)?.classList.add("here");
  }
}, { rootMargin: "0px 0px -75% 0px" });
links.forEach((_, id) => seen.observe(document.getElementById(id)));

const overlays = JSON.parse(document.getElementById("overlays").textContent);
const peek = document.getElementById("peek");
let shown = null;

function part(kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}
const visible = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍");
const share = (p) => (p >= 0.001 ? (100 * p).toFixed(1) + "%" : "<0.1%");

function row(name, text, p, kind) {
  const line = part("div", "row " + kind);
  const bar = part("span", "bar");
  bar.style.width = Math.max(1, 84 * p) + "px";
  line.append(part("span", "", text), bar, part("span", "", share(p)));
  return line;
}
function expected(model, colour, position) {
  const column = part("div");
  column.style.setProperty("--of", colour);
  column.append(part("h4", "", model));
  const found = position.top.findIndex(([text]) => text === position.text);
  position.top.forEach(([text, p], i) => column.append(row(model, visible(text), p, i === found ? "true" : "")));
  if (found < 0) column.append(row(model, visible(position.text), position.gold, "true"));
  const kept = position.top.reduce((sum, [, p]) => sum + p, found < 0 ? position.gold : 0);
  column.append(row(model, "everything else", Math.max(0, 1 - kept), "rest"));
  return column;
}
function show(token) {
  const frame = token.closest(".overlay"), overlay = overlays[frame.dataset.overlay];
  const lane = token.dataset.lane, index = Number(token.dataset.at), position = overlay.positions[lane][index];
  const other = lane === "pivot" ? frame.dataset.source : "pivot";
  const partner = token.dataset.partner === undefined ? null : Number(token.dataset.partner);
  const twin = partner === null ? null : frame.querySelector(`[data-lane="${CSS.escape(other)}"][data-at="${partner}"]`);
  const colour = (name) => frame.style.getPropertyValue(name === "pivot" ? "--pivot" : "--source");
  hide();
  const before = part("div", "before");
  if (position.start !== null) {
    const bytes = new TextEncoder().encode(overlay.response).slice(0, position.start);
    const text = [...new TextDecoder().decode(bytes)].slice(-48).join("");
    before.append(bytes.length ? visible(text) + "▏" : "start of the response ▏");
  }
  before.append(part("b", "", visible(position.text)));
  const models = part("div", "models");
  const both = { [lane]: position, ...(partner === null ? {} : { [other]: overlay.positions[other][partner] }) };
  for (const name of ["pivot", frame.dataset.source]) if (both[name]) models.append(expected(name, colour(name), both[name]));
  if (partner === null) models.append(part("div", "note", `No position of ${other} begins here, so nothing is compared.`));
  peek.replaceChildren(before, models);
  peek.hidden = false;
  const at = token.closest(".block").getBoundingClientRect(), size = peek.getBoundingClientRect();
  const left = Math.min(Math.max(12, at.left), innerWidth - size.width - 12);
  const below = at.bottom + 10 + size.height < innerHeight || at.top < size.height + 10;
  peek.style.left = left + scrollX + "px";
  peek.style.top = (below ? at.bottom + 10 : at.top - size.height - 10) + scrollY + "px";
  shown = [token, twin].filter(Boolean);
  shown.forEach((one) => one.classList.add("on"));
}
function hide() {
  peek.hidden = true;
  shown?.forEach((one) => one.classList.remove("on"));
  shown = null;
}
for (const [event, does] of [["pointerover", show], ["focusin", show]]) {
  document.addEventListener(event, (e) => { const token = e.target.closest?.(".token"); if (token) does(token); });
}
for (const event of ["pointerout", "focusout"]) {
  document.addEventListener(event, (e) => { if (e.target.closest?.(".token")) hide(); });
}
document.addEventListener("keydown", (e) => { if (e.key === "Escape") hide(); });
