"""The verbs around states, as scripts and people at a terminal use them: what they print, in words and
as JSON, their exit codes, and the bars that only a terminal sees."""

import json
import os
import pty
import subprocess

from harness import BIN, DaemonTest, ENGLISH, fingerprint


class Verbs(DaemonTest):
    def json_of(self, *words):
        done = self.daemon.kvfs(*words, "--json")
        return json.loads(done.stdout)

    def fails(self, code, why, *words):
        done = self.daemon.kvfs(*words, check=False)
        self.assertEqual(done.returncode, code, (words, done.stderr))
        self.assertIn(why, done.stderr)
        self.assertEqual(done.stdout, "")
        if code == 1:  # "kvfs: what: why; what to do"
            self.assertRegex(done.stderr, r"^kvfs: .+: .+")

    def on_a_terminal(self, *words):
        """What it writes to a terminal of its own, as one text."""
        main, other = pty.openpty()
        with subprocess.Popen([BIN / "kvfs", "--socket", self.daemon.socket, *words],
                              stdin=subprocess.DEVNULL, stdout=other, stderr=other) as process:
            os.close(other)
            said = b""
            while True:
                try:
                    part = os.read(main, 4096)
                except OSError:  # the last of it went
                    break
                if not part:
                    break
                said += part
            self.assertEqual(process.wait(), 0, said)
        os.close(main)
        return said.decode()

    def test_a_life_by_verbs_alone(self):
        d = self.daemon
        d.kvfs("new", "life", "--param", "template=raw", "--param", "temperature=0",
               "--param", "max_tokens=4")
        d.kvfs("feed", "life", "-", input=ENGLISH[:900], stdin=None)
        first = fingerprint(d.states / "life")
        d.kvfs("snap", "life", "v1")
        tokens = self.json_of("show", "life")["state"]["n_tokens"]
        d.kvfs("continue", "life", "And then")
        log = self.json_of("log", "life")["versions"]
        self.assertEqual([version["name"] for version in log], ["", "v1"])
        self.assertEqual(log[1]["tokens"], tokens)
        self.assertIn("@v1", d.kvfs("log", "life").stdout)
        d.kvfs("export", "life@v1", str(d.directory / "v1.kvfs"))
        d.kvfs("import", str(d.directory / "v1.kvfs"), "life/old")
        self.assertEqual(fingerprint(d.states / "life/old"), first)
        d.kvfs("rollback", "life", str(tokens))
        self.assertEqual(fingerprint(d.states / "life"), first)
        d.kvfs("continue", "life", "And then")
        d.kvfs("rollback", str(d.states / "life"), "@v1")  # by its path on the mount
        self.assertEqual(fingerprint(d.states / "life"), first)
        d.kvfs("set", "life", "temperature=0.5", "seed=3")
        self.assertEqual((d.states / "life/params/seed").read_text(), "3\n")
        d.kvfs("set", "life", "seed=")
        d.kvfs("mv", "life/old", "young")
        self.assertEqual(fingerprint(d.states / "young"), first)
        paths = [state["path"] for state in self.json_of("tree")["states"]]
        self.assertIn("young", paths)
        self.assertNotIn("life/old", paths)
        self.assertIn("young", d.kvfs("tree").stdout)
        d.kvfs("snap", "--drop", "life", "v1")
        self.assertEqual(len(self.json_of("log", "life")["versions"]), 1)

    def test_what_cannot_be_is_said_with_an_exit_code(self):
        d = self.daemon
        d.kvfs("new", "there")
        for words, why in ((("mv", "none", "x"), "no state none"),
                           (("mv", "there", "there/below"), "inside itself"),
                           (("set", "there", "temperature=hot"), "temperature"),
                           (("set", "none", "temperature=1"), "no state none"),
                           (("rollback", "there", "7"), "kvfs: "),
                           (("rollback", "there", "@none"), "none"),
                           (("snap", "none", "v1"), "no state none"),
                           (("snap", "there", "a/b"), "no name"),
                           (("log", "none"), "no state none"),
                           (("tree", "none"), "no state none"),
                           (("events", "none"), "no state none"),
                           (("export", "there", "x.pt"), "the state is empty"),
                           (("import", "/dev/null"), "no suffix that is known"),
                           (("import", "/proc", "x"), "no suffix that is known")):
            with self.subTest(words=words):
                self.fails(1, why, *words)
        for words in (("mv", "there"), ("set", "there"), ("export", "there"), ("import",), ("log",),
                      ("snap", "there"), ("rollback", "there"), ("tree", "--none"),
                      ("events", "a", "b")):
            with self.subTest(words=words):
                self.fails(2, "", *words)
        for verb in ("import", "export", "snap", "rollback", "mv", "set", "log", "tree", "events"):
            self.assertIn(f"kvfs {verb}", d.kvfs(verb, "--help").stdout)

    def test_a_bar_for_a_terminal_and_none_in_a_pipe(self):
        d, file = self.daemon, self.daemon.directory / "bar.pt"
        state = self.state(template="raw")
        d.run(state, "feed", ENGLISH[:900])
        said = self.on_a_terminal("export", state.name, str(file))
        self.assertRegex(said, rf"export {state.name} +\d+% of [\d.]+ MB")
        self.assertTrue(said.endswith("\r\x1b[K"), said)  # nothing of it is left
        self.assertRegex(self.on_a_terminal("import", str(file), "bar"), r"import bar +\d+% of ")
        for words in (("export", state.name, str(file)), ("import", str(file), "bar")):
            done = d.kvfs(*words)
            self.assertEqual(done.stdout + done.stderr, "")
