"""Films into a real Orthanc; scores, reports and heat maps out, held against radz-classify and DICOM's own validators.
Standard library only.

    make -C bindings/orthanc check                    (TEST=Plugin.test_name for one)

SPDX-License-Identifier: GPL-3.0-or-later"""
import concurrent.futures
import gzip
import http.client
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import unittest

import browser
import server

PRESENTATION_STATE = "1.2.840.10008.5.1.4.1.1.11.1"
COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7"


def classify(path):
    program = os.path.join(server.BUILD, "bin", "radz-classify")
    return json.loads(subprocess.run([program, "--json", path], check=True, capture_output=True).stdout)


def errors_of(validator, path):
    """What dciodvfy has to say but for warnings."""
    if not shutil.which(validator):
        print("\n  %s is not installed: not asked" % validator)
        return []
    said = subprocess.run([validator, path], capture_output=True, text=True).stderr
    return [line for line in said.splitlines() if line.startswith("Error")]


class Test(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.server = None

    def tearDown(self):
        if self.server:
            self.server.close()
        self.dir.cleanup()

    def start(self, orthanc=None, **radz):
        self.server = server.Server(orthanc, **radz)
        self.server.start()
        return self.server

    def film(self, i=0, **tags):
        return server.film(server.FILMS[i], os.path.join(self.dir.name, "film%d.dcm" % i), **tags)

    def mould(self, i=0):
        copy = os.path.join(self.dir.name, "mould%d.jpg" % i)
        shutil.copy(server.FILMS[i], copy)
        return server.Mould(copy)

    def fetch(self, s, output):
        """An object of the archive as a file."""
        path = os.path.join(self.dir.name, output["instance"] + ".dcm")
        with open(path, "wb") as f:
            f.write(s.send("/instances/%s/file" % output["instance"])[1])
        return path


class Plugin(Test):
    def test_films_that_arrive_get_the_scores_of_the_program(self):
        s = self.start()
        for i in range(len(server.FILMS)):
            path = self.film(i)
            result = s.wait_result(s.store(path))
            self.assertEqual(result["result"]["scores"], classify(path)["scores"])
            status, png = s.send("/instances/%s/radz/heatmap?label=Pneumonia" % result["instance"])
            self.assertEqual((status, png[:4]), (200, b"\x89PNG"))
        self.assertNotIn("Planted", s.read_log())
        self.assertNotIn("PLANTED", s.read_log())
        _, text = s.send("/tools/metrics-prometheus")
        self.assertIn(b"radz_films 3 ", text)
        self.assertIn(b"radz_films_failed 0 ", text)

    def test_reports_lie_in_the_study_of_the_film_and_are_valid(self):
        s = self.start(Outputs=["SR", "SC", "GSPS"], Weights="bf16")
        instance = s.store(self.film())
        outputs = s.wait_result(instance)["outputs"]
        self.assertNotIn("error", outputs)
        self.assertEqual([len(outputs[k]) for k in ("SR", "SC", "GSPS")], [1, 1, 1])
        film, study = (s.get("/instances/%s/%s" % (instance, k)) for k in ("simplified-tags", "study"))
        self.assertEqual(len(study["Series"]), 4)
        for kind, uid in (("SR", COMPREHENSIVE_3D_SR), ("SC", SECONDARY_CAPTURE), ("GSPS", PRESENTATION_STATE)):
            tags = s.get("/instances/%s/simplified-tags" % outputs[kind][0]["instance"])
            self.assertEqual(tags["SOPClassUID"], uid)
            for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
                self.assertEqual(tags[name], film[name], name)
            self.assertNotEqual(tags["SeriesInstanceUID"], film["SeriesInstanceUID"])
            self.assertEqual(errors_of("dciodvfy", self.fetch(s, outputs[kind][0])), [])
        self.check_report(s, self.fetch(s, outputs["SR"][0]), s.result(instance))
        status, picture = s.send("/instances/%s/preview" % outputs["SC"][0]["instance"])
        self.assertEqual((status, picture[:4]), (200, b"\x89PNG"))

    def check_report(self, s, path, result):
        text = subprocess.run(["dsrdump", path], check=True, capture_output=True, text=True).stdout
        self.assertIn("UNVERIFIED", text)
        for score in result["result"]["scores"]:
            self.assertIn('"Tracking Identifier")="%s">' % score["label"], text)
        best = result["result"]["scores"][0]
        self.assertIn('"%.6g" (%%,UCUM,"Percent")' % (100 * best["probability"]), text)

    def test_again_is_the_same_and_outputs_are_no_films(self):
        s = self.start()
        instance = s.store(self.film())
        first = s.wait_result(instance)
        n = len(s.get("/instances"))
        self.assertEqual(s.classify(instance)["State"], "Success")
        s.send("/instances/%s/attachments/4210" % instance, method="DELETE")
        self.assertEqual(s.classify(instance)["State"], "Success")
        again = s.wait_result(instance)
        self.assertEqual(again["outputs"], first["outputs"])
        self.assertEqual(len(s.get("/instances")), n)
        for output in first["outputs"]["SR"] + first["outputs"]["SC"]:
            status, body = s.send("/instances/%s/radz/classify" % output["instance"], b"{}")
            self.assertEqual(status, 409, body)
            self.assertIsNone(s.result(output["instance"]))

    def test_what_a_result_depends_on(self):
        """Another threshold makes the film new; more threads do not."""
        s = self.start()
        instance = s.store(self.film())
        self.assertTrue(s.wait_result(instance)["current"])
        for change, current in (({"Threads": 1, "Automatic": False}, True), ({"Threshold": 0.1}, False)):
            s.stop()
            s.settings.update(change)
            s.start()
            self.assertEqual(s.result(instance)["current"], current)
        self.assertEqual(s.send("/instances/%s/radz/heatmap?label=Mass" % instance)[0], 409)
        self.assertEqual(s.classify(instance)["State"], "Success")
        self.assertEqual(s.result(instance)["thresholds"]["Mass"], 0.1)

    def test_labels_and_strictness(self):
        labels = os.path.join(self.dir.name, "labels.json")
        with open(labels, "w") as f:
            json.dump({"schema": "radz.labels/1", "labels": {"Nodule": {
                "code": "X1", "scheme": "99TEST", "meaning": "A small round thing", "threshold": 0.9}}}, f)
        s = self.start(Labels=labels, Thresholds={"Pneumonia": 0.2}, HeatMaps=9, Strict=True)
        result = s.wait_result(s.store(self.film()))
        self.assertEqual([result["thresholds"][k] for k in ("Nodule", "Pneumonia", "Mass")], [0.9, 0.2, 0.5])
        found = [o["label"] for o in result["outputs"]["SC"]]
        self.assertEqual(found, [x["label"] for x in result["result"]["scores"]
                                 if x["probability"] >= result["thresholds"][x["label"]] and x["label"] != "No Finding"])
        text = subprocess.run(["dsrdump", self.fetch(s, result["outputs"]["SR"][0])], capture_output=True).stdout
        self.assertIn(b'(X1,99TEST,"A small round thing")', text)
        lateral = s.wait_result(s.store(self.film(1, ViewPosition="LL")))
        self.assertEqual(lateral["result"]["error"]["code"], "mismatch")

    def test_a_missing_model_answers_503_and_the_server_lives(self):
        for wrong, words in (({"Model": "/nowhere/model"}, b"/nowhere/model"), ({"Treshold": 1}, b"Treshold"),
                             ({"Labels": "/nowhere/labels.json"}, b"/nowhere/labels.json")):
            s = self.start(**wrong)
            instance = s.store(self.film())
            for path, data in (("/radz/status", None), ("/instances/%s/radz/classify" % instance, b"{}")):
                status, body = s.send(path, data)
                self.assertEqual(status, 503)
                self.assertIn(words, body)
            self.assertEqual(s.get("/system")["Name"], "radz-test")
            s.close()
        self.server = None

    def test_a_killed_server_goes_on_where_it_was(self):
        s = self.start()
        mould = self.mould()
        instances = [s.store(mould.cast()) for _ in range(15)]
        s.wait_result(instances[0])
        self.assertFalse(all(map(s.result, instances)), "it was too fast to be killed in the middle")
        s.stop(9)
        s.start()
        for instance in instances:
            self.assertIn("scores", s.wait_result(instance)["result"])
        self.assertEqual(len(s.get("/instances")), 3 * len(instances))

    def test_jobs_can_be_cancelled_and_asked_for_again(self):
        s = self.start({"ConcurrentJobs": 3, "JobsHistorySize": 100}, Automatic=False)
        mould = self.mould()
        instances = [s.store(mould.cast()) for _ in range(12)]
        jobs = [s.post("/instances/%s/radz/classify" % i, {})["ID"] for i in instances]
        self.assertEqual(len(set(jobs)), len(jobs))
        for job in jobs[2:]:
            s.post("/jobs/%s/cancel" % job, {})
        states = [s.wait_until(lambda: s.job_if_ended(job)) for job in jobs]
        self.assertEqual(states[0]["State"], "Success")
        cancelled = [k for k, state in enumerate(states) if state["ErrorCode"] == 37]
        self.assertTrue(cancelled)
        last = cancelled[-1]  # earlier ones may have come to their end just before
        self.assertIsNone(s.result(instances[last]))
        s.post("/jobs/%s/resubmit" % jobs[last], {})
        s.wait_result(instances[last])

    def test_other_modalities_are_left_alone_unless_asked_for(self):
        s = self.start()
        instance = s.store(self.film(0, Modality="CT"))
        s.wait_result(s.store(self.film(1)))
        self.assertIsNone(s.result(instance))
        self.assertEqual(s.classify(instance)["State"], "Success")
        self.assertIn("scores", s.wait_result(instance)["result"])

    def test_stow_and_c_store(self):
        """The two ways in which films get into a PACS."""
        s = self.start()
        ways = [s.c_store] + ([s.stow] if os.path.exists(server.DICOMWEB) else [])
        for send in ways:
            uid = server.new_uid()
            path = self.film(0, SOPInstanceUID=uid)
            send(path)
            (instance,) = s.find(uid)
            result = s.wait_result(instance)
            self.assertEqual(result["result"]["scores"], classify(path)["scores"])
            self.assertEqual(len(result["outputs"]["SR"]), 1)

    def test_a_film_that_cannot_be_read_says_why(self):
        s = self.start()
        instance = s.store(self.mould().cast(broken=True))
        result = s.wait_result(instance)["result"]
        self.assertEqual(result["error"]["code"], "format")
        job = s.classify(instance)
        self.assertEqual(job["State"], "Failure")
        self.assertEqual(job["Content"]["Error"], result["error"]["message"])


class Harm(Test):
    """Requests that nobody sends by accident."""

    def test_a_thousand_at_once_are_one_job_each_film(self):
        s = self.start({"HttpThreadsCount": 16}, Automatic=False)
        mould = self.mould()
        instances = [s.store(mould.cast()) for _ in range(4)]

        def ask(k):
            return s.send("/instances/%s/radz/classify" % instances[k % len(instances)], b"{}")

        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(1000)))
        self.assertEqual({status for status, _ in answers}, {200})
        for instance in instances:
            self.assertIn("scores", s.wait_result(instance)["result"])
        self.assertEqual(len(s.get("/instances")), 3 * len(instances))
        s.wait_until(lambda: s.get("/radz/status")["jobs"] == 0)

    def test_bodies_and_addresses(self):
        s = self.start(Automatic=False)
        instance = s.store(self.film())
        path = "/instances/%s/radz/classify" % instance
        bomb = gzip.compress(b"\0" * (64 << 20))
        before = s.rss()
        for _ in range(5):
            self.assertEqual(s.send(path, bomb, headers={"Content-Encoding": "gzip"})[0], 200)
        self.assertLess(s.rss() - before, 60 << 10)
        for method, where, status in (("GET", path, 405), ("DELETE", path, 405), ("POST", "/radz/status", 405),
                                      ("POST", "/instances/nothing/radz/classify", 404),
                                      ("GET", "/instances/..%2f..%2fsystem/radz/result", 404),
                                      ("GET", "/instances/%s/radz/heatmap" % instance, 400),
                                      ("GET", "/instances/%s/radz/heatmap?label=%%00" % ("0" * 44), 404),
                                      ("GET", "/radz/app/radz.css%2f..%2f..", 404)):
            self.assertEqual(s.send(where, b"x" if method == "POST" else None, method)[0], status, where)
        s.wait_result(instance)
        self.assertEqual(s.send("/instances/%s/radz/heatmap?label=Nothing" % instance)[0], 404)

    def test_a_length_that_never_comes(self):
        """Orthanc makes room for all of it before it asks anybody: here it may not have that much."""
        s = self.start(Automatic=False)
        resource.prlimit(s.process.pid, resource.RLIMIT_AS, (3 << 30, 3 << 30))
        instance = s.store(self.film())
        for length in (b"4294967296", b"99999999999999999999", b"-1"):
            with socket.create_connection(("127.0.0.1", s.http), 60) as c:
                c.sendall(b"POST /instances/" + instance.encode() + b"/radz/classify HTTP/1.1\r\nHost: x\r\n"
                          b"Content-Length: " + length + b"\r\n\r\n{}")
                c.shutdown(socket.SHUT_WR)
                self.assertNotIn(b" 200 ", c.recv(100))
        self.assertEqual(s.classify(instance)["State"], "Success")


