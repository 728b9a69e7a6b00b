"""A headless Chromium that acts as a person does: by what is on the page."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.processes import find_program, make_folder, remove_folder

T = TypeVar("T")

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
# A bound against hanging, far above anything that is waited for.
PATIENCE_S = 45
# The tallest picture that anyone will look at.
PICTURE_HEIGHT_MAX = 3_000

SCREENSHOTS = Path(__file__).parent / "screenshots"

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """One browser with an empty profile, of one size and language."""

    def __init__(
        self,
        base_url: str,
        *,
        size: str = "desktop",
        language: str = "en",
        scripts: bool = True,
        user_agent: str = "",
        first_script: str = "",
    ) -> None:
        """`user_agent` is what the browser says of itself; `first_script` runs in every page before
        the page's own, as an app's browser adds to the pages that it shows."""
        self.base_url = base_url
        self.size = size
        self.folder = make_folder("chromium")
        options = Options()
        options.binary_location = find_program("chromium")
        for flag in (*_FLAGS, f"--user-data-dir={self.folder}", f"--lang={language}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(
            options=options, service=Service(find_program("chromedriver"))
        )
        width, height = SIZES[size]
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == "phone",
        )
        if user_agent:
            self.command("Emulation.setUserAgentOverride", userAgent=user_agent)
        if first_script:
            self.command("Page.addScriptToEvaluateOnNewDocument", source=first_script)
        if not scripts:
            self.command("Emulation.setScriptExecutionDisabled", value=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.driver.quit()
        remove_folder(self.folder)

    def command(self, name: str, **arguments: object) -> Any:
        """One command of the browser's own protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    @property
    def path(self) -> str:
        """The path of the page that is shown."""
        return urlsplit(self.driver.current_url).path

    def open(self, path: str) -> None:
        """Go to a page of the shop."""
        self.driver.get(f"{self.base_url}{path}")

    def wait(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until the condition gives something true."""
        found = WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.1).until(
            lambda _driver: condition(), f"waited in vain: {what}, at {self.driver.current_url}"
        )
        assert found is not None
        return found

    def find(self, element_id: str) -> WebElement:
        """The element with this id, waited for."""
        return self.wait(lambda: self._shown(element_id), f"#{element_id} is shown")

    def has(self, element_id: str) -> bool:
        """Whether the page shows this element now."""
        return self._shown(element_id) is not None

    def attribute(self, element_id: str, name: str) -> str:
        """An attribute of the element with this id, waited for."""
        return self._of(element_id, lambda element: element.get_attribute(name))

    def _of(self, element_id: str, question: Callable[[WebElement], T | None]) -> T:
        """Ask the element, again where the page was drawn anew in between."""

        def ask() -> T | None:
            element = self._shown(element_id)
            try:
                return None if element is None else question(element)
            except StaleElementReferenceException:
                return None

        return self.wait(ask, f"#{element_id} is shown")

    def _shown(self, element_id: str) -> WebElement | None:
        try:
            for element in self.driver.find_elements(By.ID, element_id):
                if element.is_displayed():
                    return element
        except StaleElementReferenceException:
            # The page was drawn anew while we looked at it.
            return None
        return None

    def press(self, element_id: str) -> None:
        """Press a button or a link and wait for the page that follows."""
        before = self.driver.find_element(By.TAG_NAME, "html").id

        def click(element: WebElement) -> bool:
            element.click()
            return True

        self._of(element_id, click)
        self.wait(
            lambda: self.driver.find_element(By.TAG_NAME, "html").id != before,
            f"another page after #{element_id}",
        )

    def fill(self, element_id: str, text: str) -> None:
        """Type into an emptied field."""
        field = self.find(element_id)
        field.clear()
        field.send_keys(text)

    def sign_in(self, login: str, password: str) -> None:
        """Sign in on the sign-in page."""
        self.open("/sign-in")
        self.fill("login", login)
        self.fill("password", password)
        self.press("sign-in")

    def picture(self, name: str) -> None:
        """Save the whole page as screenshots/<size>-<name>.png; nothing may stick out sideways."""
        width = self.command("Page.getLayoutMetrics")["cssContentSize"]["width"]
        assert width <= SIZES[self.size][0], f"{name} is {width} px wide on a {self.size}"
        height = self.command("Page.getLayoutMetrics")["cssContentSize"]["height"]
        clip = {
            **{"x": 0, "y": 0, "scale": 1, "width": width},
            "height": min(height, PICTURE_HEIGHT_MAX),
        }
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        SCREENSHOTS.mkdir(exist_ok=True)
        (SCREENSHOTS / f"{self.size}-{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the console said since last asked, but for the answers with an error status."""
        return [
            entry["message"]
            for entry in self._log("browser")
            if "Failed to load resource: the server responded with" not in entry["message"]
        ]

    def hosts(self) -> set[str]:
        """Every host:port that a page asked since last asked here."""
        asked = set()
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] != "Network.requestWillBeSent":
                continue
            parts = urlsplit(message["params"]["request"]["url"])
            if parts.scheme in {"http", "https", "ws", "wss"}:
                asked.add(parts.netloc)
        return asked

    def _log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since last asked; selenium leaves this method without annotations."""
        get_log: Callable[[str], list[dict[str, Any]]] = self.driver.get_log
        return get_log(kind)
