"""bench/soak: what it calls growth, and that it runs."""

import json
import os
import random
import subprocess
import sys
import unittest

from support import PYTHON, TestCase, warm_only

SOAK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench/soak")


class Growth(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, SOAK)
        try:
            from growth import Series
        finally:
            sys.path.remove(SOAK)
        cls.Series = Series

    def verdict(self, metric, values):
        return self.Series("party", metric, values).verdict(0.03)

    def test_what_leaks_slowly_grows(self):
        noise = random.Random(1)
        self.assertEqual(self.verdict("descriptors", [40 + i // 100 + noise.randrange(4) for i in range(720)]), "grows")
        self.assertEqual(self.verdict("private_kb", [9000 + i + noise.randrange(500) for i in range(720)]), "grows")

    def test_what_fills_at_first_is_level(self):
        self.assertEqual(self.verdict("private_kb", [min(9000, 6000 + 30 * i) for i in range(720)]), "level")

    def test_peaks_are_level(self):
        self.assertEqual(self.verdict("processes", [50 if i % 7 == 0 else 2 for i in range(720)]), "level")

    def test_what_goes_up_and_down_as_much_is_level(self):
        values = [60 + i % 40 + i // 90 for i in range(720)]
        self.assertEqual(self.verdict("descriptors", values), "level")

    def test_of_what_is_hardly_ever_there_nothing_is_said(self):
        self.assertEqual(self.verdict("descriptors", [None] * 700 + [30] * 20), "-")


@warm_only
class Soak(TestCase):
    def test_a_short_one_finds_no_wrong_result_and_leaves_nothing_behind(self):
        """Whether anything grows twenty seconds cannot tell."""
        folder = self.folder({})
        report, drawing = (os.path.join(folder, name) for name in ("soak.json", "soak.svg"))
        done = subprocess.run(
            [PYTHON, SOAK, "--seconds", "20", "--json", report, "--svg", drawing], capture_output=True, text=True,
        )
        self.assertIn(done.returncode, (0, 1), done.stderr)
        with open(report) as file:
            result = json.load(file)
        self.assertEqual((result["ended_early"], result["left_behind"]), (None, []), done.stderr)
        for party, spawned in result["spawns"].items():
            self.assertEqual(spawned["wrong"], 0, done.stderr)
            self.assertGreater(spawned["warm"], 0, party)
        grows = [row for row in result["series"] if row["verdict"] == "grows"]
        self.assertEqual(done.returncode, 1 if grows else 0, done.stdout)
        seen = {row["party"] for row in result["series"] if any(row["values"])}
        self.assertLessEqual({"owner", "owner's templates", "owner's spares", "owner's keepers", "daemon",
                              "daemon's templates", "daemon's spares", "client", "client's keepers"}, seen)
        with open(drawing) as file:
            self.assertIn("daemon&#x27;s templates", file.read())


if __name__ == "__main__":
    unittest.main()
