// A line chart of the last minutes, in SVG: the plot is stretched to the figure, and its labels are text beside it.

const NS = "http://www.w3.org/2000/svg";
const MINUTES = 5;
const SPAN = MINUTES * 60; // seconds
const HEIGHT = 100; // of the drawing, in units of its viewBox

/** Append a chart to `figure`; return a function that draws rows of [age, value] with a reading as text. */
export function makeChart(figure, { least, format }) {
  const svg = shape("svg", { viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  for (const y of [0, HEIGHT / 2, HEIGHT]) {
    svg.append(shape("line", { class: "rule", x1: 0, x2: SPAN, y1: y, y2: y }));
  }
  const area = svg.appendChild(shape("path", { class: "area" }));
  const trace = svg.appendChild(shape("path", { class: "trace" }));
  const top = scale("top", [""]);
  figure.append(top, svg, scale("foot", [`${MINUTES} min ago`, "now"]));
  const reading = figure.querySelector(".reading");
  const title = figure.querySelector("h2").textContent;

  return (rows, text) => {
    const most = niceCeiling(Math.max(least, ...rows.map(([, value]) => value)));
    const points = rows
      .filter(([age]) => age <= SPAN)
      .map(([age, value]) => `${(SPAN - age).toFixed(1)},${(HEIGHT * (1 - value / most)).toFixed(2)}`);
    trace.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    area.setAttribute("d", points.length ? outline(points) : "");
    top.firstChild.textContent = format(most);
    reading.textContent = text;
    svg.setAttribute("aria-label", `${title} over the last ${MINUTES} minutes: ${text}`);
  };
}

function outline(points) {
  const [first, last] = [points[0], points[points.length - 1]].map((point) => point.split(",")[0]);
  return `M${first},${HEIGHT}L${points.join("L")}L${last},${HEIGHT}Z`;
}

/** Return the least 1, 2 or 5 times a power of ten that is not below `value`. */
function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * (1 - 1e-9));
}

function shape(name, attributes) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  return made;
}

function scale(place, texts) {
  const made = document.createElement("div");
  made.className = `scale ${place}`;
  made.setAttribute("aria-hidden", "true"); // the label of the drawing has the same text
  for (const text of texts) {
    made.appendChild(document.createElement("span")).textContent = text;
  }
  return made;
}
