// Show the state of the server once a second, while the page is visible.

import { makeChart } from "./chart.js";
import { showCrawls, showFailures, showJobs, showLabels, showQueue } from "./tables.js";
import { count, milliseconds } from "./numbers.js";

const SILENCE = 4000; // ms without an event until the page says so
const PAUSE = 3000; // ms until it connects again after the browser has given up

const connection = document.getElementById("connection");
const drawLag = makeChart(document.getElementById("lag-chart"), { least: 10, format: milliseconds });
const drawQueue = makeChart(document.getElementById("queue-chart"), { least: 5, format: count });

let source = null;
let silence = 0; // timers
let again = 0;

function follow() {
  leave();
  source = new EventSource("events");
  source.addEventListener("message", (event) => {
    show(JSON.parse(event.data));
    showConnection("live", "Live");
    listen();
  });
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) {
      again = setTimeout(follow, PAUSE);
    }
  });
  listen();
}

function leave() {
  source?.close();
  clearTimeout(silence);
  clearTimeout(again);
}

function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => showConnection("lost", "No response, trying again"), SILENCE);
}

function showConnection(state, text) {
  if (connection.className !== state) {
    connection.className = state;
    connection.textContent = text;
  }
}

function show(seen) {
  put("pid", String(seen.pid));
  for (const name of ["running", "queued", "done", "failed", "cancelled"]) {
    put(name, count(seen.queries[name]));
  }
  put("rejected", count(seen.pool.rejected));
  put("internal", `and ${count(seen.queries.internal_jobs)} internal jobs`);
  put("workers", `of ${count(seen.max_workers)} threads`);
  put("queue-limit", `of ${count(seen.max_queue)}`);
  drawLag(column(seen.history, 1), lagReading(seen));
  drawQueue(column(seen.history, 2), queueReading(seen));
  showJobs(seen.jobs);
  showQueue(seen.queue, seen.queries.queued);
  showCrawls(seen.crawls);
  showLabels(seen.labels);
  showFailures(seen.failures);
}

function column(history, index) {
  return history.map((second) => [second[0], second[index]]);
}

function lagReading(seen) {
  if (!seen.history.length) {
    return "not measured yet";
  }
  return `${milliseconds(seen.lag)} now, ${milliseconds(most(seen.history, 1))} at most`;
}

function queueReading(seen) {
  return `${count(seen.pool.queued)} now, ${count(Math.max(seen.pool.queued, most(seen.history, 2)))} at most`;
}

function most(history, index) {
  return Math.max(0, ...history.map((second) => second[index]));
}

function put(id, text) {
  document.getElementById(id).textContent = text;
}

document.addEventListener("visibilitychange", () => (document.hidden ? leave() : follow()));
follow();
