"""Two hundred readers wait for a reply that is not finished, two hundred more come and go: nobody else
notices, and everything that ends them works at once. Bounds are wide: CI is slow; see the figures."""

import multiprocessing
import os
import signal
import subprocess
import threading
import time
import unittest

from harness import Daemon, wait_until

READERS = 200


def wait_for_all(path, started, ended):
    """Threads that read the reply to its end, or until something ends them."""
    def read():
        try:
            with open(path, "rb", buffering=0) as reply:
                while reply.read(65536):
                    with started.get_lock():
                        started.value += 1
        except OSError:
            pass
        with ended.get_lock():
            ended.value += 1
    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def come_and_go(path, stop):
    def visit():
        while not stop.is_set():
            try:
                with open(path, "rb", buffering=0) as reply:
                    reply.read(1)
                    os.stat(path)
            except OSError:
                return
            time.sleep(0.1)
    threads = [threading.Thread(target=visit) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class ManyReaders(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.state = self.daemon.make("s", template="raw", max_tokens=6000, temperature=1,
                                      logit_bias='{"0": -100, "2": -100}')  # it never ends by itself
        (self.state / "ask/q").write_text("Once upon a time")
        self.reply = self.state / "replies/q"
        wait_until(lambda: self.reply.stat().st_size > 0, 60, "the first token")
        context = multiprocessing.get_context("fork")
        self.started, self.ended = context.Value("l", 0), context.Value("l", 0)
        self.stop = context.Event()
        self.processes = [
            context.Process(target=wait_for_all, args=(self.reply, self.started, self.ended)),
            context.Process(target=come_and_go, args=(self.reply, self.stop))]
        for process in self.processes:
            process.start()
            self.addCleanup(process.kill)
        wait_until(lambda: self.started.value >= READERS, 60, "everybody reads")

    def within(self, what, action, bound=5):
        begin = time.monotonic()
        action()
        seconds = time.monotonic() - begin
        print(f"{what}: {seconds * 1000:.0f} ms")
        self.assertLess(seconds, bound, what)

    def test_a_listing_an_interrupt_and_sigterm_come_through(self):
        def list_all():
            subprocess.run(["ls", "-l", self.daemon.states, self.state], check=True,
                           stdout=subprocess.DEVNULL)
        for _ in range(5):
            self.within("ls -l", list_all)
        cat = subprocess.Popen(["cat", self.reply], stdout=subprocess.DEVNULL)
        time.sleep(0.3)

        def interrupt():
            cat.send_signal(signal.SIGINT)
            self.assertEqual(cat.wait(10), -signal.SIGINT)
        self.within("Ctrl-C of a reader", interrupt)
        self.within("SIGTERM", self.daemon.stop)
        wait_until(lambda: self.ended.value == READERS, 10, "every reader was let go")
        self.stop.set()

    def test_a_lazy_umount_comes_through(self):
        self.within("umount -l", lambda: subprocess.run(["umount", "-l", self.daemon.mount], check=True))
        self.assertEqual(os.listdir(self.daemon.mount), [])
        self.stop.set()
        self.within("SIGTERM", self.daemon.stop)
        wait_until(lambda: self.ended.value == READERS, 10, "every reader was let go")


if __name__ == "__main__":
    unittest.main()
