"""What cmake --install puts somewhere works there, without the build tree's libraries."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import harness
from harness import BIN, Daemon


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="kvfs-install-")
        cls.addClassCleanup(directory.cleanup)
        cls.prefix = pathlib.Path(directory.name)
        cls.install()

    @classmethod
    def install(cls):
        subprocess.run(["cmake", "--install", BIN.parent, "--prefix", cls.prefix], check=True,
                       stdout=subprocess.DEVNULL)

    def test_the_programs_load_nothing_from_where_they_were_built(self):
        for name in ("kvfsd", "kvfs"):
            out = subprocess.run(["ldd", self.prefix / "bin" / name], check=True, text=True,
                                 capture_output=True).stdout
            self.assertNotIn("not found", out)
            self.assertNotIn(str(harness.ROOT), out)

    def test_the_installed_daemon_answers_with_the_installed_model(self):
        harness.BIN = self.prefix / "bin"
        self.addCleanup(setattr, harness, "BIN", BIN)
        daemon = Daemon(model="SmolLM2-135M-Instruct.Q4_1")
        self.addCleanup(daemon.close)
        daemon.start()
        state = daemon.make("s", max_tokens=4)
        daemon.run(state, "ask", "Are you there?")
        self.assertTrue(daemon.reply(state).strip())

    def test_the_unit_starts_the_installed_program(self):
        unit = (self.prefix / "lib/systemd/system/kvfsd.service").read_text()
        program = re.search(r"^ExecStart=(\S+)", unit, re.M)[1]
        self.assertEqual(program, str(self.prefix / "bin/kvfsd"))
        self.assertTrue(os.access(program, os.X_OK))
        self.assertIn("Type=notify", unit)

    def test_an_edited_configuration_stays(self):
        config = self.prefix / "etc/kvfs/kvfsd.toml"
        self.assertIn("store", config.read_text())
        config.write_text("# mine\n")
        self.install()
        self.assertEqual(config.read_text(), "# mine\n")


if __name__ == "__main__":
    unittest.main()
