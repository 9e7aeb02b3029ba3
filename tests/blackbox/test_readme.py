"""The README's tour, pasted line by line into a shell: every line works, and the next one too."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from harness import BIN, ROOT, Daemon


def tour():
    return re.search(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1].splitlines()


class Readme(unittest.TestCase):
    def setUp(self):
        home = tempfile.TemporaryDirectory(prefix="kvfs-tour-")
        self.addCleanup(home.cleanup)
        self.home = pathlib.Path(home.name)
        self.daemon = Daemon(self.home / "kvfs-demo")  # where scripts/demo leaves its mount
        self.addCleanup(self.daemon.close)
        self.daemon.start()

    def paste(self, lines):
        """Runs the lines in one shell; what each printed, by line."""
        script = "set -e -o pipefail\n"
        for i, line in enumerate(lines):
            script += f"{line}\nprintf '\\n<end of {i}>\\n'\n"
        environment = {**os.environ, "HOME": str(self.home), "KVFS_SOCKET": str(self.daemon.socket),
                       "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True,
                              text=True, timeout=300)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        return dict(zip(lines, re.split(r"\n<end of \d+>\n", done.stdout)))

    def test_every_line_of_the_tour_works_when_pasted(self):
        lines = tour()
        self.assertGreaterEqual(len(lines), 8)
        for line, printed in self.paste(lines).items():
            prints = re.search(r"(^|&& )(cat|tail|ls|grep) ", line)
            self.assertEqual(bool(printed.strip()), bool(prints), line)

    def test_the_tour_can_be_pasted_again(self):
        self.paste(tour())
        text = (self.daemon.states / "whale" / "text").read_text()
        self.paste(tour())
        again = (self.daemon.states / "whale" / "text").read_text()
        self.assertEqual(again.count("bay of Naples"), 2 * text.count("bay of Naples"))

    def test_the_line_for_the_shell_works(self):
        self.paste(tour()[:2])
        command = re.search(r"`(kvfs ask [^`]+)`", (ROOT / "README.md").read_text())[1]
        self.assertTrue(self.paste([command])[command].strip())


if __name__ == "__main__":
    unittest.main()
