"""Packages that people wait for, preloaded: each does some of its own work in a warm child."""

import glob
import importlib.util
import os
import subprocess
import unittest
import unittest.mock

from support import PYTHON, TestCase


def needs(*packages):
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


class Packages(TestCase):
    def check(self, preload, program, expected, **options):
        """The program prints `expected`, in two warm children of one image."""
        template = self.template(preload, backend="warm", **options)
        for _ in range(2):
            done = template.run([PYTHON, "-c", program], capture_output=True, text=True)
            self.assertEqual((done.stdout.strip(), done.stderr), (expected, ""))
        return template

    @needs("numpy")
    def test_numpy_with_the_threads_of_its_linear_algebra(self):
        self.check(
            ["numpy"],
            "import numpy, os\n"
            "a = numpy.random.rand(600, 600)\n"
            "a @ a\n"
            "x = numpy.linalg.solve(a, a @ numpy.ones(600))\n"
            "has_threads = len(os.listdir('/proc/self/task')) > 1\n"
            "with open('/proc/self/maps') as maps: is_openblas = 'openblas' in maps.read()\n"
            "print(bool(abs(x - 1).max() < 1e-6), has_threads or not is_openblas or len(os.sched_getaffinity(0)) == 1)",
            "True True",
        )

    @needs("pandas")
    @unittest.mock.patch.dict(os.environ, NUMEXPR_NUM_THREADS="1")  # or it starts threads when it is imported
    def test_pandas(self):
        self.check(
            ["pandas"],
            "import io, pandas\n"
            "table = pandas.read_csv(io.StringIO('kind,size\\na,1\\nb,2\\na,3'))\n"
            "print(table.groupby('kind')['size'].sum().to_dict())",
            "{'a': 4, 'b': 2}",
        )

    @needs("scipy")
    def test_scipy(self):
        self.check(
            ["scipy.optimize", "scipy.sparse.linalg"],
            "import scipy.optimize, scipy.sparse, scipy.sparse.linalg\n"
            "print(round(float(scipy.optimize.brentq(lambda x: x * x - 2, 0, 2)), 6),\n"
            "      scipy.sparse.linalg.spsolve(scipy.sparse.eye(3, format='csc') * 2, [2, 4, 6]).tolist())",
            "1.414214 [1.0, 2.0, 3.0]",
        )

    def test_jemalloc_as_the_malloc_of_owner_and_template(self):
        libraries = glob.glob("/usr/lib/*/libjemalloc.so.2")
        if not libraries:
            self.skipTest("not installed: libjemalloc2")
        owner = (
            "import sys, warmfork\n"
            "for spares in (0, 2):\n"
            "    with warmfork.Template(['json'], python=sys.argv[1], spares=spares, backend='warm', nested=True) as t:\n"
            "        for _ in range(3):\n"
            "            done = t.run([sys.argv[1], '-c', 'import json; print(json.dumps([1]))'], stdout=-1)\n"
            "            assert done.stdout == b'[1]\\n', done\n"
            "print('done')\n"
        )
        done = subprocess.run(
            [PYTHON, "-c", owner, PYTHON], env={**os.environ, "LD_PRELOAD": libraries[0]},
            capture_output=True, text=True, timeout=60,
        )
        self.assertEqual((done.stdout, done.stderr), ("done\n", ""))

    def test_ssl_and_http(self):
        self.check(
            ["ssl", "http.client", "http.server"],
            "import http.client, http.server, os, ssl, threading\n"
            "class Answer(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers(); self.wfile.write(b'hello')\n"
            "    def log_message(self, *_): pass\n"
            "server = http.server.HTTPServer(('127.0.0.1', 0), Answer)\n"
            "threading.Thread(target=server.handle_request).start()\n"
            "connection = http.client.HTTPConnection(*server.server_address)\n"
            "connection.request('GET', '/')\n"
            "print(connection.getresponse().read(), len(ssl.RAND_bytes(8)),\n"
            "      ssl.create_default_context().check_hostname)",
            "b'hello' 8 True",
        )

    def test_openssl_draws_other_numbers_in_each_child(self):
        template = self.template(["ssl"], backend="warm")
        program = "import ssl; print(ssl.RAND_bytes(16))"
        drawn = {template.run([PYTHON, "-c", program], capture_output=True).stdout for _ in range(5)}
        self.assertEqual(len(drawn), 5)

    def test_sqlite(self):
        self.check(
            ["sqlite3"],
            "import sqlite3\n"
            "base = sqlite3.connect(':memory:')\n"
            "base.execute('create table t (n)'); base.executemany('insert into t values (?)', [(n,) for n in range(5)])\n"
            "print(base.execute('select sum(n) from t').fetchone())",
            "(10,)",
        )

    @needs("lxml")
    def test_lxml(self):
        self.check(
            ["lxml.etree"],
            "import lxml.etree as etree\n"
            "root = etree.fromstring('<a><b n=\"1\"/><b n=\"2\"/></a>')\n"
            "print(root.xpath('sum(b/@n)'), etree.XMLSchema is not None)",
            "3.0 True",
        )

    @needs("matplotlib")
    def test_matplotlib(self):
        # Where it keeps what it found out about fonts: written by the first process, read by the others.
        patch = unittest.mock.patch.dict(os.environ, MPLCONFIGDIR=self.folder({}))
        patch.start()
        self.addCleanup(patch.stop)
        # If it takes longer than five seconds to find the fonts, it says so.
        subprocess.run([PYTHON, "-c", "import matplotlib.font_manager"], check=True, stderr=subprocess.DEVNULL)
        self.check(
            ["matplotlib.pyplot", "matplotlib.backends.backend_agg"],
            "import matplotlib; matplotlib.use('Agg')\n"
            "import io, matplotlib.pyplot as pyplot\n"
            "file = io.BytesIO(); pyplot.plot([1, 3, 2]); pyplot.savefig(file)\n"
            "print(file.getvalue()[:4])",
            r"b'\x89PNG'",
        )

    @needs("trio")
    def test_trio(self):
        self.check(
            ["trio"],
            "import trio\n"
            "async def main():\n"
            "    with trio.move_on_after(0.01) as scope: await trio.sleep_forever()\n"
            "    return scope.cancelled_caught, await trio.to_thread.run_sync(int, '5')\n"
            "print(trio.run(main))",
            "(True, 5)",
        )


if __name__ == "__main__":
    unittest.main()
