"""Every way a mount begins and ends: mount(8) and fstab's words, a namespace of a user's own, a mount
that a crash left, umount while it is busy, readers waiting inside when the daemon goes."""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from harness import BIN, MODEL, ROOT, Daemon, wait_until


def mounted(path):
    return f" {path} " in pathlib.Path("/proc/mounts").read_text()


class Mounting(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kvfs-mounting-"))
        self.addCleanup(shutil.rmtree, self.directory, True)
        self.place = self.directory / "mount"
        self.place.mkdir()
        self.addCleanup(subprocess.run, ["umount", "-l", self.place], stderr=subprocess.DEVNULL)

    def sh(self, script, **options):
        environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "D": str(self.directory),
                                    "M": str(MODEL)}
        return subprocess.run(["bash", "-c", "set -e\n" + script], env=environment, text=True,
                              capture_output=True, timeout=120, cwd="/", **options)

    def must(self, script):
        done = self.sh(script)
        self.assertEqual(done.returncode, 0, script + "\n" + done.stdout + done.stderr)
        return done.stdout

    def gone(self):
        """The daemon ends when its mount does: its store can be opened again."""
        wait_until(lambda: self.sh("kvfsd --check --store $D/store").returncode == 0, 20, "ended")

    @unittest.skipUnless(os.getuid() == 0, "mount(8) asks for root")
    def test_mount_and_umount(self):
        # What mount -t fuse.kvfsd runs, which would look for kvfsd in the system's own places alone.
        self.must("""/sbin/mount.fuse3 $D/store $D/mount -t fuse.kvfsd \
                         -o nofail,x-systemd.automount,noblock,model=$M,socket=$D/socket
                     mkdir $D/mount/states/s
                     kvfs --socket $D/socket ls | grep -q s
                     umount $D/mount""")
        self.assertFalse(mounted(self.place))
        self.gone()

    @unittest.skipUnless(os.getuid() == 0, "mount(8) asks for root")
    def test_mount_says_why_it_could_not(self):
        done = self.sh("/sbin/mount.fuse3 $D/store $D/mount -t fuse.kvfsd "
                       "-o model=$D/none.gguf,socket=$D/socket")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("none.gguf", done.stderr)
        self.assertFalse(mounted(self.place))

    def test_fstabs_line_mounts_when_somebody_looks(self):
        generator = pathlib.Path("/lib/systemd/system-generators/systemd-fstab-generator")
        if not generator.exists():
            self.skipTest("no systemd here")
        line = next(line for line in (ROOT / "docs/MOUNTING.md").read_text().splitlines()
                    if line.startswith("/") and " fuse.kvfsd " in line)
        (self.directory / "fstab").write_text(line + "\n")
        units = [self.directory / name for name in ("units", "early", "late")]
        for unit in units:
            unit.mkdir()
        subprocess.run([generator, *units], check=True,
                       env=os.environ | {"SYSTEMD_FSTAB": str(self.directory / "fstab")})
        mount = (units[0] / "mnt-kvfs.mount").read_text()
        for part in ("What=/var/lib/kvfs", "Type=fuse.kvfsd", "allow_other", "model=/srv/models/a.gguf"):
            self.assertIn(part, mount)
        self.assertIn("Where=/mnt/kvfs", (units[0] / "mnt-kvfs.automount").read_text())

    def test_in_a_namespace_of_ones_own(self):
        if self.sh("unshare -Urm true").returncode != 0:
            self.skipTest("this kernel lets users have no namespaces")
        out = self.must("""unshare -Urm bash -ec '
            kvfsd --config /dev/null --store $D/store --mount $D/mount --socket $D/socket --model $M
            mkdir $D/mount/states/s; ls $D/mount/states
            umount $D/mount'""")
        self.assertEqual(out, "s\n")
        self.assertFalse(mounted(self.place))
        self.gone()

    def test_umount_while_busy(self):
        daemon = Daemon()
        self.addCleanup(daemon.close)
        daemon.start()
        holder = subprocess.Popen(["sleep", "60"], cwd=daemon.states)
        self.addCleanup(holder.kill)
        busy = subprocess.run(["fusermount3", "-u", daemon.mount], capture_output=True)
        self.assertNotEqual(busy.returncode, 0)
        self.assertTrue((daemon.mount / "README").exists())  # and it goes on
        subprocess.run(["fusermount3", "-u", "-z", daemon.mount], check=True)
        holder.kill()
        self.assertEqual(daemon.process.wait(timeout=20), 0)

    def test_the_daemon_goes_with_readers_inside(self):
        daemon = Daemon()
        self.addCleanup(daemon.close)
        daemon.start()
        state = daemon.make("s", max_tokens=4000, temperature=0.9)
        (state / "ask/q").write_text("Tell me a very long story.")
        readers = [subprocess.Popen(["cat", state / "replies/q"], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL) for _ in range(8)]
        wait_until(lambda: (state / "replies/q").stat().st_size > 0, what="the first words")
        daemon.kill()
        for reader in readers:
            reader.wait(timeout=20)  # none hangs
        daemon.start()  # over the stale mount
        self.assertTrue(mounted(daemon.mount))
        (daemon.states / "s/ctl").write_text("cancel q\n")
        daemon.process.send_signal(signal.SIGINT)
        self.assertEqual(daemon.process.wait(timeout=10), 0)


if __name__ == "__main__":
    unittest.main()
