"use strict";
// Screen pictures that are dropped, chosen or photographed, and show both eyes of a patient side by side.

const waiting = [];
let busy = false;
let group = null;  // of the patient whose pictures come in

const SIDES = ["right", "left"];  // as one looks at a person: the right eye comes first

/** The section of a patient: the last one, unless it is of somebody else. */
function groupOf(patient) {
  if (group?.patient !== patient) {
    const title = make("h2", {}, patient || "Patient not named"), told = make("p"), eyes = make("div", {className: "eyes"});
    group = {patient, told, eyes, rows: []};
    at("found").prepend(make("section", {className: "patient", "aria-label": patient || "Patient not named"}, title, told, eyes));
  }
  return group;
}

function rank(eye) { return (SIDES.indexOf(eye) + SIDES.length + 1) % (SIDES.length + 1); }

/** Put a card among the patient's, and say what all of them come to. */
function add(to, row, card, verdicts) {
  to.rows.push(row);
  card.dataset.rank = rank(row.eye);
  const after = [...to.eyes.children].find(other => +other.dataset.rank > +card.dataset.rank);
  to.eyes.insertBefore(card, after ?? null);
  const of = (row, name) => row.eye ? `${name}, ${row.eye} eye` : name;
  const good = to.rows.filter(row => row.status === "ok"), none = to.rows.length - good.length;
  const those = value => good.flatMap(row => verdicts.filter(own => (row[own.name] ?? null) === value).map(own => of(row, own.title)));
  const calls = those(true), open = those(null);
  const missing = SIDES.filter(side => !to.rows.some(row => row.eye === side && row.status === "ok"));
  to.told.textContent = [
    calls.length ? `Called: ${calls.join("; ")}.` : good.length ? "Nothing is called." : "",
    open.length ? `Open: ${open.join("; ")}.` : "",
    none ? `Without a result: ${none} of ${to.rows.length}.` : "",
    missing.length === 1 ? `No result of the ${missing[0]} eye.` : "",
  ].filter(Boolean).join(" ");
}

async function send({file, patient, side}) {
  const body = new FormData();
  body.append(side, file, file.name || "picture");
  if (patient) body.append("patient", patient);
  const answer = await ask("v1/screenings?layers=1", {method: "POST", body});
  const name = file.name || "photograph";
  let row, layers = {contours: {}, fovea: null, heat: {}};
  if (answer.ok) ({screenings: [row], layers: [layers]} = await answer.json());
  else row = {name, status: "error", code: answer.status, reason: await refusal(answer), eye: null, warnings: [], model: [], model_sha256: []};
  const open = await catalogue();
  const verdicts = pointed(open.models.flatMap(model => model.verdicts), open, row);
  const again = () => {
    const body = new FormData();
    body.append(side, file, name);
    return row.status === "ok" ? asUrl("v1/screenings?photo=1", {method: "POST", body}) : null;
  };
  const card = show({row, layers, verdicts, name, photos: [() => URL.createObjectURL(file), again]});
  add(groupOf(patient), row, card, verdicts);
  document.querySelector(".tools").hidden = at("next").hidden = false;
  return answer.ok;
}

async function work() {
  if (busy) return;
  busy = true;
  let done = 0;
  try {
    while (waiting.length) {
      say(`Screening ${waiting[0].file.name}; ${waiting.length} to go …`);
      done += await send(waiting[0]);
      waiting.shift();
    }
    say(`${done} picture${done === 1 ? "" : "s"} screened.`);
  } catch {
    say("The service does not answer.", true);
  }
  busy = false;
}

function take(files) {
  const patient = at("patient").value.trim(), side = document.querySelector("[name=eye]:checked").value;
  waiting.push(...[...files].map(file => ({file, patient, side})));
  work();
}

for (const id of ["files", "camera"]) at(id).addEventListener("change", () => { take(at(id).files); at(id).value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  at("drop").classList.toggle("over", kind === "dragover");
  if (kind === "drop") take(event.dataTransfer.files);
});
at("next").addEventListener("click", () => {
  group = null;
  at("patient").value = "";
  document.querySelector("[name=eye][value=picture]").checked = true;
  at("next").hidden = true;
  at("patient").focus();
});
at("clear").addEventListener("click", () => {
  document.querySelectorAll("article").forEach(card => card.forget());
  at("found").replaceChildren();
  group = null;
  document.querySelector(".tools").hidden = at("next").hidden = true;
  say("Cleared.");
  at("files").focus();
});