class Load(Test):
    def test_two_hundred_films_of_eight_senders_in_flat_memory(self):
        s = self.start({"MaximumStorageCacheSize": 8})  # else it grows by the 128 MB of Orthanc's own cache
        mould, sent, sizes, done = self.mould(), [], [], threading.Event()

        def watch():
            while not done.wait(0.2):
                sizes.append(s.rss())

        def send(k):
            connection, mine = http.client.HTTPConnection("127.0.0.1", s.http), []
            for i in range(25):
                connection.request("POST", "/instances", mould.cast(broken=(k, i) == (3, 11)))
                mine.append(json.loads(connection.getresponse().read())["ID"])
            connection.close()
            return mine

        watcher = threading.Thread(target=watch)
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(send, range(8)))
        films = [i for mine in sent for i in mine]
        s.wait_until(lambda: s.get("/radz/status")["films"] == 200, 500)
        done.set()
        watcher.join()
        results = [s.wait_result(i) for i in films]
        broken = sent[3][11]
        scores = classify(self.film())["scores"]
        for instance, result in zip(films, results):
            if instance == broken:
                self.assertEqual(result["result"]["error"]["code"], "format")
            else:
                self.assertEqual(result["result"]["scores"], scores)
        self.assertEqual(len(s.get("/instances")), 200 + 2 * 199)
        quarter = len(sizes) // 4
        second, last = statistics.mean(sizes[quarter:2 * quarter]), statistics.mean(sizes[-quarter:])
        print("\n  memory of Orthanc: %.1f MB in the second quarter, %.1f MB in the last" % (second / 1024, last / 1024))
        self.assertLess(last, 1.1 * second)


