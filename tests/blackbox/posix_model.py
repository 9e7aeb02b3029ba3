"""Random file operations on a directory of a mount, against a model of what must be there.

    posix_model.py DIRECTORY [--seconds 30] [--seed N] [--processes 4] [--plain]

Each process has a tree of its own below DIRECTORY and checks every answer: contents, sizes, times,
modes, listings, errnos. A directory on the mount is a state: names that every state has are not the
tree's. Meanwhile all of them meet in DIRECTORY/shared, where what may happen is several things, and
what must not is few. Ends with 1 where something differs. --plain: another file system, to try the
model itself."""

import argparse
import errno
import multiprocessing
import os
import random
import stat
import sys
import time
import traceback

DAEMONS = {"state.json", "text", "tokens.npy", "kv", "params", "feed", "continue", "ask", "replies",
           "status", "ctl"}
MOST = 3 << 20  # bytes of a file


class File:
    def __init__(self, content=b"", mode=0o644):
        self.content = bytearray(content)
        self.mode = mode
        self.mtime = None


class Link:
    def __init__(self, target):
        self.target = target


def expect(wanted, function, *arguments, **options):
    """Calls it; it must fail with that errno, or give its value where none is wanted."""
    try:
        value = function(*arguments, **options)
    except OSError as error:
        assert error.errno in (wanted if isinstance(wanted, tuple) else (wanted,)), (
            f"{function.__name__}{arguments}: {error}, wanted {wanted}")
        return None
    assert wanted == 0, f"{function.__name__}{arguments} did not fail with {wanted}"
    return value


