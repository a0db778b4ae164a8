// The request of the cancel button.

const ATTEMPTS = 12;
const PAUSE = 2500; // ms: longer than a server keeps an idle connection, so that the next one may reach another worker
const OUTCOMES = {
  204: "was cancelled.",
  403: "was not cancelled: the server refused. Reload the page.",
  404: "had already ended.",
  409: "was not cancelled: other workers responded. Try again.",
};

/** Cancel the job with this id; return whether it is over, and the outcome as text to follow its name. */
export async function cancelJob(id) {
  let status = 409;
  for (let attempt = 0; attempt < ATTEMPTS && status === 409; attempt += 1) {
    if (attempt) {
      await new Promise((resume) => setTimeout(resume, PAUSE));
    }
    status = await ask(id);
  }
  const text = OUTCOMES[status] ?? "was not cancelled: unexpected response from the server. Try again.";
  return { isOver: status === 204 || status === 404, text };
}

async function ask(id) {
  try {
    const headers = { "X-Greendata-Token": token() };
    const answer = await fetch(`cancel/${encodeURIComponent(id)}`, { method: "POST", headers });
    return answer.status;
  } catch {
    return 0;
  }
}

function token() {
  const found = document.cookie.match(/(?:^|; )greendata-token=([^;]*)/);
  return found ? found[1] : "";
}
