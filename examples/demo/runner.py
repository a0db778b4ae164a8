"""One measured run: start a server, warm it up, load it from another process, and stop it."""

__all__ = ("measure",)

import http.client
from collections.abc import Callable, Mapping

from examples.demo.figures import DemoError, Load, Run
from examples.demo.load import drive_elsewhere, fetch
from examples.demo.server import Server, serving

LOAD = Load()


def measure(
    name: str,
    load: Load = LOAD,
    *,
    app: str = "examples.legacy_app:app",
    env: Mapping[str, str] | None = None,
    port: int = 0,
    tick: Callable[[str], None] = lambda stage: None,
) -> Run:
    """Run `app` on any port, and put `load` on it.

    Args:
        name: the name of the run in the table and in the picture.
        env: variables for the server, in addition to this process's environment.
        tick: called with the state many times a second; an error that it raises ends the run.

    Raises:
        DemoError: the server or the load failed; the text has the end of the server's stderr.
    """
    with serving(app, env=env, port=port, tick=lambda: tick("starting")) as server:
        tick("first report")
        try:
            ask_once(server, load.report_path)
            outcome = drive_elsewhere(load, host=server.host, port=server.port, tick=lambda: tick("loading"))
        except DemoError as error:
            server.check()
            raise DemoError(f"{error}; the server's stderr ends with:\n{server.tail()}") from error
        return Run(name, outcome, server.silences())


def ask_once(server: Server, path: str) -> None:
    """Request the first report, which makes missing data and is not part of the load."""
    try:
        status, _ = fetch(server.host, server.port, path)
    except (OSError, http.client.HTTPException) as error:
        raise DemoError(f"the first report failed: {error!r}") from error
    if status != http.client.OK:
        raise DemoError(f"the response to the first report was {status}")
