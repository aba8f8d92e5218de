"""A real Orthanc with the plugin, in a temporary folder and a network of its own. Standard library only.
SPDX-License-Identifier: GPL-3.0-or-later"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
BUILD = os.path.join(TOP, "build", os.environ.get("BUILD", "release"))
PLUGIN = os.path.join(BUILD, "orthanc", "libOrthancRadz.so")
MODEL = os.path.join(TOP, "models", "radz-tiny")
DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def missing():
    """What is not there, or None."""
    for tool in ("Orthanc", "img2dcm", "storescu", "unshare", "ip"):
        if not shutil.which(tool):
            return tool + " is not installed"
    return None if os.path.exists(PLUGIN) else "the plugin is not built: make orthanc"


def enter_network():
    """Runs this program again in a network namespace with a loopback of its own."""
    if os.environ.get("RADZ_NETWORK") == "own":
        return
    os.environ["RADZ_NETWORK"] = "own"
    inside = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$0" "$@"', sys.executable] + sys.argv
    os.execvp(inside[0], inside)


def film(jpeg, to, **tags):
    """A JPEG as a DICOM film, UIDs of its own."""
    keys = {"Modality": "DX", "PatientName": "Planted^Name", "PatientID": "PLANTED-ID", "ViewPosition": "PA",
            "BodyPartExamined": "CHEST", "StudyInstanceUID": new_uid(), "SeriesInstanceUID": new_uid(),
            "SOPInstanceUID": new_uid(), "StudyDate": "20260101", "SeriesNumber": "1", "InstanceNumber": "1", **tags}
    command = ["img2dcm", jpeg, to]
    for key, value in keys.items():
        command += ["-k", "%s=%s" % (key, value)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return to


def new_uid():
    return "2.25.%d" % uuid.uuid4().int


class Server:
    http, dicom = 18042, 14242

    def __init__(self, **radz):
        self.dir = tempfile.mkdtemp(prefix="radz-orthanc-")
        self.settings = {"Model": MODEL, **radz}
        self.process = None
        self.url = "http://127.0.0.1:%d" % self.http

    def start(self):
        plugins = [PLUGIN] + ([DICOMWEB] if os.path.exists(DICOMWEB) else [])
        config = {"Name": "radz-test", "StorageDirectory": self.dir + "/db", "IndexDirectory": self.dir + "/db",
                  "HttpPort": self.http, "DicomPort": self.dicom, "DicomServerEnabled": True, "DicomAet": "ORTHANC",
                  "DicomCheckCalledAet": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
                  "StableAge": 1, "Plugins": plugins, "DicomAlwaysAllowStore": True, "Radz": self.settings}
        with open(self.dir + "/orthanc.json", "w") as f:
            json.dump(config, f)
        self.log = open(self.dir + "/log", "ab")
        self.process = subprocess.Popen(["Orthanc", self.dir + "/orthanc.json"], stdout=self.log, stderr=self.log)
        for _ in range(300):
            try:
                return self.get("/system")
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError("Orthanc does not start:\n" + self.read_log()[-2000:])

    def stop(self, number=signal.SIGTERM):
        if self.process:
            self.process.send_signal(number)
            self.process.wait(60)
            self.process = None
            self.log.close()

    def close(self):
        self.stop()
        shutil.rmtree(self.dir)

    def read_log(self):
        with open(self.dir + "/log", errors="replace") as f:
            return f.read()

    def rss(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def send(self, path, data=None, method=None, headers=None):
        """(status, bytes)"""
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def get(self, path):
        status, body = self.send(path)
        if status != 200:
            raise RuntimeError("%s: %d %s" % (path, status, body[:200]))
        return json.loads(body)

    def post(self, path, data):
        status, body = self.send(path, data if isinstance(data, bytes) else json.dumps(data).encode())
        return json.loads(body) if status == 200 else {"status": status}

    def store(self, path):
        with open(path, "rb") as f:
            return self.post("/instances", f.read()).get("ID")

    def stow(self, path):
        with open(path, "rb") as f:
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + f.read() + b"\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        return self.send("/dicom-web/studies", body, "POST", {"Content-Type": kind, "Accept": "application/dicom+json"})

    def wait_result(self, instance, seconds=60):
        until = time.time() + seconds
        while time.time() < until:
            status, body = self.send("/instances/%s/radz/result" % instance)
            if status == 200:
                return json.loads(body)
            time.sleep(0.1)
        raise RuntimeError("no result of %s\n%s" % (instance, self.read_log()[-1500:]))
