"""The tree and the files that users leave in it, as POSIX has them. KVFS_POSIX_SECONDS: longer."""

import contextlib
import ctypes
import errno
import gzip
import json
import mmap
import multiprocessing
import os
import stat
import struct
import subprocess
import time
import unittest

import posix_model
from harness import DaemonTest

LIBC = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534


def as_nobody(function, *arguments):
    """The errno that it fails with for an ordinary user; 0 where it does not."""
    child = os.fork()
    if child == 0:
        os.setgid(NOBODY), os.setuid(NOBODY)
        try:
            function(*arguments)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def make_one(path):
    try:
        os.mkdir(path)
        return 1
    except FileExistsError:
        return 0


class Posix(DaemonTest):
    EXTRA = ("-o", "allow_other")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.daemon.directory, 0o755)

    def setUp(self):
        self.here = self.state()
        self.file = self.here / "file"
        self.file.write_bytes(b"content")

    @contextlib.contextmanager
    def refused(self, *numbers):
        with self.assertRaises(OSError) as raised:
            yield
        self.assertIn(raised.exception.errno, numbers, raised.exception)

    def test_four_processes_do_at_random_what_a_model_says(self):
        self.file.unlink()  # else each state below begins with it
        seconds = float(os.environ.get("KVFS_POSIX_SECONDS", "30"))
        steps = 1 << 60 if "KVFS_POSIX_SECONDS" in os.environ else 250
        self.assertEqual(posix_model.main(
            [str(self.here / "work"), "--seconds", str(seconds), "--steps", str(steps)]), 0)
        subprocess.run(["rm", "-rf", self.here / "work"], check=True)

    def test_open_says_what_is_wrong(self):
        down, loop = self.here / "down", self.here / "loop"
        down.mkdir()
        loop.symlink_to("loop")
        (self.here / "link").symlink_to("file")
        (self.here / "dangling").symlink_to("nowhere")
        for path, flags, number in [
                (self.file, os.O_CREAT | os.O_EXCL, errno.EEXIST),
                (self.here / "dangling", os.O_CREAT | os.O_EXCL, errno.EEXIST),
                (self.here / "dangling", os.O_RDONLY, errno.ENOENT),
                (self.here / "link", os.O_RDONLY | os.O_NOFOLLOW, errno.ELOOP),
                (loop, os.O_RDONLY, errno.ELOOP),
                (self.file, os.O_RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
                (down, os.O_WRONLY, errno.EISDIR),
                (down, os.O_RDONLY | os.O_CREAT, errno.EISDIR),
                (self.file / "below", os.O_RDONLY, errno.ENOTDIR),
                (self.here / "missing/below", os.O_CREAT | os.O_WRONLY, errno.ENOENT),
                (self.here / ("n" * 256), os.O_CREAT | os.O_WRONLY, errno.ENAMETOOLONG),
                ("/".join([str(self.here)] + ["x" * 200] * 21), os.O_RDONLY, errno.ENAMETOOLONG)]:
            with self.subTest(path=str(path)[-40:], flags=flags), self.refused(number):
                os.close(os.open(path, flags, 0o600))

    def test_names_are_refused_in_words_of_posix(self):
        down = self.here / "down"
        (down / "below").mkdir(parents=True)
        cases = [
            (os.unlink, (down,), errno.EISDIR), (os.rmdir, (self.file,), errno.ENOTDIR),
            (os.rmdir, (down,), errno.ENOTEMPTY), (os.rmdir, (self.here / "no",), errno.ENOENT),
            (os.rmdir, (f"{down}/.",), errno.EINVAL), (os.rmdir, (f"{down}/below/..",), errno.ENOTEMPTY),
            (os.mkdir, (self.file,), errno.EEXIST), (os.mkdir, (self.file / "x",), errno.ENOTDIR),
            (os.mkdir, (self.here / ("d" * 256),), errno.ENAMETOOLONG),
            (os.rename, (down, down / "below/inside"), errno.EINVAL),
            (os.rename, (self.file, down), errno.EISDIR),
            (os.rename, (down, self.file), errno.ENOTDIR),
            (os.rename, (self.file, self.here / "no/file"), errno.ENOENT),
            (os.rename, (self.here / "no", self.file), errno.ENOENT),
            (os.rename, (f"{self.here}/.", self.here / "x"), errno.EBUSY),
            (os.rename, (self.file, self.here / ("n" * 256)), errno.ENAMETOOLONG),
            (os.link, (self.file, self.here / "hard"), errno.EPERM),
            (os.symlink, ("x", self.file), errno.EEXIST), (os.readlink, (self.file,), errno.EINVAL),
            (os.symlink, ("x" * 4096, self.here / "long"), errno.ENAMETOOLONG),
            (os.truncate, (down, 0), errno.EISDIR), (os.truncate, (self.file, -1), errno.EINVAL),
            (os.truncate, (self.here / "no", 0), errno.ENOENT),
            (os.mkfifo, (self.here / "fifo",), errno.EPERM),
            (os.chmod, (self.here / "no", 0o600), errno.ENOENT)]
        for function, arguments, number in cases:
            with self.subTest(function=function.__name__, last=str(arguments[-1])[-20:]):
                with self.refused(number):
                    function(*arguments)
        self.assertEqual(self.file.read_bytes(), b"content")

    def test_an_ordinary_user_is_held_to_the_modes(self):
        os.chmod(self.here, 0o755)
        os.chmod(self.file, 0o600)
        own = self.here / "own"
        own.write_text("x")
        os.chown(own, NOBODY, NOBODY)
        self.assertEqual(as_nobody(os.open, self.file, os.O_RDONLY), errno.EACCES)
        self.assertEqual(as_nobody(os.mkdir, self.here / "theirs"), errno.EACCES)
        self.assertEqual(as_nobody(os.unlink, own), errno.EACCES)
        self.assertEqual(as_nobody(os.rename, own, self.here / "x"), errno.EACCES)
        self.assertEqual(as_nobody(os.chmod, self.file, 0o666), errno.EPERM)
        self.assertEqual(as_nobody(os.chown, own, 0, 0), errno.EPERM)
        self.assertEqual(as_nobody(os.utime, self.file), errno.EACCES)
        self.assertEqual(as_nobody(os.chmod, own, 0o640), 0)
        self.assertEqual(as_nobody(os.truncate, own, 100), 0)
        self.assertEqual(stat.S_IMODE(own.stat().st_mode), 0o640)
        os.chmod(self.here, 0o700)
        self.assertEqual(as_nobody(os.stat, own), errno.EACCES)

    def test_times_follow_what_is_done(self):
        def after(action, path):
            before = os.stat(path)
            time.sleep(0.02)
            action()
            now = os.stat(path)
            return now.st_mtime_ns > before.st_mtime_ns, now.st_ctime_ns > before.st_ctime_ns
        file = self.file
        self.assertEqual(after(lambda: file.write_bytes(b"new"), file), (True, True))
        self.assertEqual(after(lambda: os.truncate(file, 1), file), (True, True))
        self.assertEqual(after(lambda: os.chmod(file, 0o640), file), (False, True))
        self.assertEqual(after(lambda: os.chown(file, 1, 1), file), (False, True))
        self.assertEqual(after(lambda: file.read_bytes(), file), (False, False))
        self.assertEqual(after(lambda: os.utime(file), file), (True, True))
        os.utime(file, ns=(1_000_000_007, 5_000_000_009))
        self.assertEqual(file.stat().st_mtime_ns, 5_000_000_009)
        LIBC.utimensat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
        omit = (1 << 30) - 2
        times = (ctypes.c_long * 4)(0, omit, 0, omit)
        self.assertEqual(LIBC.utimensat(-100, os.fsencode(file), times, 0), 0)
        self.assertEqual(file.stat().st_mtime_ns, 5_000_000_009)
        self.file.rename(self.here.parent / "file")  # else a child begins with it
        file = self.here.parent / "file"
        for action in (lambda: (self.here / "d").mkdir(), lambda: (self.here / "d").rmdir(),
                       lambda: (self.here / "new").write_text("x"),
                       lambda: os.rename(file, self.here / "moved"),
                       lambda: os.unlink(self.here / "new"),
                       lambda: (self.here / "l").symlink_to("x")):
            self.assertEqual(after(action, self.here), (True, True))

    def test_open_files_outlive_their_names(self):
        with open(self.file, "r+b") as file, open(self.here / "other", "wb") as other:
            other.write(b"other")
            other.flush()
            os.rename(self.here / "other", self.file)
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            self.assertEqual(file.read(), b"content")
            file.write(b" and more")
            file.flush()
            self.assertEqual(os.pread(file.fileno(), 100, 0), b"content and more")
            self.assertEqual(self.file.read_bytes(), b"other")
            self.assertEqual(os.fstat(other.fileno()).st_nlink, 1)

    def test_appends_of_several_never_overwrite_each_other(self):
        def append(letter):
            with open(self.file, "ab", buffering=0) as out:
                for _ in range(100):
                    out.write(letter * 37)
        workers = [multiprocessing.get_context("fork").Process(target=append, args=(bytes([65 + i]),))
                   for i in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        content = self.file.read_bytes()[7:]
        self.assertEqual(len(content), 4 * 100 * 37)
        for i in range(0, len(content), 37):
            self.assertEqual(len(set(content[i:i + 37])), 1)

    def test_of_many_that_make_one_name_one_does(self):
        for round_ in range(10):
            with multiprocessing.get_context("fork").Pool(8) as pool:
                made = pool.map(make_one, [str(self.here / f"one{round_}")] * 8, chunksize=1)
            self.assertEqual(sum(made), 1)

    def test_a_listing_while_names_change_has_those_that_stay_once(self):
        many = self.here / "many"
        many.mkdir()
        stable = {f"s{i}" for i in range(300)}
        for name in stable:
            (many / name).touch()

        def stir():
            for i in range(400):
                (many / f"t{i % 50}").write_text("x")
                with contextlib.suppress(OSError):
                    os.unlink(many / f"t{(i * 7) % 50}")
        stirrer = multiprocessing.get_context("fork").Process(target=stir)
        stirrer.start()
        listings = 0
        while stirrer.is_alive() or listings == 0:
            names = os.listdir(many)
            self.assertEqual(len(names), len(set(names)))
            self.assertLessEqual(stable, set(names))
            listings += 1
        stirrer.join()
        self.assertEqual(stirrer.exitcode, 0)

    def test_what_is_listed_and_removed_meanwhile_goes_whole(self):
        many = self.here / "many"
        many.mkdir()
        for i in range(500):
            (many / f"s{i}").touch()
        for entry in os.scandir(many):  # as `rm -r` does
            if entry.name.startswith("s") and entry.name[1:].isdigit():
                os.unlink(entry.path)
        self.assertEqual([n for n in os.listdir(many) if n[1:].isdigit()], [])

    def test_names_from_hell(self):
        names = ["n" * 255, "new\nline", "tab\t", "\x1b[2J\x1b[31m", "\u202egpj.exe", "\udcff\udc80\udcfe",
                 "-rf", "*", "$(reboot)", "`x`", "\"'\\", " ", "...", "ä" * 127, "..snap", "\x7f\x01"]
        self.file.unlink()  # else each child begins with it
        for name in names:
            with self.subTest(name=name):
                (self.here / name).mkdir()
                self.assertTrue((self.here / name / "ask").is_dir())
                self.assertIn(name, os.listdir(self.here))
                (self.here / name / name).write_text(name, errors="surrogateescape")
                self.assertEqual((self.here / name / name).read_text(errors="surrogateescape"), name)
                os.rename(self.here / name / name, self.here / "back")
                os.rename(self.here / name, self.here / "dir")
                os.rmdir(self.here / "dir")
                os.unlink(self.here / "back")
        shown = self.daemon.kvfs("tree", check=False).stdout + self.daemon.kvfs("ls", check=False).stdout
        self.assertNotIn("\x1b", shown)

    def test_snapshots_hold_against_odd_names(self):
        snaps = self.here / ".snap"
        (snaps / "v1").mkdir()
        for path, numbers in [(snaps / ("s" * 256), (errno.ENAMETOOLONG,)),
                              (snaps / "v1/.snap/v2", (errno.ENOENT, errno.EPERM)),
                              (snaps / "v1/child", (errno.EPERM,)), (snaps / "v1", (errno.EEXIST,))]:
            with self.refused(*numbers):
                os.mkdir(path)
        with self.refused(errno.EPERM):
            (snaps / "v1/note").write_text("x")
        with self.refused(errno.EXDEV, errno.EPERM):
            os.rename(snaps / "v1", self.here / "v1")
        with self.refused(errno.EPERM, errno.ENOTEMPTY, errno.EBUSY):
            os.rmdir(snaps)
        self.assertEqual(os.path.realpath(snaps / "v1/../.."), os.path.realpath(self.here))
        self.assertTrue(os.path.samefile(f"{snaps}/v1/../..", self.here))
        for name in ("new\nline", "\u202e", "s" * 255, "\udcff"):
            (snaps / name).mkdir()
            (snaps / name).rmdir()
        (snaps / "v1").rmdir()

    def test_offsets_and_sizes_at_the_edges(self):
        with open(self.file, "r+b") as file:
            for at in (2**62, 2**63 - 1, 2**63 - 5):
                with self.refused(errno.EFBIG, errno.EINVAL):
                    os.pwrite(file.fileno(), b"0123456789", at)
            self.assertEqual(os.pread(file.fileno(), 10, 2**62), b"")
            with self.refused(errno.EFBIG, errno.EINVAL):
                os.truncate(self.file, 2**63 - 1)
            os.truncate(self.file, 10**12)
            os.pwrite(file.fileno(), b"end", 10**12 - 3)
            self.assertEqual(os.fstat(file.fileno()).st_size, 10**12)
            self.assertEqual(os.pread(file.fileno(), 100, 10**12 - 6), b"\0\0\0end")
            self.assertEqual(os.pread(file.fileno(), 7, 0), b"content")
            self.assertEqual(os.lseek(file.fileno(), 10**7, os.SEEK_DATA) // 2**20, 10**12 // 2**20)
        self.assertLess(self.file.stat().st_blocks, 10**6)
        begin = time.monotonic()
        os.truncate(self.file, 3)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(self.file.read_bytes(), b"con")

    def test_bundles_that_lie_about_their_sizes(self):
        def safetensors(length, offsets, data=b"x" * 64):
            header = json.dumps({"input_ids": {"dtype": "I64", "shape": [8], "data_offsets": offsets}}).encode()
            return struct.pack("<Q", len(header) if length is None else length) + header + data

        def npz(size):
            name, data = b"input_ids.npy", b"\x93NUMPY\x01\x00"
            local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, size, size, len(name), 0) + name
            central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, size, size, len(name),
                                  0, 0, 0, 0, 0, 0) + name
            return local + data + central + struct.pack(
                "<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + len(data), 0)
        def kvfs(size):
            return b"\x89kvfs\r\n\x1a" + struct.pack("<IIQ", 1, 0, size) + b"\xff" * 16 + b"\1" + b"\xff" * 8
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", 65535)
        lies = {"a.safetensors": [safetensors(None, [0, 1 << 62]), safetensors(None, [64, 0]),
                                  safetensors(None, [-8, 56]), safetensors(None, [0, 64], b""),
                                  safetensors((1 << 63) - 1, [0, 64]), safetensors(1 << 40, [0, 64]),
                                  safetensors(0, [0, 64]), b"\xff" * 8],
                "a.npz": [npz(0xFFFFFFFE), npz(8)[:-30], b"PK\5\6" + b"\xff" * 18, npy],
                "a.pt": [npz(0x7FFFFFFF), b"\x80\x02" + b"X" + b"\xff" * 4],
                "a.pkl": [b"\x80\x04\x95" + b"\xff" * 8, b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f"],
                "a.kvfs": [kvfs((1 << 64) - 1), kvfs(1 << 40), kvfs(9), kvfs(0), kvfs(9)[:12]],
                "a.pkl.gz": [gzip.compress(b"\0" * 1000)[:-20], b"\x1f\x8b" + b"\xff" * 30]}
        bundles = self.daemon.mount / "bundles"
        for name, contents in lies.items():
            for i, content in enumerate(contents):
                with self.subTest(name=name, lie=i):
                    with self.refused(errno.EINVAL, errno.EOPNOTSUPP, errno.EIO, errno.EFBIG):
                        (bundles / name).write_bytes(content)
                    self.assertFalse((self.daemon.states / "a").exists())
        self.assertIsNone(self.daemon.process.poll())

    def test_a_mapping_writes_and_sees_what_is_written(self):
        self.file.write_bytes(bytes(300_000))
        with open(self.file, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[200_000:200_005] = b"mapped"[:5]
            mapped.flush()
            self.assertEqual(os.pread(file.fileno(), 5, 200_000), b"mappe")
        self.assertEqual(self.file.read_bytes()[200_000:200_005], b"mappe")

    def test_a_deep_tree(self):
        path = self.here
        for i in range(60):
            path = path / f"level{i}"
            path.mkdir()
            if i < 3:
                (path / "note").write_text(str(i))
        self.assertEqual((path / "note").read_text(), "2")  # each began as a fork of the one above
        with self.refused(errno.EINVAL):
            os.rename(self.here / "level0", path / "inside")
        subprocess.run(["rm", "-r", self.here / "level0"], check=True)
        self.assertFalse((self.here / "level0").exists())


if __name__ == "__main__":
    unittest.main()
