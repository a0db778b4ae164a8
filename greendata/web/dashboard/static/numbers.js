// Numbers as text for readers.

const LOCALE = "en";

export function count(number) {
  return number.toLocaleString(LOCALE);
}

/** Format milliseconds; from one second on, in seconds. */
export function milliseconds(value) {
  if (value >= 1000) {
    return `${trim(value / 1000)} s`;
  }
  return `${value < 10 ? trim(value) : Math.round(value)} ms`;
}

/** Format a bound of a duration, given in milliseconds: null stands for more than a minute, 0 for no duration. */
export function bound(value) {
  if (value === null) {
    return "> 1 min";
  }
  return value === 0 ? "–" : `≤ ${milliseconds(value)}`;
}

/** Format the age of a running query, given in seconds. */
export function age(seconds) {
  if (seconds < 10) {
    return `${seconds.toFixed(1)} s`;
  }
  const whole = Math.floor(seconds);
  if (whole < 60) {
    return `${whole} s`;
  }
  return whole < 3600
    ? `${Math.floor(whole / 60)} min ${whole % 60} s`
    : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Format how long ago something was, given in seconds and rounded down to one unit. */
export function ago(seconds) {
  if (seconds < 60) {
    return `${seconds} s ago`;
  }
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

function trim(value) {
  return String(Number(value.toFixed(1)));
}
