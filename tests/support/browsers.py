"""A real browser for tests of the page: Debian's chromium, driven by selenium. Without it, the tests are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ("CONTRAST", "Browser", "opened_browser")

# A script that returns the lowest contrast between a visible text and its background (WCAG 2.2), and its element.
CONTRAST = """
const light = (color) => {
  const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map((each) => {
    const part = each / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = getComputedStyle(each).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const shown = [...document.body.querySelectorAll("*")].filter((each) =>
  each.checkVisibility() && [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
return shown.map((each) => {
  const pair = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
  return [(pair[0] + 0.05) / (pair[1] + 0.05), each.outerHTML.slice(0, 60)];
}).sort((a, b) => a[0] - b[0])[0];
"""


class Browser:
    """One open browser. ``driver`` is selenium's."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: object) -> Any:
        """Run *script*, the body of a function, in the page, and return its value."""
        return self.driver.execute_script(script, *arguments)

    def show_as(self, theme: str, *, width: int, height: int = 900) -> None:
        """Emulate a device with that theme (``"light"``, ``"dark"``) and width in CSS pixels."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})

    def console(self) -> list[str]:
        """Return what the page has logged since the last call, including errors of the network and of its policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def opened_browser(folder: Path) -> Iterator[Browser]:
    """Open a headless browser with a profile in *folder*."""
    program, controller = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or controller is None:
        pytest.skip("no browser here: Debian has it as chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", f"--user-data-dir={folder / 'profile'}", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # root has no sandbox
    driver = webdriver.Chrome(options, Service(controller))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
