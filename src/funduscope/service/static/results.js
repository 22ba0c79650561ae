"use strict";
// Look through the results of a run: the service filters, sorts and pages; one picture at a time is drawn.

const ROWS = 50;
const TEXTS = {number: "No.", name: "Picture", patient: "Patient", eye: "Eye", status: "Status", vcdr: "vCDR"};
let wanted = {};  // what the list is filtered and sorted by
let offset = 0, found = 0, verdicts = null;

function query(more = {}) {
  const given = Object.entries({...wanted, ...more}).filter(([, value]) => value !== "" && value != null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}


// the list

async function list() {
  say("Looking …");
  const answer = await asJson(`v1/results${query({offset, limit: ROWS})}`);
  found = answer.found;
  if (!verdicts) begin(answer.verdicts);
  at("rows").replaceChildren(...answer.rows.map(line));
  at("part").value = Math.floor(offset / ROWS) + 1;
  at("parts").textContent = at("part").max = Math.max(1, Math.ceil(found / ROWS));
  at("back").disabled = !offset;
  at("on").disabled = offset + ROWS >= found;
  const counts = Object.entries(answer.counts).map(([code, count]) => `${count} ${code}`).join(", ");
  const last = Math.min(offset + ROWS, found);
  say(`${found ? `${offset + 1} to ${last} of ${found}` : "None found"}. The run has ${answer.pictures} pictures: ${counts || "no result yet"}.`);
  for (const head of at("heads").children) {
    const by = (wanted.sort ?? "number").replace("-", "") === head.dataset.column;
    if (by) head.setAttribute("aria-sort", wanted.sort?.startsWith("-") ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
}

/** Heads and filters, by what the run's models decide. */
function begin(given) {
  verdicts = given;
  const columns = [...Object.entries(TEXTS), ...given.map(own => [`${own.name}_probability`, capital(own.title)]), ["warnings", "Warnings"]];
  at("heads").append(...columns.map(([column, title]) => {
    const button = make("button", {type: "button"}, title), head = make("th", {role: "columnheader", scope: "col"}, button);
    head.dataset.column = column;
    button.addEventListener("click", () => {
      wanted = {...wanted, sort: head.getAttribute("aria-sort") === "ascending" ? `-${column}` : column};
      go(0);
    });
    return head;
  }));
  at("calls").append(...given.map(own => make("label", {}, `${capital(own.title)} `, make("select", {name: own.name},
    make("option", {value: ""}, "any"), ...[...WORDS.values()].map(text => make("option", {}, text))))));
}

function line(row) {
  const name = make("button", {type: "button", className: "name"}, ...folding(row.name));
  name.addEventListener("click", () => { remember({picture: row.number}); attempt(() => look(row.number)); });
  name.dataset.number = row.number;
  const cell = (label, ...children) => make("td", {role: "cell", "data-label": label}, ...children);
  const text = column => cell(TEXTS[column], row[column] ?? "");
  return make("tr", {role: "row"},
    cell(TEXTS.number, row.number),
    make("th", {role: "rowheader", scope: "row"}, name),
    text("patient"), text("eye"),
    row.status === "ok" ? text("status") : cell(TEXTS.status, make("span", {className: "bad"}, `${row.status}, ${row.code}`)),
    cell(TEXTS.vcdr, row.vcdr == null ? "" : number(row.vcdr)),
    ...verdicts.map(own => row.status !== "ok" ? cell(capital(own.title))
      : cell(capital(own.title), called(row[own.name]), ` ${number(row[`${own.name}_probability`])}`)),
    cell("Warnings", row.warnings.map(code => WARNINGS[code] ?? code).join("; ")));
}

function go(to) {
  offset = Math.max(0, to);
  remember({});
  attempt(list);
}


// one result

async function look(number) {
  at("many").hidden = true;
  at("one").hidden = false;
  say("");
  const result = await asJson(`v1/results/${number}${query()}`);
  const row = result.screening, photos = result.photo ? [() => asUrl(`v1/results/${number}/photo`)] : [];
  const card = show({row, layers: result.layers, verdicts: pointed(verdicts, await catalogue(), row), name: row.name, photos});
  forget();
  if (!result.photo) card.querySelector("h3").after(make("p", {className: "hint"}, "The photograph is gone, or has changed since it was screened."));
  const title = make("h2", {tabIndex: -1}, row.patient ? `Patient ${row.patient}` : `Picture ${number}`);
  at("found").replaceChildren(make("div", {className: "patient"}, title, card));
  at("place").textContent = result.place == null ? "Not among those that are shown" : `${result.place + 1} of those found`;
  for (const [id, to] of [["previous", result.previous], ["next", result.next]]) {
    at(id).disabled = to == null;
    at(id).onclick = () => { remember({picture: to}); attempt(() => look(to)); };
  }
  at("all").onclick = () => { remember({}); attempt(() => back(number)); };
  if (document.activeElement === document.body) title.focus();
}

function forget() { document.querySelectorAll("article").forEach(card => card.forget()); }

async function back(number) {
  forget();
  at("found").replaceChildren();
  at("one").hidden = true;
  at("many").hidden = false;
  await list();
  document.querySelector(`[data-number="${number}"]`)?.focus();
}


// the browser's own way back; what was asked for is kept beside the address, not in it, as it may name a patient

function remember(what) { history.pushState({wanted, offset, ...what}, ""); }

async function recall(state) {
  ({wanted, offset} = {wanted: {}, offset: 0, ...state});
  if (!verdicts) await list();
  for (const field of at("filter").elements) if (field.name) field.value = wanted[field.name] ?? "";
  if (state?.picture != null) await look(state.picture);
  else await back();
}

async function attempt(what) {
  try { await what(); }
  catch (error) { say(error instanceof TypeError ? "The service does not answer." : error.message, true); }
}

at("filter").addEventListener("submit", event => {
  event.preventDefault();
  wanted = {sort: wanted.sort, ...Object.fromEntries(new FormData(at("filter")))};
  go(0);
});
at("filter").addEventListener("change", event => { if (event.target.matches("select")) at("filter").requestSubmit(); });
at("back").addEventListener("click", () => go(offset - ROWS));
at("on").addEventListener("click", () => go(offset + ROWS));
at("part").addEventListener("change", () => go(ROWS * (Math.min(Math.max(1, Math.floor(+at("part").value) || 1), +at("part").max) - 1)));
addEventListener("popstate", event => attempt(() => recall(event.state)));
attempt(() => recall(history.state));
