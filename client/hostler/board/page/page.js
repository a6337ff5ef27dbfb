// Draws what /events tells: one JSON object for each change. Everything of a host is put in as text.
"use strict";

const byId = (id) => document.getElementById(id);
const open = new Set();
let told = { summary: "", hosts: [] };

function made(tag, words, attributes = {}) {
  const one = document.createElement(tag);
  if (words !== undefined) one.textContent = words;
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  return one;
}

const time = (unix) => new Date(unix * 1000).toLocaleTimeString();

function doors(host) {
  const names = Object.entries(host.doors);
  const up = names.filter(([, why]) => !why).length;
  return names.length === 0 ? "…" : `${up} of ${names.length}`;
}

function pending(host) {
  if (!host.waiting) return "";
  if (host.waiting.reverting) return "being taken back";
  return `taken back in ${Math.round(host.waiting.remaining_s)} s`;
}

function job(one) {
  const part = one.total > 0 ? ` ${Math.floor((100 * one.done) / one.total)} %` : "";
  return `${one.what}${part}`;
}

// A number with what is counted; "?" where nobody could be asked.
function count(list, word) {
  if (list === null) return "?";
  return list.length === 0 ? "" : `${list.length} ${word}`;
}

function certificates(host) {
  if (host.ending === null) return "?";
  if (host.ending.length === 0) return "";
  return `${host.ending.length} ending, first in ${host.ending[0].days_left} d`;
}

function drop(host) {
  if (host.drops === null) return "?";
  return host.drops.length === 0 ? "" : `${host.drops[0].rule} ${host.drops[0].packets}`;
}

function row(host) {
  const line = made("tr", undefined, { "data-host": host.host });
  const head = made("th", undefined, { scope: "row" });
  const button = made("button", host.host, {
    type: "button", "aria-expanded": String(open.has(host.host)),
    "aria-controls": `details-${host.host}`,
  });
  button.addEventListener("click", () => {
    if (!open.delete(host.host)) open.add(host.host);
    draw();
  });
  head.append(button);
  const level = Object.keys(host.doors).length === 0 ? "not asked yet" : host.level;
  line.append(
    head, made("td", level, { class: `level ${host.level}` }), made("td", doors(host)),
    made("td", pending(host)), made("td", host.jobs === null ? "?" : host.jobs.map(job).join(", ")),
    made("td", count(host.drift, "differ")), made("td", count(host.health, "to look at")),
    made("td", certificates(host)), made("td", drop(host)),
  );
  return line;
}

function details(host) {
  const line = made("tr", undefined, { id: `details-${host.host}` });
  const cell = made("td", undefined, { colspan: "9" });
  const list = made("dl");
  const say = (word, words) => {
    if (words) list.append(made("dt", word), made("dd", words));
  };
  say("Address", host.address);
  say("Version", host.version);
  say("Last answer", host.answered_unix_s > 0 ? time(host.answered_unix_s) : "none");
  for (const [domain, why] of Object.entries(host.doors)) say(`Door of ${domain}`, why);
  if (host.waiting) say("Pending", `${host.waiting.changes.join(", ")} by ${host.waiting.identity}`);
  for (const one of host.jobs ?? []) say("Job", `${job(one)} ${one.activity} (${one.name})`);
  for (const words of host.drift ?? []) say("Drift", words);
  for (const words of host.health ?? []) say("Disks", words);
  for (const one of host.ending ?? []) {
    say("Certificate", `${one.subject}: ${one.days_left} days left (${one.place})`);
  }
  for (const one of host.drops ?? []) say("Drops", `${one.rule}: ${one.packets} packets`);
  for (const words of host.problems) say("Problem", words);
  for (const words of host.notes) say("Not known", words);
  cell.append(list);
  line.append(cell);
  return line;
}

function draw() {
  const name = byId("name").value.toLowerCase();
  const shown = told.hosts.filter((host) =>
    host.host.toLowerCase().includes(name) && !(byId("only").checked && host.level === "well"));
  // What has the focus keeps it, or nobody could walk through a table that is drawn again.
  const focused = document.activeElement?.closest("tr[data-host]")?.dataset.host;
  const lines = [];
  for (const host of shown) {
    lines.push(row(host));
    if (open.has(host.host)) lines.push(details(host));
  }
  byId("hosts").replaceChildren(...lines);
  if (focused !== undefined) {
    lines.find((line) => line.dataset.host === focused)?.querySelector("button").focus();
  }
  if (byId("summary").textContent !== told.summary) byId("summary").textContent = told.summary;
}

function live(words, stale) {
  byId("live").classList.toggle("stale", stale);
  if (byId("live").textContent !== words) byId("live").textContent = words;
}

const events = new EventSource("events");
events.onmessage = (event) => {
  told = JSON.parse(event.data);
  live("live", false);
  draw();
};
events.onerror = () => live("not live: what is shown may be old", true);
byId("name").addEventListener("input", draw);
byId("only").addEventListener("change", draw);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
