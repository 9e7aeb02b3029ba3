"""A state goes to another machine and comes back: by ssh, Samba, NFS and WebDAV, on loopback, as
docs/sharing/ sets them up. What came back is that state in every byte, and goes on as it does, asked
through that server.

Needs root and the servers (scripts/deps/servers.txt). What CI has no room for runs with KVFS_CAMPAIGN
set: scripts/sharing-campaign."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from harness import Daemon, ENGLISH, fingerprint, wait_until

campaign = unittest.skipUnless("KVFS_CAMPAIGN" in os.environ, "scripts/sharing-campaign runs it")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def setUpModule():
    Sharing.begin()


class Sharing:
    """One daemon for all; a state `paper`, and what it is when it has gone on."""

    @classmethod
    def begin(cls):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-test-"))
        directory.chmod(0o755)
        cls.daemon = d = Daemon(directory, extra=["-o", "allow_other,noblock"])
        unittest.addModuleCleanup(d.close)
        d.start()
        cls.paper = d.make("paper", temperature=0, max_tokens=8)
        d.run(cls.paper, "feed", ENGLISH[:1200], "text")
        d.run(cls.paper, "continue", "What is it about?", "first")
        cls.prompt = directory / "prompt"
        cls.prompt.write_text("And what else?")
        d.kvfs("fork", "paper", "later")
        d.run(d.states / "later", "continue", cls.prompt.read_text(), "q")
        cls.then, cls.later = fingerprint(cls.paper), fingerprint(d.states / "later")
        cls.reply = d.reply(d.states / "later", "q")

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-sharing-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def do(self, *words, **options):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120,
                              **options)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, port, *words):
        """In the foreground, until the test ends; it listens on the port then."""
        log = open(self.folder / "server.log", "ab")
        self.addCleanup(log.close)
        server = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=log, start_new_session=True)  # smbd ends its whole group

        def end():
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(10)
            server.kill()
            server.wait()
        self.addCleanup(end)

        def up():
            if server.poll() is not None:
                self.fail(f"{words[0]} ended:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            return listens(port)
        wait_until(up, 60, f"{words[0]} listens")

    def is_the_state(self, name):
        copy = self.daemon.states / name
        with contextlib.suppress(TimeoutError):  # a server may sync what it wrote a second later
            wait_until(lambda: (copy / "kv").exists() and fingerprint(copy) == self.then, 15)
        self.assertEqual(fingerprint(copy), self.then, (copy / "status").read_text())
        self.assertNotIn("incomplete", (copy / "status").read_text())

    def goes_on(self, name, put, get):
        """Continued through the server: `put` brings a file there, `get` its contents back."""
        d = self.daemon
        for param in ("temperature", "max_tokens"):
            (d.states / name / "params" / param).write_text((self.paper / "params" / param).read_text())
        put(self.prompt, f"{name}/continue/q")
        self.assertIn("q done", d.wait_done(d.states / name, "q"))
        self.assertEqual(fingerprint(d.states / name), self.later)
        self.assertEqual(get(f"{name}/replies/q"), self.reply)


class Ssh(Sharing, unittest.TestCase):
    def setUp(self):
        super().setUp()
        port, key = free_port(), self.folder / "key"
        pathlib.Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("key", "host"):
            self.do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / name)
        (self.folder / "sshd_config").write_text(f"""
            Port {port}
            ListenAddress 127.0.0.1
            HostKey {self.folder}/host
            AuthorizedKeysFile {self.folder}/key.pub
            StrictModes no
            PermitRootLogin prohibit-password
            PidFile none
            Subsystem sftp internal-sftp""")
        self.config = self.folder / "config"
        self.config.write_text(f"""Host kv
            HostName 127.0.0.1
            Port {port}
            User root
            IdentityFile {key}
            IdentitiesOnly yes
            StrictHostKeyChecking no
            UserKnownHostsFile /dev/null
            LogLevel ERROR""")
        self.serve(port, "/usr/sbin/sshd", "-D", "-e", "-f", self.folder / "sshd_config")

    def scp(self, *words):
        self.do("scp", "-q", "-F", self.config, *words)

    def put(self, file, to):
        self.scp(file, f"kv:{self.daemon.states}/{to}")

    def get(self, path):
        self.scp(f"kv:{self.daemon.states}/{path}", self.folder / "got")
        return (self.folder / "got").read_text()

    def test_scp(self):
        out = self.folder / "out"
        self.scp("-rp", f"kv:{self.paper}", out)
        self.assertEqual(fingerprint(out), self.then)
        self.scp("-rp", out, f"kv:{self.daemon.states}/by-scp")
        self.is_the_state("by-scp")
        self.goes_on("by-scp", self.put, self.get)

    def test_rsync_whose_second_run_moves_nothing(self):
        out, there = self.folder / "out", f"kv:{self.daemon.states}/by-rsync"
        rsync = ("rsync", "-ai", "-e", f"ssh -F {self.config}")
        self.do(*rsync, f"kv:{self.paper}/", f"{out}/")
        self.do(*rsync, f"{out}/", f"{there}/")
        self.is_the_state("by-rsync")
        moved = self.do(*rsync, f"{out}/", f"{there}/").splitlines()
        self.assertFalse([line for line in moved if line[1:2] == "f"], moved)
        self.goes_on("by-rsync", self.put, self.get)

    @campaign
    def test_sshfs(self):
        far = self.folder / "far"
        far.mkdir()
        self.do("sshfs", "-F", self.config, f"kv:{self.daemon.states}", far)
        self.addCleanup(subprocess.run, ["umount", "-l", str(far)])
        (far / "by-sshfs").mkdir()
        self.do("cp", "-r", f"{far}/paper/.", far / "by-sshfs")
        self.is_the_state("by-sshfs")
        (far / "by-sshfs/fork").mkdir()
        self.is_the_state("by-sshfs/fork")
        (self.daemon.states / "by-sshfs/fork").rmdir()
        self.goes_on("by-sshfs", lambda file, to: shutil.copyfile(file, far / to),
                     lambda path: (far / path).read_text())


class Samba(Sharing, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.port, self.conf = free_port(), self.folder / "smb.conf"
        directories = {"private dir": "private", "lock directory": "lock", "state directory": "state",
                       "cache directory": "cache", "pid directory": "pid", "ncalrpc dir": "rpc"}
        for name in directories.values():
            (self.folder / name).mkdir(mode=0o755)
        self.conf.write_text(f"""[global]
            smb ports = {self.port}
            interfaces = 127.0.0.1
            bind interfaces only = yes
            log file = {self.folder}/log
            load printers = no
            disable spoolss = yes
            """ + "".join(f"{what} = {self.folder}/{name}\n" for what, name in directories.items()) + f"""
            [kvfs]
            path = {self.daemon.mount}
            read only = no
            store dos attributes = no
            ea support = no
            oplocks = no""")
        self.do("smbpasswd", "-c", self.conf, "-s", "-a", "root", input="secret\nsecret\n")
        self.serve(self.port, "smbd", "-s", self.conf, "-F", "--no-process-group", "--debug-stdout")

    def smb(self, commands):
        return self.do("smbclient", "-s", self.conf, "-p", self.port, "-U", "root%secret",
                       "//127.0.0.1/kvfs", "-c", commands, cwd=self.folder)

    def test_smbclient(self):
        self.smb("cd states; recurse; prompt; mget paper")
        self.assertEqual(fingerprint(self.folder / "paper"), self.then)
        (self.folder / "paper").rename(self.folder / "by-smb")
        for _ in range(2):  # the second time over the state that is there
            self.smb("cd states; recurse; prompt; mput by-smb")
            self.is_the_state("by-smb")

        def put(file, to):
            path = pathlib.PurePath(to)
            self.smb(f"cd states/{path.parent}; put {file} {path.name}")

        def get(path):
            path = pathlib.PurePath(path)
            self.smb(f"cd states/{path.parent}; get {path.name} got")
            return (self.folder / "got").read_text()
        self.goes_on("by-smb", put, get)


class Nfs(Sharing, unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.port, self.mount_port = free_port(), free_port()
        (self.folder / "recovery").mkdir()
        (self.folder / "ganesha.conf").write_text(f"""
            NFS_CORE_PARAM {{
              NFS_Port = {self.port}; MNT_Port = {self.mount_port}; Protocols = 3, 4;
              Bind_addr = 127.0.0.1; Enable_NLM = false; Enable_RQUOTA = false;
            }}
            NFSv4 {{
              RecoveryBackend = fs; RecoveryRoot = {self.folder}/recovery;
              Grace_Period = 5; Lease_Lifetime = 5;
            }}
            EXPORT {{
              Export_Id = 1; Path = {self.daemon.mount}; Pseudo = /kvfs; Filesystem_Id = 7.7;
              Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
              FSAL {{ Name = VFS; }}
            }}""")
        pathlib.Path("/run/ganesha").mkdir(exist_ok=True)
        if not listens(111):
            self.serve(111, "rpcbind", "-f", "-w")
        self.serve(self.port, "ganesha.nfsd", "-F", "-f", self.folder / "ganesha.conf",
                   "-L", self.folder / "log", "-p", self.folder / "pid", "-N", "EVENT")
        wait_until(lambda: "NFS SERVER INITIALIZED" in (self.folder / "log").read_text(), 30, "Ganesha")

    def url(self, path):
        return (f"nfs://127.0.0.1{self.daemon.states}/{path}"
                f"?nfsport={self.port}&mountport={self.mount_port}")

    def test_nfs_cp(self):
        out, there = self.folder / "out", self.daemon.states / "by-nfs"
        for folder in (out, there):
            (folder / "kv").mkdir(parents=True)  # nfs-cp copies files
        for name in self.then:
            self.do("nfs-cp", self.url(f"paper/{name}"), out / name)
        self.assertEqual(fingerprint(out), self.then)
        for name in self.then:
            if name != "text":  # which follows from the tokens
                self.do("nfs-cp", out / name, self.url(f"by-nfs/{name}"))
        self.is_the_state("by-nfs")

        def get(path):
            self.do("nfs-cp", self.url(path), self.folder / "got")
            return (self.folder / "got").read_text()
        self.goes_on("by-nfs", lambda file, to: self.do("nfs-cp", file, self.url(to)), get)


class WebDav(Sharing, unittest.TestCase):
    def test_rclone(self):
        port = free_port()
        self.serve(port, "rclone", "serve", "webdav", self.daemon.mount, "--addr", f"127.0.0.1:{port}",
                   "--config", "/dev/null", "--vfs-cache-mode", "off", "--dir-cache-time", "0s")

        def dav(*words):
            return self.do("rclone", "--config", "/dev/null", "--webdav-url", f"http://127.0.0.1:{port}",
                           "--webdav-vendor", "other", "--exclude", "/status", *words)

        def get(path):
            return self.do("curl", "-sf", f"http://127.0.0.1:{port}/states/{path}")
        out = self.folder / "out"
        dav("copy", ":webdav:states/paper", out)
        self.assertEqual(fingerprint(out), self.then)
        dav("copy", out, ":webdav:states/by-dav")
        self.is_the_state("by-dav")
        dav("check", out, ":webdav:states/by-dav")
        self.goes_on("by-dav", lambda file, to: self.do(
            "curl", "-sf", "-T", file, f"http://127.0.0.1:{port}/states/{to}"), get)


if __name__ == "__main__":
    unittest.main()
