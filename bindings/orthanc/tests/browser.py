"""Headless Chromium through its debugging pipe. Standard library only. SPDX-License-Identifier: GPL-3.0-or-later"""
import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


def program():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page. What it asks of the network is in .requests, what goes wrong in .errors."""

    def __init__(self, width=1280, height=900, mobile=False):
        self.dir = tempfile.mkdtemp(prefix="radz-browser-")
        self.requests, self.errors, self.ids, self.rest, self.session = [], [], itertools.count(1), b"", None
        inner_read, self.out = os.pipe()
        self.inp, inner_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-extensions",
                 "--hide-scrollbars", "--remote-debugging-pipe", "--user-data-dir=" + self.dir]
        shell = 'exec "$0" "$@" 3<&%d 4>&%d' % (inner_read, inner_write)
        self.process = subprocess.Popen(["sh", "-c", shell, program(), *flags], pass_fds=(inner_read, inner_write),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(inner_read), os.close(inner_write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.size(width, height, mobile)

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        os.close(self.inp), os.close(self.out)
        shutil.rmtree(self.dir, ignore_errors=True)

    def receive(self, seconds):
        until = time.time() + seconds
        while b"\0" not in self.rest:
            if not select.select([self.inp], [], [], max(0, until - time.time()))[0]:
                raise RuntimeError("the browser does not answer")
            more = os.read(self.inp, 1 << 20)
            if not more:
                raise RuntimeError("the browser has ended")
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **parameters):
        message = {"id": next(self.ids), "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        while True:
            answer = self.receive(60)
            self.note(answer)
            if answer.get("id") == message["id"]:
                if "error" in answer:
                    raise RuntimeError(method + ": " + answer["error"]["message"])
                return answer["result"]

    def note(self, event):
        p = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(p["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(p["exceptionDetails"].get("exception", {}).get("description") or str(p))
        elif event.get("method") == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(p["entry"]["text"] + " " + p["entry"].get("url", ""))

    def run(self, script):
        """The value of an expression in the page; promises are waited for."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "error in the page"))
        return answer["result"].get("value")

    def wait(self, condition, seconds=30):
        until = time.time() + seconds
        while not self.run("!!(" + condition + ")"):
            if time.time() > until:
                raise RuntimeError("the page never came to: " + condition + "\n" + "\n".join(self.errors))
            time.sleep(0.05)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def middle(self, selector):
        return self.run("(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector(%s)"
                        ".getBoundingClientRect())" % json.dumps(selector))

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drag(self, start, end, button="left"):
        bits = {"left": 1, "right": 2}[button]
        self.mouse("mousePressed", *start, button=button, buttons=bits, clickCount=1)
        for i in range(1, 11):
            x, y = (a + (b - a) * i / 10 for a, b in zip(start, end))
            self.mouse("mouseMoved", x, y, button=button, buttons=bits)
        self.mouse("mouseReleased", *end, button=button, buttons=0, clickCount=1)

    def click(self, selector):
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button="left", buttons=0, clickCount=1)

    def key(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def picture(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))
