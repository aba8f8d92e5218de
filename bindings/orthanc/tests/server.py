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
FILMS = [os.path.join(TOP, "examples", "data", name)
         for name in ("nih_00006759_001.jpg", "kermany_person1086_bacteria_3026.jpg", "nih_00002301_000.jpg")]


def missing():
    """What is not there, or None."""
    for tool in ("Orthanc", "img2dcm", "storescu", "unshare", "ip"):
        if not shutil.which(tool):
            return tool + " is not installed"
    return None if os.path.exists(PLUGIN) else "the plugin is not built: make -C bindings/orthanc"


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
    return "2.25.1%037d" % (uuid.uuid4().int % 10 ** 37)  # always as long


class Mould:
    """Films cast from one: the same but for their UIDs, which are as long."""

    def __init__(self, path):
        uids = [new_uid() for _ in range(3)]
        film(path, path + ".dcm", StudyInstanceUID=uids[0], SeriesInstanceUID=uids[1], SOPInstanceUID=uids[2])
        with open(path + ".dcm", "rb") as f:
            self.bytes = f.read()
        self.uids = [u.encode() for u in uids]

    def cast(self, broken=False):
        data = self.bytes
        for uid in self.uids:
            data = data.replace(uid, new_uid().encode())
        if broken:  # the header is whole, the picture is not
            start = data.index(b"\xff\xd8\xff") + 2
            data = data[:start] + b"\xab" * 64 + data[start + 64:]
        return data


class Server:
    http, dicom = 18042, 14242

    def __init__(self, orthanc=None, **radz):
        self.dir = tempfile.mkdtemp(prefix="radz-orthanc-")
        self.settings, self.orthanc = {"Model": MODEL, **radz}, orthanc or {}
        self.process = None
        self.url = "http://127.0.0.1:%d" % self.http

    def start(self):
        plugins = [PLUGIN] + ([DICOMWEB] if os.path.exists(DICOMWEB) else [])
        config = {"Name": "radz-test", "StorageDirectory": self.dir + "/db", "IndexDirectory": self.dir + "/db",
                  "HttpPort": self.http, "DicomPort": self.dicom, "DicomServerEnabled": True, "DicomAet": "ORTHANC",
                  "DicomCheckCalledAet": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
                  "StableAge": 1, "Plugins": plugins, "DicomAlwaysAllowStore": True, "Radz": self.settings,
                  **self.orthanc}
        if os.environ.get("RADZ_PRELOAD"):
            config.update(Locale="C", MallocArenaMax=0)  # AddressSanitizer hangs at the one and fails at the other
        with open(self.dir + "/orthanc.json", "w") as f:
            json.dump(config, f)
        self.log = open(self.dir + "/log", "ab")
        env = dict(os.environ)
        if os.environ.get("RADZ_PRELOAD"):  # a sanitizer's library, for a plugin that was built with it
            env["LD_PRELOAD"] = os.environ["RADZ_PRELOAD"]
        self.process = subprocess.Popen(["Orthanc", self.dir + "/orthanc.json"], stdout=self.log, stderr=self.log,
                                        env=env)
        for _ in range(600):
            try:
                return self.get("/system")
            except (urllib.error.URLError, ConnectionError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError("Orthanc does not start:\n" + self.read_log()[-2000:])

    def stop(self, number=signal.SIGTERM):
        """How it ended; what it says of itself must hold no report of a sanitizer."""
        if not self.process:
            return 0
        self.process.send_signal(number)
        try:
            code = self.process.wait(300)
        finally:
            self.process.kill()  # nobody else finds its ports taken
            self.process.wait()
            self.process = None
            self.log.close()
        if number == signal.SIGTERM and (code or "Sanitizer" in self.read_log() or "runtime error:" in self.read_log()):
            raise RuntimeError("Orthanc ended with %d:\n%s" % (code, self.read_log()[-4000:]))
        return code

    def close(self):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.dir)

    def read_log(self):
        with open(self.dir + "/log", errors="replace") as f:
            return f.read()

    def rss(self, what="VmRSS"):
        """Kilobytes."""
        with open("/proc/%d/status" % self.process.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith(what))

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

    def store(self, film):
        """A file's path or bytes; the instance."""
        if not isinstance(film, bytes):
            with open(film, "rb") as f:
                film = f.read()
        return self.post("/instances", film).get("ID")

    def stow(self, path):
        with open(path, "rb") as f:
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + f.read() + b"\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        return self.send("/dicom-web/studies", body, "POST", {"Content-Type": kind, "Accept": "application/dicom+json"})

    def c_store(self, path):
        """As a modality sends it, with the transfer syntax that the film has."""
        subprocess.run(["storescu", "-xy", "-aec", "ORTHANC", "127.0.0.1", str(self.dicom), path], check=True,
                       stdout=subprocess.DEVNULL)

    def wait_until(self, true, seconds=60):
        until = time.time() + seconds
        while time.time() < until:
            value = true()
            if value:
                return value
            time.sleep(0.05)
        raise RuntimeError("waited for nothing:\n" + self.read_log()[-2000:])

    def result(self, instance):
        status, body = self.send("/instances/%s/radz/result" % instance)
        return json.loads(body) if status == 200 else None

    def wait_result(self, instance, seconds=60):
        return self.wait_until(lambda: self.result(instance), seconds)

    def classify(self, instance):
        """Asks for it and waits; the job as it ended."""
        job = self.post("/instances/%s/radz/classify" % instance, {})["ID"]
        return self.wait_until(lambda: self.job_if_ended(job))

    def job_if_ended(self, job):
        state = self.get("/jobs/" + job)
        return state if state["State"] in ("Success", "Failure") else None

    def find(self, instance):
        """The film that a modality has sent: the instance of a SOP instance UID."""
        return self.post("/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": instance}})