class Tree:
    """One process's tree; directories are dicts."""

    def __init__(self, root, seed, plain):
        self.root = root
        self.plain = plain
        self.random = random.Random(seed)
        self.model = {}
        self.open = []  # (descriptor, File): unlinked or not
        self.done = 0
        os.mkdir(root)

    # --- choosing ---------------------------------------------------------------------------
    def name(self):
        kind = self.random.random()
        if kind < 0.85:
            return f"n{self.random.randrange(12)}"
        if kind < 0.9:
            return "l" * 255
        return self.random.choice(["ü" * 100, "with space", "new\nline", "\x1b[31m", "..n", ".hidden",
                                   "\u202egnp.exe", "-rf", "*", "'\"", "~", "\udcff\udcfe"])

    def directory(self):
        path, model = self.root, self.model
        while self.random.random() < 0.6:
            below = [n for n, node in model.items() if isinstance(node, dict)]
            if not below:
                break
            name = self.random.choice(sorted(below))
            path, model = os.path.join(path, name), model[name]
        return path, model

    def place(self):
        path, model = self.directory()
        name = self.name()
        return os.path.join(path, name), model, name

    def bytes(self):
        size = self.random.choice([0, 1, 100, 4096, 5000, 70_000, 131_072, 200_000])
        return self.random.randbytes(size)

    # --- operations -------------------------------------------------------------------------
    def create(self):
        path, model, name = self.place()
        if name in model:
            return expect(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        mode = self.random.choice([0o600, 0o644, 0o755, 0o400])
        descriptor = expect(0, os.open, path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
        content = self.bytes()
        assert os.write(descriptor, content) == len(content)
        model[name] = File(content, mode)
        if self.random.random() < 0.1 and len(self.open) < 8:
            self.open.append((descriptor, model[name]))
        else:
            os.close(descriptor)

    def change(self):
        path, model, name = self.place()
        file = model.get(name)
        if isinstance(file, dict):
            return expect(errno.EISDIR, os.open, path, os.O_WRONLY)
        if file is None:
            return expect(errno.ENOENT, os.open, path, os.O_WRONLY)
        if isinstance(file, Link):
            return expect(errno.ELOOP, os.open, path, os.O_WRONLY | os.O_NOFOLLOW)
        how = self.random.randrange(4)
        if how == 0:
            with open(path, "ab") as out:
                more = self.bytes()
                out.write(more)
            file.content += more
        elif how == 1:
            size = self.random.randrange(len(file.content) * 2 + 10)
            os.truncate(path, size)
            self.resize(file, size)
        elif how == 2:
            content = self.bytes()
            with open(path, "wb") as out:
                out.write(content)
            file.content[:] = content
        else:
            descriptor = os.open(path, os.O_RDWR)
            self.scribble(descriptor, file)
            os.close(descriptor)
        file.mtime = None
        assert os.stat(path).st_size == len(file.content)

    def scribble(self, descriptor, file):
        for _ in range(self.random.randrange(1, 5)):
            at = self.random.randrange(min(len(file.content) + 300_000, MOST))
            content = self.bytes()
            assert os.pwrite(descriptor, content, at) == len(content)
            if content and at > len(file.content):
                self.resize(file, at)
            file.content[at:at + len(content)] = content

    @staticmethod
    def resize(file, size):
        del file.content[size:]
        file.content += bytes(size - len(file.content))

    def held(self):
        """A descriptor that stayed open, whatever became of its name."""
        if not self.open:
            return
        i = self.random.randrange(len(self.open))
        descriptor, file = self.open[i]
        self.scribble(descriptor, file)
        file.mtime = None
        assert os.fstat(descriptor).st_size == len(file.content)
        assert os.pread(descriptor, len(file.content) + 1, 0) == file.content
        if self.random.random() < 0.5:
            os.close(descriptor)
            self.open.pop(i)

    def read(self):
        path, model, name = self.place()
        node = model.get(name)
        if isinstance(node, File):
            with open(path, "rb") as file:
                content = file.read()
            assert content == node.content, f"{path}: {len(content)}, not {len(node.content)} bytes"
        elif isinstance(node, Link):
            assert os.readlink(path) == node.target
        self.look(path, node)

    def look(self, path, node):
        if node is None:
            return expect(errno.ENOENT, os.lstat, path)
        seen = os.lstat(path)
        if isinstance(node, dict):
            assert stat.S_ISDIR(seen.st_mode)
        elif isinstance(node, Link):
            assert stat.S_ISLNK(seen.st_mode)
        else:
            assert stat.S_ISREG(seen.st_mode) and seen.st_size == len(node.content)
            assert stat.S_IMODE(seen.st_mode) == node.mode, oct(seen.st_mode)
            assert node.mtime in (None, seen.st_mtime_ns)

    def attributes(self):
        path, model, name = self.place()
        node = model.get(name)
        if not isinstance(node, File):
            return
        if self.random.random() < 0.5:
            node.mode = self.random.choice([0o600, 0o644, 0o755, 0o640])
            os.chmod(path, node.mode)
        else:
            node.mtime = self.random.randrange(2_000_000_000) * 1_000_000_000 + 17
            os.utime(path, ns=(node.mtime, node.mtime))
        self.look(path, node)

    def unlink(self):
        path, model, name = self.place()
        node = model.get(name)
        if isinstance(node, dict):
            return expect(errno.EISDIR, os.unlink, path)
        if node is None:
            return expect(errno.ENOENT, os.unlink, path)
        os.unlink(path)
        del model[name]

    def mkdir(self):
        path, model, name = self.place()
        if path.count("/") > self.root.count("/") + 12:
            return
        if name in model:
            return expect(errno.EEXIST, os.mkdir, path)
        os.mkdir(path)
        if self.plain:
            model[name] = {}
            return
        # A child begins with its parent's files: it is a fork.
        model[name] = {n: File(f.content, f.mode) if isinstance(f, File) else Link(f.target)
                       for n, f in model.items() if not isinstance(f, dict)}
        for n, f in model[name].items():
            if isinstance(f, File):
                f.mtime = model[n].mtime

    def rmdir(self):
        path, model, name = self.place()
        node = model.get(name)
        if node is None:
            return expect(errno.ENOENT, os.rmdir, path)
        if not isinstance(node, dict):
            return expect(errno.ENOTDIR, os.rmdir, path)
        if node:
            return expect(errno.ENOTEMPTY, os.rmdir, path)
        os.rmdir(path)
        del model[name]

    def rename(self):
        path, model, name = self.place()
        to, to_model, to_name = self.place()
        node, there = model.get(name), to_model.get(to_name)
        if node is None:
            return expect(errno.ENOENT, os.rename, path, to)
        if path == to:
            return os.rename(path, to)
        if isinstance(node, dict):
            if (to + "/").startswith(path + "/"):
                return expect(errno.EINVAL, os.rename, path, to)
            if there is not None and not isinstance(there, dict):
                return expect(errno.ENOTDIR, os.rename, path, to)
            if there and self.plain:
                return expect((errno.EEXIST, errno.ENOTEMPTY), os.rename, path, to)
            if there is not None and not self.plain:  # a state never replaces another
                return expect((errno.EEXIST, errno.ENOTEMPTY), os.rename, path, to)
        elif isinstance(there, dict):
            return expect((errno.EISDIR, errno.ENOTEMPTY), os.rename, path, to)
        os.rename(path, to)
        to_model[to_name] = model.pop(name)

    def symlink(self):
        path, model, name = self.place()
        if name in model:
            return expect(errno.EEXIST, os.symlink, "target", path)
        target = self.random.choice(["n1", "../n2", "/nowhere", "x" * 1000])
        os.symlink(target, path)
        model[name] = Link(target)

    def refused(self):
        path, model, name = self.place()
        if isinstance(model.get(name), File):
            if not self.plain:
                expect(errno.EPERM, os.link, path, os.path.join(self.root, "a link"))
            expect(errno.ENOTDIR, os.open, os.path.join(path, "below"), os.O_RDONLY)
            expect(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
        expect(errno.ENAMETOOLONG, os.open, os.path.join(self.root, "l" * 256), os.O_CREAT | os.O_WRONLY)
        expect(errno.ENAMETOOLONG, os.mkdir, os.path.join(self.root, "l" * 256))

    def listing(self):
        path, model = self.directory()
        seen = set(os.listdir(path)) - DAEMONS
        assert seen == set(model), f"{path}: {sorted(seen ^ set(model))}"

    def step(self):
        operations = [(self.create, 6), (self.change, 6), (self.held, 2), (self.read, 6),
                      (self.attributes, 3), (self.unlink, 3), (self.mkdir, 2), (self.rmdir, 2),
                      (self.rename, 4), (self.symlink, 1), (self.refused, 1), (self.listing, 3)]
        operation = self.random.choices(*zip(*operations))[0]
        try:
            operation()
        except Exception as error:
            raise AssertionError(f"{operation.__name__}, step {self.done}: {error}") from error
        self.done += 1

    def verify(self, path=None, model=None):
        """All of it, once more."""
        path, model = path or self.root, self.model if model is None else model
        assert set(os.listdir(path)) - DAEMONS == set(model), path
        for name, node in model.items():
            below = os.path.join(path, name)
            self.look(below, node)
            if isinstance(node, dict):
                self.verify(below, node)
            elif isinstance(node, File):
                with open(below, "rb") as file:
                    assert file.read() == node.content, below


class Meeting:
    """Where all processes work on the same few names."""

    ALLOWED = (errno.EEXIST, errno.ENOENT, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR, errno.ESTALE,
               errno.EINVAL)

    def __init__(self, root, seed):
        self.root = root
        self.random = random.Random(seed)
        self.stable = [f"stable{i}" for i in range(20)]

    def prepare(self):
        os.mkdir(self.root)
        for name in self.stable:
            with open(os.path.join(self.root, name), "w") as out:
                out.write(name)

    def step(self):
        name = os.path.join(self.root, f"c{self.random.randrange(5)}")
        other = os.path.join(self.root, f"c{self.random.randrange(5)}")
        operation = self.random.randrange(7)
        try:
            if operation == 0:
                os.mkdir(name)
            elif operation == 1:
                os.rmdir(name)
            elif operation == 2:
                with open(name, "xb") as out:
                    out.write(b"12345" * 10_000)
            elif operation == 3:
                os.unlink(name)
            elif operation == 4:
                os.rename(name, other)
            elif operation == 5:
                with open(name, "rb") as file:
                    content = file.read()  # while another writes it, perhaps
                    assert content == (b"12345" * 10_000)[:len(content)]
            else:
                listed = os.listdir(self.root)
                assert len(listed) == len(set(listed)), "a name twice"
                assert set(self.stable) <= set(listed), "a name that never changed is missing"
        except OSError as error:
            assert error.errno in self.ALLOWED, f"{operation}: {error}"


def work(directory, seed, seconds, steps, plain):
    tree = Tree(os.path.join(directory, f"tree{seed}"), seed, plain)
    meeting = Meeting(os.path.join(directory, "shared"), seed)
    end = time.monotonic() + seconds
    try:
        while tree.done < steps and time.monotonic() < end:
            tree.step()
            meeting.step()
        for descriptor, _ in tree.open:
            os.close(descriptor)
        tree.verify()
    except AssertionError as error:
        print(f"seed {seed}: {error}", file=sys.stderr)
        traceback.print_exc()
        return 1
    print(f"seed {seed}: {tree.done} steps")
    return 0


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--steps", type=int, default=1 << 60, help="of each process, at most")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args(arguments)
    os.umask(0)
    os.makedirs(given.directory, exist_ok=True)
    Meeting(os.path.join(given.directory, "shared"), given.seed).prepare()
    with multiprocessing.Pool(given.processes) as pool:
        failed = pool.starmap(work, [(given.directory, given.seed + i, given.seconds, given.steps, given.plain)
                                     for i in range(given.processes)])
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
