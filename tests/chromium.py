"""A page in the installed Chromium, headless, over the DevTools protocol on two pipes: nothing but the browser is needed."""

import base64
import io
import json
import math
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from queue import Empty, Queue

import numpy as np

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60  # for an answer, on a busy machine


class Page:
    """A tab. `events` has what the browser told, by method: requests, console messages, exceptions."""

    def __init__(self, inward, outward):
        self._inward, self._outward, self._number, self._session = inward, outward, 0, None
        self._answers, self.events = Queue(), []
        threading.Thread(target=self._listen, daemon=True).start()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._inward.write(json.dumps(message).encode() + b"\0")
        self._inward.flush()
        while True:
            try:
                answer = self._answers.get(timeout=SECONDS)
            except Empty:
                raise TimeoutError(f"Chromium did not answer {method}") from None
            if answer["id"] == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, url, width=1280, height=900, scheme="light"):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=url)
        self.evaluate("new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', () => done()))")

    def evaluate(self, expression):
        found = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def box(self, selector):
        """x, y, width and height in the page, in whole pixels, on which pictures are painted."""
        found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y, width, height = self.evaluate(f"(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])({found})")
        return math.floor(x + 0.5), math.floor(y + 0.5), width, height

    def picture(self, box=None):
        """(H, W, 3) uint8 of the page, or of a box of it."""
        return decode_png(self.png(box))

    def png(self, box=None):
        clip = {"clip": {**dict(zip(("x", "y", "width", "height"), box)), "scale": 1}} if box else {}
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, **clip)
        return base64.b64decode(shot["data"])

    def drag(self, start, end):
        """With the mouse, from a place in the window to another, in steps as a hand does."""
        places = [[a + (b - a) * step / 8 for a, b in zip(start, end)] for step in range(9)]
        self._mouse("mouseMoved", places[0], 0)
        self._mouse("mousePressed", places[0], 1)
        for place in places[1:]:
            self._mouse("mouseMoved", place, 1)
        self._mouse("mouseReleased", places[-1], 0)
        self._settle()

    def press(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"ArrowRight": 39, "Tab": 9}[key]
            )

    def _settle(self):
        """Input is handled with the next picture, and shown with the one after."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def told(self, *methods):
        return [event["params"] for event in self.events if event["method"] in methods]

    def _mouse(self, kind, place, buttons):
        left = {"button": "left" if buttons or kind == "mouseReleased" else "none", "clickCount": int(kind != "mouseMoved")}
        self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], buttons=buttons, **left)

    def _listen(self):
        rest = b""
        while data := self._outward.read1(1 << 20):
            *messages, rest = (rest + data).split(b"\0")
            for message in map(json.loads, messages):
                self._answers.put(message) if "id" in message else self.events.append(message)


@contextmanager
def chromium():
    """A page; the browser ends with it."""
    to_browser, inward = os.pipe()
    outward, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"]
        command = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        browser = subprocess.Popen(
            ["bash", "-c", command, "bash", BROWSER, *flags, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        with os.fdopen(inward, "wb") as writer, os.fdopen(outward, "rb") as reader:
            try:
                yield Page(writer, reader)
            finally:
                browser.terminate()
                browser.wait()


def decode_png(data):
    import av

    with av.open(io.BytesIO(data)) as container:
        return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgb24"))
