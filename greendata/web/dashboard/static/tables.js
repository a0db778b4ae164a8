// The tables: queries that run and wait, crawls, finished queries by label, and failures. Values from the server become text,
// never markup.

import { cancelJob } from "./cancel.js";
import { age, ago, bound, count } from "./numbers.js";

const SAID = 15000; // ms until a message disappears
const ENDS = "The query stops after the part that it computes now.";
const COMPUTES_ON = "The request gets an answer at once; Polars computes on until the query has finished.";
const NEVER_STARTS = "The query will not start.";

const said = document.getElementById("said");
const note = document.getElementById("note");
const more = document.getElementById("more-queue");
const jobs = jobTable("jobs", (job) => (job.stops ? ENDS : COMPUTES_ON));
const queue = jobTable("queue", () => NEVER_STARTS);
const labels = table("labels");
const crawls = document.getElementById("crawls-section"); // a server seldom crawls: without a crawl it is not shown
const failures = table("failures");
let quiet = 0; // the timer that clears a message

export function showJobs(found) {
  note.hidden = !found.some((job) => !job.stops && !job.internal && !job.abandoned);
  jobs.update(found);
}

export function showQueue(found, total) {
  const queries = found.filter((job) => !job.internal);
  queue.update(queries);
  const rest = total - queries.length;
  more.hidden = rest <= 0;
  setText(more, rest > 0 ? `and ${count(rest)} more` : "");
}

export function showLabels(found) {
  fillRows(labels, found, labelRow, (cells, label) => {
    setName(cells[0].firstChild, label.label);
    const times = [...label.run, label.wait[1]].map(bound);
    const texts = [label.done, label.failed, label.cancelled].map(count).concat(times);
    texts.forEach((text, index) => setText(cells[index + 1], text));
  });
}

export function showCrawls(found) {
  const body = crawls.querySelector("tbody");
  fillRows({ body, show: (isFull) => { crawls.hidden = !isFull; } }, found, crawlRow, (cells, crawl) => {
    setName(cells[0].firstChild, crawl.label);
    const todo = crawl.todo === null ? "" : count(crawl.todo);
    const numbers = [count(crawl.pages), todo, count(crawl.failed), (crawl.bytes / 1e6).toFixed(1)];
    const rest = [count(crawl.hosts_waiting), crawl.pages_per_second.toFixed(1), age(crawl.seconds)];
    [...numbers, ...rest].forEach((text, index) => setText(cells[index + 1], text));
  });
}

export function showFailures(found) {
  fillRows(failures, found, failureRow, ([label, error, when], failure) => {
    setName(label.firstChild, failure.label);
    setText(label.lastChild, failure.count > 1 ? `${count(failure.count)} times` : "");
    setText(error.firstChild, failure.error);
    setText(error.lastChild, failure.text ?? "");
    setText(when, ago(failure.age));
  });
}

/** Return a table of jobs with buttons. A row stays, and keeps its focus, as long as its job is listed. */
function jobTable(id, consequence) {
  const place = table(id);
  const rowOf = new Map(); // by the id of the job
  return {
    update: (found) => {
      const ids = new Set(found.map((job) => job.id));
      for (const [key, row] of rowOf) {
        if (!ids.has(key)) {
          rowOf.delete(key);
          takeOut(row.element);
        }
      }
      for (const job of found) {
        if (!rowOf.has(job.id)) {
          rowOf.set(job.id, jobRow(job, consequence(job)));
        }
        const row = rowOf.get(job.id);
        setText(row.age, age(job.seconds));
        if (job.abandoned && !row.isOver) {
          row.isOver = true;
          row.finish(job.stops ? "cancelled, ends soon" : "cancelled, still computing");
        }
        place.body.append(...(row.element.isConnected ? [] : [row.element]));
      }
      place.show(found.length > 0);
    },
  };
}

function jobRow(job, consequence) {
  const label = rowHead(job.label);
  const details = [job.key, job.origin, job.internal ? "a job of greendata's own" : null];
  label.append(...details.filter((text) => text !== null).map((text) => element("span", "detail", text)));
  const since = element("td", "number");
  const action = element("td", "action");
  if (!job.internal) {
    action.append(cancelButton(job, consequence));
  }
  const row = element("tr");
  row.append(label, since, action);

  const finish = (text) => {
    const hadFocus = action.contains(document.activeElement);
    action.replaceChildren();
    label.append(element("span", "detail", text));
    if (hadFocus) {
      focusNear(row);
    }
  };
  return { element: row, age: since, isOver: false, finish };
}

function cancelButton(job, consequence) {
  const button = element("button", "", "Cancel");
  button.type = "button";
  button.title = consequence;
  button.setAttribute("aria-label", `Cancel ${job.label}`);
  button.addEventListener("click", () => press(button, job));
  return button;
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

function labelRow() {
  return numbersRow([false, false, true, true, false, true, true]);
}

function crawlRow() {
  return numbersRow([false, true, false, true, true, false, false]);
}

/** Return a row of a name and numbers, of which those that are `wide` are hidden on narrow screens. */
function numbersRow(columns) {
  const row = element("tr");
  row.append(rowHead(""));
  for (const wide of columns) {
    row.append(element("td", wide ? "number wide" : "number"));
  }
  return row;
}

function failureRow() {
  const label = rowHead("");
  label.append(element("span", "detail"));
  const error = element("td", "error");
  error.append(element("span"), element("span", "detail"));
  const row = element("tr");
  row.append(label, error, element("td", "number"));
  return row;
}

function rowHead(text) {
  const made = element("th");
  made.scope = "row";
  setName(made.appendChild(element("span", "name")), text);
  return made;
}

/** Fill a table with one row for each of `found`. */
function fillRows(place, found, makeRow, fill) {
  while (place.body.rows.length > found.length) {
    place.body.deleteRow(-1);
  }
  found.forEach((each, index) => fill((place.body.rows[index] ?? place.body.appendChild(makeRow())).cells, each));
  place.show(found.length > 0);
}

function takeOut(row) {
  const hadFocus = row.contains(document.activeElement);
  if (hadFocus) {
    focusNear(row);
  }
  row.remove();
}

/** Give the focus to the button after this row's in its table, or to one before, or to the heading of the section. */
function focusNear(row) {
  const rows = [...row.parentElement.rows];
  const place = rows.indexOf(row);
  const order = [...rows.slice(place + 1), ...rows.slice(0, place).reverse()];
  const next = order.map((each) => each.querySelector("button")).find((each) => each !== null);
  (next ?? row.closest("section").querySelector("h2")).focus();
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

function setName(node, text) {
  setText(node, text);
  node.title = text; // a long one is truncated
}

function setText(node, text) {
  if (node.textContent !== text) {
    node.textContent = text; // only on change, so that a selection is kept
  }
}
