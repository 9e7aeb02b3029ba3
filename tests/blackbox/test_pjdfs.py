"""pjdfstest's cases that need no device, fifo, socket or hard link, each as root and as an ordinary user."""

import errno
import os
import stat
import traceback
import unittest

from harness import DaemonTest

ROOT, NOBODY, OTHER = 0, 65534, 65533
LONG = "n" * 256


def as_user(uid, function, *arguments):
    """Runs it in a process of that user's; fails with its words."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.umask(0o022)
            if uid != ROOT:
                os.setgroups([]), os.setgid(uid), os.setuid(uid)
            function(*arguments)
            os._exit(0)
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-4000:])
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as words:
        said = words.read().decode()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise AssertionError(f"as user {uid}: {said}")


def says(function, *arguments, **words):
    """The errno it fails with; 0 where it does not."""
    try:
        made = function(*arguments, **words)
    except OSError as error:
        return error.errno
    if function is os.open:
        os.close(made)
    return 0


def must_say(wanted, function, *arguments, **words):
    got = says(function, *arguments, **words)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    if got not in wanted:
        raise AssertionError(f"{function.__name__}{arguments}: {errno.errorcode.get(got, got)}, not "
                             + " or ".join(errno.errorcode.get(number, str(number)) for number in wanted))


def touch(path, text="content", mode=0o644):
    with open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode), "w") as file:
        file.write(text)


def content(path):
    with open(path) as file:
        return file.read()


class Pjdfs(DaemonTest):
    EXTRA = ("-o", "allow_other")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.daemon.directory, 0o755)

    def for_each_user(self, function):
        if os.getuid() != ROOT:
            self.skipTest("needs root, to be others")
        for uid in (ROOT, NOBODY):
            with self.subTest(uid=uid):
                place = str(self.daemon.states / f"{self._testMethodName[5:]}-{uid}")
                as_user(uid, os.mkdir, place)
                as_user(uid, self.inside, function, place)

    @staticmethod
    def inside(function, place):
        os.chdir(place)
        function()

    def test_every_call_knows_a_bad_path(self):
        def case():
            touch("file")
            os.symlink("loop", "loop")
            calls = [(os.open, (os.O_RDONLY,)), (os.open, (os.O_CREAT | os.O_WRONLY,)), (os.mkdir, ()),
                     (os.rmdir, ()), (os.unlink, ()), (os.chmod, (0o600,)), (os.chown, (-1, -1)),
                     (os.truncate, (0,)), (os.stat, ()), (os.lstat, ()), (os.readlink, ()),
                     (os.utime, ()), (os.rename, ("elsewhere",)), (os.listdir, ())]
            bad = [("file/below", errno.ENOTDIR), ("missing/below", errno.ENOENT),
                   ("loop/below", errno.ELOOP), (LONG, errno.ENAMETOOLONG),
                   (f"{LONG}/below", errno.ENAMETOOLONG), ("x/" * 2100 + "x", errno.ENAMETOOLONG)]
            for function, more in calls:
                for path, wanted in bad:
                    must_say(wanted, function, path, *more)
            for path, wanted in bad:
                must_say(wanted, os.symlink, "target", path)
                must_say(wanted, os.rename, "file", path)
            assert content("file") == "content"
        self.for_each_user(case)

    def test_what_is_renamed_onto_what(self):
        def case():
            def fresh(kind, name):
                {"file": lambda: touch(name, name), "link": lambda: os.symlink(name + "-target", name),
                 "dir": lambda: os.mkdir(name), "none": lambda: None}[kind]()
            wanted = {("file", "dir"): (errno.EISDIR,), ("link", "dir"): (errno.EISDIR,),
                      ("dir", "file"): (errno.ENOTDIR,), ("dir", "link"): (errno.ENOTDIR,),
                      ("dir", "dir"): (errno.EEXIST, errno.ENOTEMPTY)}  # a state has what it has
            for i, source in enumerate(("file", "link", "dir")):
                for j, target in enumerate(("none", "file", "link", "dir")):
                    a, b = f"a{i}{j}", f"b{i}{j}"
                    fresh(source, a), fresh(target, b)
                    before = os.lstat(a).st_ino
                    refusal = wanted.get((source, target), (0,))
                    must_say(refusal, os.rename, a, b)
                    assert os.lstat(b if refusal == (0,) else a).st_ino == before
                    assert os.path.lexists(a) == (refusal != (0,))
            touch("same"), must_say(0, os.rename, "same", "same")
            os.mkdir("down"), os.mkdir("down/below"), touch("down/below/note", "deep")
            must_say(errno.EINVAL, os.rename, "down", "down/below/inside")
            must_say(0, os.rename, "down/below", "up")
            assert content("up/note") == "deep" and not os.path.exists("down/below")
        self.for_each_user(case)

    def test_names_that_are_taken_and_directories_that_are_not_empty(self):
        def case():
            os.mkdir("full"), os.mkdir("full/child"), os.mkdir("noted"), touch("noted/note")
            os.mkdir("dir"), touch("file"), os.symlink("nowhere", "dangling")
            for name in ("file", "dir", "dangling", "dir/.", "dir/.."):
                must_say(errno.EEXIST, os.mkdir, name)
                must_say(errno.EEXIST, os.symlink, "x", name)
                must_say((errno.EEXIST, errno.EISDIR), os.open, name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            must_say(errno.ENOTEMPTY, os.rmdir, "full")
            must_say(errno.ENOTEMPTY, os.rmdir, "noted")
            must_say(errno.EINVAL, os.rmdir, "full/.")
            must_say((errno.ENOTEMPTY, errno.EINVAL), os.rmdir, "full/child/..")
            must_say(errno.ENOTDIR, os.rmdir, "dangling")
            must_say(errno.EISDIR, os.unlink, "dir")
            must_say(errno.EPERM, os.link, "file", "hard")
            for name in ("full/child", "full"):
                must_say(0, os.rmdir, name)
        self.for_each_user(case)

    def test_flags_of_open(self):
        def case():
            touch("file", "0123456789")
            os.symlink("file", "link")
            must_say(errno.ELOOP, os.open, "link", os.O_RDONLY | os.O_NOFOLLOW)
            must_say(errno.ENOTDIR, os.open, "file", os.O_RDONLY | os.O_DIRECTORY)
            must_say(errno.EISDIR, os.open, ".", os.O_RDWR)
            for flags, wanted in ((os.O_APPEND, "0123456789ab"), (0, "ab23456789ab"), (os.O_TRUNC, "ab")):
                at = os.open("link", os.O_WRONLY | flags)
                os.write(at, b"ab")
                os.close(at)
                assert content("file") == wanted, (flags, content("file"))
            at = os.open("sealed", os.O_CREAT | os.O_WRONLY, 0)  # its maker may write nevertheless
            os.write(at, b"x")
            os.close(at)
            assert stat.S_IMODE(os.stat("sealed").st_mode) == 0
            os.umask(0o027)
            touch("masked", mode=0o666)
            assert stat.S_IMODE(os.stat("masked").st_mode) == 0o640
            info = os.stat("masked")
            assert (info.st_uid, info.st_gid) == (os.getuid(), os.getgid())
            if os.getuid() != ROOT:
                must_say(errno.EACCES, os.open, "sealed", os.O_RDONLY)
                os.chmod("masked", 0o400)
                must_say(errno.EACCES, os.open, "masked", os.O_WRONLY)
                must_say(errno.EACCES, os.open, "masked", os.O_RDONLY | os.O_TRUNC)
                must_say(errno.EACCES, os.truncate, "masked", 0)
        self.for_each_user(case)

    def test_sizes_by_truncate(self):
        def case():
            touch("file", "0123456789")
            os.truncate("file", 4), os.truncate("file", 300_000)
            with open("file", "rb") as file:
                assert file.read() == b"0123" + bytes(299_996)
            before = os.stat("file").st_ctime_ns
            os.truncate("file", 300_000)
            assert os.stat("file").st_ctime_ns >= before
            at = os.open("file", os.O_RDONLY)
            must_say((errno.EINVAL, errno.EBADF), os.ftruncate, at, 0)
            os.close(at)
            must_say(errno.EINVAL, os.truncate, "file", -1)
            must_say(errno.EISDIR, os.truncate, ".", 0)
            at = os.open("file", os.O_RDWR)
            os.unlink("file")
            os.ftruncate(at, 2)
            assert os.fstat(at).st_size == 2 and os.pread(at, 9, 0) == b"01"
            os.close(at)
        self.for_each_user(case)

    def test_times_by_utimensat(self):
        def case():
            touch("file"), os.symlink("file", "link"), os.mkdir("dir")
            for name in ("file", "dir"):
                os.utime(name, ns=(5, 1_000_000_000_123_456_789))
                assert os.stat(name).st_mtime_ns == 1_000_000_000_123_456_789, name
                before = os.stat(name).st_mtime_ns
                os.utime(name)
                assert os.stat(name).st_mtime_ns > before
            os.utime("link", ns=(7_000_000_000, 7_000_000_000))
            assert os.stat("file").st_mtime_ns == 7_000_000_000
            os.utime("link", ns=(9_000_000_000, 9_000_000_000), follow_symlinks=False)
            assert os.stat("file").st_mtime_ns == 7_000_000_000
            assert os.lstat("link").st_mtime_ns == 9_000_000_000
            os.chown("link", os.getuid(), os.getgid(), follow_symlinks=False)
        self.for_each_user(case)

    def test_owners_and_modes(self):
        def case():
            touch("file"), os.mkdir("dir")
            for mode in (0o000, 0o111, 0o444, 0o640, 0o777):
                os.chmod("file", mode)
                assert stat.S_IMODE(os.stat("file").st_mode) == mode
            os.chmod("dir", 0o750)
            assert stat.S_IMODE(os.stat("dir").st_mode) == 0o750
            before = os.stat("file")
            os.chown("file", -1, -1)
            os.chown("file", os.getuid(), os.getgid())
            assert (os.stat("file").st_uid, os.stat("file").st_gid) == (before.st_uid, before.st_gid)
            if os.getuid() == ROOT:
                os.chown("file", 12, 34)
                assert (os.stat("file").st_uid, os.stat("file").st_gid) == (12, 34)
            else:
                must_say(errno.EPERM, os.chown, "file", 12, -1)
                must_say(errno.EPERM, os.chown, "file", -1, 12)
                must_say(errno.EPERM, os.chown, "dir", ROOT, -1)
        self.for_each_user(case)

    def test_what_is_anothers_stays_anothers(self):
        if os.getuid() != ROOT:
            self.skipTest("needs root, to be others")
        states = str(self.daemon.states)
        mine, theirs = f"{states}/mine", f"{states}/theirs"
        as_user(NOBODY, os.mkdir, mine)
        as_user(NOBODY, touch, f"{mine}/open", "mine", 0o666)
        as_user(NOBODY, touch, f"{states}/note", "mine", 0o666)
        as_user(OTHER, os.mkdir, theirs)
        must_say(0, os.chmod, mine, 0o755)
        for name in (f"{mine}/open", f"{states}/note"):
            must_say(0, os.chmod, name, 0o666)

        def case():
            for path in (mine, f"{mine}/open", f"{states}/note"):
                must_say(errno.EPERM, os.chmod, path, 0o777)
                must_say(errno.EPERM, os.chown, path, OTHER, OTHER)
                must_say(errno.EPERM, os.utime, path, ns=(1, 1))
            must_say(0, os.utime, f"{mine}/open")  # now: who may write may say so
            must_say(errno.EACCES, os.utime, mine)
            for function, arguments in ((os.unlink, (f"{mine}/open",)), (os.mkdir, (f"{mine}/child",)),
                                        (os.rename, (f"{mine}/open", f"{theirs}/open")),
                                        (os.rename, (f"{theirs}", f"{mine}/child")),
                                        (os.symlink, ("x", f"{mine}/link")),
                                        (os.open, (f"{mine}/new", os.O_CREAT | os.O_WRONLY))):
                must_say(errno.EACCES, function, *arguments)
            # states/ is sticky, as /tmp is.
            must_say(errno.EPERM, os.rmdir, mine)
            must_say(errno.EPERM, os.unlink, f"{states}/note")
            must_say(errno.EPERM, os.rename, mine, f"{theirs}/stolen")
            must_say(errno.EPERM, os.rename, f"{states}/note", f"{states}/stolen")
            must_say((errno.EPERM, errno.EACCES), os.mkdir, f"{mine}/.snap/v1")
            must_say(errno.EACCES, os.open, f"{mine}/params/seed", os.O_WRONLY)
            must_say(errno.EACCES, os.open, f"{mine}/ask/q", os.O_CREAT | os.O_WRONLY)
        as_user(OTHER, case)
        must_say(0, os.chmod, mine, 0o700)

        def hidden():
            for function, arguments in ((os.listdir, (mine,)), (os.stat, (f"{mine}/open",)),
                                        (os.open, (f"{mine}/status", os.O_RDONLY)), (os.chdir, (mine,))):
                must_say(errno.EACCES, function, *arguments)
        as_user(OTHER, hidden)
        self.assertEqual(content(f"{mine}/open"), "mine")


if __name__ == "__main__":
    unittest.main()
