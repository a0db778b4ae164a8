// Numbers as people read them.

const LOCALE = "en";

export function count(number) {
  return number.toLocaleString(LOCALE);
}

/** Milliseconds, in seconds from one on. */
export function milliseconds(value) {
  if (value >= 1000) {
    return `${trim(value / 1000)} s`;
  }
  return `${value < 10 ? trim(value) : Math.round(value)} ms`;
}

/** How long something has been going on, from seconds. */
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

/** How long ago something was, from seconds: only as exact as anybody wants it. */
export function ago(seconds) {
  if (seconds < 60) {
    return `${seconds} s ago`;
  }
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ago` : `${Math.floor(seconds / 3600)} h ago`;
}

function trim(value) {
  return String(Number(value.toFixed(1)));
}
