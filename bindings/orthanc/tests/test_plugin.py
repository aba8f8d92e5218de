"""Films into a real Orthanc, results out, compared with radz-classify. Standard library only.

    make -C bindings/orthanc check

SPDX-License-Identifier: GPL-3.0-or-later"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import server

FILMS = [os.path.join(server.TOP, "examples", "data", name)
         for name in ("nih_00002301_000.jpg", "kermany_person1086_bacteria_3026.jpg")]


def classify(path):
    program = os.path.join(server.BUILD, "bin", "radz-classify")
    return json.loads(subprocess.run([program, "--json", path], check=True, capture_output=True).stdout)


@unittest.skipIf(server.missing(), server.missing())
class Plugin(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.server = None

    def tearDown(self):
        if self.server:
            self.server.close()
        self.dir.cleanup()

    def start(self, **radz):
        self.server = server.Server(**radz)
        self.server.start()
        return self.server

    def film(self, i, **tags):
        return server.film(FILMS[i], os.path.join(self.dir.name, "film%d.dcm" % i), **tags)

    def test_films_that_arrive_get_the_scores_of_the_program(self):
        s = self.start()
        for i in range(len(FILMS)):
            path = self.film(i)
            result = s.wait_result(s.store(path))
            self.assertEqual(result["result"]["scores"], classify(path)["scores"])
            status, png = s.send("/instances/%s/radz/heatmap?label=Pneumonia" % result["instance"])
            self.assertEqual((status, png[:4]), (200, b"\x89PNG"))
        self.assertNotIn("Planted", s.read_log())
        self.assertNotIn("PLANTED", s.read_log())

    def test_a_missing_model_answers_503_and_the_server_lives(self):
        s = self.start(Model="/nowhere/model")
        instance = s.store(self.film(0))
        for path, data in (("/radz/status", None), ("/instances/%s/radz/classify" % instance, b"{}")):
            status, body = s.send(path, data)
            self.assertEqual(status, 503)
            self.assertIn(b"/nowhere/model", body)
        self.assertEqual(s.get("/system")["Name"], "radz-test")

    def test_a_killed_server_goes_on_where_it_was(self):
        s = self.start()
        s.wait_result(s.store(self.film(0)))
        instance = s.store(self.film(1))
        s.stop(9)
        s.start()
        self.assertIn("scores", s.wait_result(instance)["result"])

    def test_other_modalities_are_left_alone_unless_asked_for(self):
        s = self.start()
        instance = s.store(self.film(0, Modality="CT"))
        s.wait_result(s.store(self.film(1)))
        self.assertEqual(s.send("/instances/%s/radz/result" % instance)[0], 404)
        self.assertIn("ID", s.post("/instances/%s/radz/classify" % instance, {}))
        self.assertIn("scores", s.wait_result(instance)["result"])

    def test_stow_and_the_page(self):
        s = self.start()
        if os.path.exists(server.DICOMWEB):
            self.assertEqual(s.stow(self.film(0))[0], 200)
            s.wait_result(s.get("/instances")[0])
        for name in ("index.html", "radz.js", "radz.css"):
            self.assertEqual(s.send("/radz/app/" + name)[0], 200)
        self.assertEqual(s.send("/radz/app/nothing.html")[0], 404)


if __name__ == "__main__":
    if server.missing():
        print("skipped: " + server.missing())
        sys.exit(0)
    server.enter_network()
    unittest.main(verbosity=2)
