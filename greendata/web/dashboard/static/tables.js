// The running queries and the last failures. Values from the server become text, never markup.

import { cancelJob } from "./cancel.js";
import { age, ago } from "./numbers.js";

const SAID = 15000; // ms until a message disappears

const said = document.getElementById("said");
const jobs = table("jobs");
const failures = table("failures");
const rowOf = new Map(); // rows of the running queries by id: a row stays, and keeps its focus, as long as its query
let quiet = 0; // the timer that clears a message

export function showJobs(found) {
  const ids = new Set(found.map((job) => job.id));
  for (const [id, row] of rowOf) {
    if (!ids.has(id)) {
      rowOf.delete(id);
      takeOut(row.element);
    }
  }
  for (const job of found) {
    if (!rowOf.has(job.id)) {
      rowOf.set(job.id, jobRow(job));
    }
    const row = rowOf.get(job.id);
    setText(row.age, age(job.seconds));
    if (job.abandoned && !row.isOver) {
      row.isOver = true;
      row.finish();
    }
    jobs.body.append(...(row.element.isConnected ? [] : [row.element]));
  }
  jobs.show(found.length > 0);
}

export function showFailures(found) {
  while (failures.body.rows.length > found.length) {
    failures.body.deleteRow(-1);
  }
  found.forEach((failure, index) => {
    const row = failures.body.rows[index] ?? failures.body.appendChild(failureRow());
    const [label, error, when] = row.cells;
    setText(label.firstChild, failure.label);
    label.firstChild.title = failure.label;
    setText(error.firstChild, failure.error);
    setText(error.lastChild, failure.text ?? "");
    setText(when, ago(failure.age));
  });
  failures.show(found.length > 0);
}

function jobRow(job) {
  const label = rowHead(job.label);
  if (job.key !== null) {
    label.append(element("span", "detail", job.key));
  }
  const since = element("td", "number");
  const action = element("td", "action");
  const button = action.appendChild(element("button", "", "Cancel"));
  button.type = "button";
  button.setAttribute("aria-label", `Cancel ${job.label}`);
  button.addEventListener("click", () => press(button, job));
  const row = element("tr");
  row.append(label, since, action);

  const finish = () => {
    const hadFocus = action.contains(document.activeElement);
    action.replaceChildren();
    label.append(element("span", "detail", "cancelled, still computing"));
    if (hadFocus) {
      focusNear(row);
    }
  };
  return { element: row, age: since, isOver: false, finish };
}

async function press(button, job) {
  if (button.getAttribute("aria-disabled") === "true") {
    return; // not `disabled`: that would take the focus away
  }
  button.setAttribute("aria-disabled", "true");
  button.textContent = "Cancelling";
  const { isOver, text } = await cancelJob(job.id);
  say(`${job.label} ${text}`);
  if (!isOver) {
    button.removeAttribute("aria-disabled");
    button.textContent = "Cancel";
  }
}

function say(text) {
  said.textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => said.replaceChildren(), SAID);
}

function failureRow() {
  const error = element("td", "error");
  error.append(element("span"), element("span", "detail"));
  const row = element("tr");
  row.append(rowHead(""), error, element("td", "number"));
  return row;
}

function rowHead(text) {
  const made = element("th");
  made.scope = "row";
  made.appendChild(element("span", "name", text)).title = text; // a long one is truncated
  return made;
}

function takeOut(row) {
  const hadFocus = row.contains(document.activeElement);
  if (hadFocus) {
    focusNear(row);
  }
  row.remove();
}

/** Give the focus to the button after this row's, or to one before, or to the heading. */
function focusNear(row) {
  const rows = [...jobs.body.rows];
  const place = rows.indexOf(row);
  const order = [...rows.slice(place + 1), ...rows.slice(0, place).reverse()];
  const next = order.map((each) => each.querySelector("button")).find((each) => each !== null);
  (next ?? document.getElementById("jobs-title")).focus();
}

function table(id) {
  const found = document.getElementById(id);
  const none = document.getElementById(`no-${id}`);
  return {
    body: found.tBodies[0],
    show: (isFull) => {
      found.hidden = !isFull;
      none.hidden = isFull;
    },
  };
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text; // only on change, so that a selection is kept
  }
}
