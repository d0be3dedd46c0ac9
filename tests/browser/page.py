"""The report in a browser, as its reader meets it: opened from disk, looked at, clicked."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.remote.webelement import WebElement
from tenacity import retry, retry_if_exception_type, stop_after_attempt

T = TypeVar("T")
PICTURES = Path(__file__).resolve().parents[2] / "runs" / "browser"
WITHIN_S = 30.0


@retry(retry=retry_if_exception_type(WebDriverException), stop=stop_after_attempt(3), reraise=True)
def _start(options: webdriver.ChromeOptions) -> webdriver.Chrome:
    """On a busy machine a browser may give up its start. It is no part of what is tested."""
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


class Page:
    """A tab. `requests` and `complaints` hold what was asked and logged since the last look."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        flags = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars",
                 "--disable-background-networking", "--no-first-run"]  # fmt: skip
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to sandbox root's tabs
        for flag in flags:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = _start(options)

    def quit(self) -> None:
        self.driver.quit()

    def reset(self) -> None:
        self.driver.get("about:blank")
        self.look(1280, 900)
        for kind in ("browser", "performance"):
            self.driver.get_log(kind)

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """At another size or in the dark."""
        command = self.driver.execute_cdp_cmd
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        command("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, path: Path, address: str = "") -> None:
        """Open the file and wait until its script has done everything."""
        # From a blank page: only the address' part behind # would not load it anew.
        self.driver.get("about:blank")
        self.driver.get(path.as_uri() + address)
        self.until(lambda: self.run("return document.documentElement.dataset.ready") == "yes")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: Callable[[], T], within_s: float = WITHIN_S) -> T:
        """The condition's value once it is truthy."""
        deadline = time.monotonic() + within_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within_s} s; the browser says: {self.log()}")
            time.sleep(0.02)
        return value

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """The text of an element, shown or not."""
        return str(
            self.run("return document.querySelector(arguments[0])?.textContent", selector) or ""
        )

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        element = self.one(selector)
        element.clear()
        element.send_keys(text)

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def log(self) -> list[str]:
        """What the console got, Bokeh's own greetings left out."""
        entries = self.driver.get_log("browser")
        return [str(each["message"]) for each in entries if each["level"] != "INFO"]

    def requests(self) -> list[str]:
        """Every address that was asked for over whatever scheme."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                found.append(parameters.get("url") or parameters["request"]["url"])
        return found

    def cpu_s(self) -> float:
        """Seconds of the processor that the page's thread has used: others do not count in."""
        command = self.driver.execute_cdp_cmd
        command("Performance.enable", {"timeDomain": "threadTicks"})
        metrics = command("Performance.getMetrics", {})["metrics"]
        return next(float(each["value"]) for each in metrics if each["name"] == "TaskDuration")

    def picture(self, name: str) -> None:
        """Keep the whole page as PNG files, to be looked at."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        command = self.driver.execute_cdp_cmd
        size = command("Page.getLayoutMetrics", {})["cssContentSize"]
        for number, top in enumerate(range(0, int(size["height"]), 2400)):
            height = min(2400, size["height"] - top)
            clip = {"x": 0, "y": top, "width": size["width"], "height": height, "scale": 1}
            shot = command("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
            (PICTURES / f"{name}-{number}.png").write_bytes(base64.b64decode(shot["data"]))