@unittest.skipUnless(browser.program(), "chromium is not installed")
class Page(Test):
    def open(self, width=1280, height=900, mobile=False, film=0, **radz):
        s = self.start(**radz)
        path = self.film(film)
        instance = s.store(path)
        s.wait_result(instance)
        b = browser.Browser(width, height, mobile)
        self.addCleanup(b.close)
        b.open(s.url + "/radz/app/index.html?instance=" + instance)
        b.wait("document.body && document.body.dataset.ready")
        return s, b, path

    def alphas(self, b):
        """The strongest point of the heat map as it is drawn, 0..255."""
        return b.run("(c => c.hidden ? -1 : c.getContext('2d').getImageData(0, 0, c.width, c.height)"
                     ".data.reduce((most, v, i) => i % 4 == 3 && v > most ? v : most, 0))(document.getElementById('map'))")

    def test_it_shows_the_numbers_of_the_program_and_the_slider_drives_the_map(self):
        s, b, path = self.open()
        shown = b.run("[...document.querySelectorAll('.finding')].map(f => [f.dataset.label, +f.dataset.probability])")
        self.assertEqual(shown, [[x["label"], x["probability"]] for x in classify(path)["scores"]])
        self.assertIn("Planted Name", b.run("document.getElementById('who').textContent"))
        b.wait("!document.getElementById('map').hidden")
        before = self.alphas(b)
        x, y = b.middle(".chosen input")
        b.drag((x, y), (x + 300, y))
        b.wait("document.querySelector('.chosen input').value == 100")
        self.server.wait_until(lambda: self.alphas(b) == 255)
        self.assertTrue(0 < before < 200, before)
        b.drag((b.run("document.querySelector('.chosen input').getBoundingClientRect().right - 8"), y), (x - 400, y))
        self.server.wait_until(lambda: self.alphas(b) == 0)
        self.check_the_film(b)
        self.assertEqual(b.errors, [])
        self.assertEqual([r for r in b.requests if not r.startswith((s.url, "blob:"))], [])

    def check_the_film(self, b):
        """Mouse and keys."""
        window = "document.getElementById('window').textContent"
        middle = "document.getElementById('film').getContext('2d').getImageData(200, 200, 1, 1).data[0]"
        first, gray = b.run(window), b.run(middle)
        x, y = b.middle("#stage")
        b.drag((x, y), (x + 80, y + 60))
        b.wait(window + " != " + json.dumps(first))
        b.key("r")
        b.wait(window + " == " + json.dumps(first))
        b.key("i")
        b.wait(middle + " == %d" % (255 - gray))
        chosen = "document.querySelector('.chosen').dataset.label"
        was = b.run(chosen)
        b.key("ArrowDown", 40)
        b.wait(chosen + " != " + json.dumps(was))
        place = "document.getElementById('film').style.transform"
        was = b.run(place)
        b.mouse("mouseWheel", x, y, deltaX=0, deltaY=-200)
        b.wait(place + " != " + json.dumps(was))

    def test_on_a_phone_nothing_sticks_out(self):
        _, b, _ = self.open(390, 844, True, film=2)
        self.assertLessEqual(b.run("document.documentElement.scrollWidth"), 390)
        self.assertEqual(b.run("document.getElementById('summary').textContent"), "No finding reaches its threshold")
        self.assertTrue(b.run("document.getElementById('map').hidden"), "no map over a film without findings")
        b.run("document.querySelectorAll('.finding button')[1].click()")
        b.wait("!document.getElementById('map').hidden")
        self.assertEqual(b.errors, [])

    def test_a_film_is_classified_from_the_page(self):
        s = self.start(Automatic=False)
        instance = s.store(self.film())
        b = browser.Browser()
        self.addCleanup(b.close)
        b.open(s.url + "/app/explorer.html#instance?uuid=" + instance)
        b.wait("window.$ && document.getElementById('radz-button')")
        b.open(s.url + "/radz/app/index.html?instance=" + instance)
        b.wait("document.body && document.body.dataset.ready")
        b.click("#classify")
        b.wait("document.querySelectorAll('.finding').length == 15")
        self.assertTrue(b.run("document.getElementById('classify').hidden"))


if __name__ == "__main__":
    if server.missing():
        print("skipped: " + server.missing())
        sys.exit(0)
    server.enter_network()
    unittest.main(verbosity=2)
