#!/usr/bin/env python3
"""Plants includes, and sees check_includes.py find the wrong ones and only those."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import check_includes  # noqa: E402

FORBIDDEN = [
    ("codec/base/planted.h", '#include "codec/chunk/codec.h"'),
    ("codec/chunk/planted.cpp", '#include "engine/store/store.h"'),
    ("codec/container/planted.cpp", '#include "codec/chunk/codec.h"'),
    ("engine/store/planted.cpp", '#include "engine/text/tokenizer.h"'),
    ("engine/text/planted.cpp", '#include "engine/prune/policy.h"'),
    ("engine/sched/planted.cpp", '#include "engine/model/llama.h"'),
    ("engine/sched/planted.cpp", '#include "fs/mount.h"'),
    ("engine/model/planted.cpp", '#include "engine/store/store.h"'),
    ("engine/model/planted.h", "#include <ATen/ATen.h>"),
    ("engine/model/model.h", '#include "engine/model/planted_torch.h"'),
    ("engine/model/planted.h", '#include "engine/model/cuda/planted.h"'),
    ("engine/sched/planted.cpp", "#  include <torch/torch.h>"),
    ("daemon/http/planted.cpp", '#include "fs/mount.h"'),
    ("daemon/planted.cpp", "#include <cuda_runtime.h>"),
    ("daemon/planted.cpp", "#include <c10/core/Device.h>"),
    ("daemon/planted.cpp", '#include "engine/model/planted_torch.h"'),
    ("fs/planted.cpp", '#include "engine/model/model.h"'),
    ("fs/planted.cpp", '#include "planted.h"'),
    ("fs/planted.cpp", '#include "../codec/base/result.h"'),
    ("fs/planted.cpp", '#include "fs/../codec/base/result.h"'),
    ("fs/planted.cpp", "#include <codec/base/result.h>"),
    ("daemon/planted.cpp", "#include <fuse3/fuse_lowlevel.h>"),
    ("daemon/planted.cpp", "#include <fuse_lowlevel.h>"),
    ("cli/planted.cpp", '#include "engine/text/tokenizer.h"'),
    ("cli/planted.cpp", '#include "tests/planted.h"'),
    ("tests/codec/base/planted.cpp", "#include <torch/torch.h>"),
    ("engine/planted.cpp", ""),
]

ALLOWED = [
    ("codec/chunk/planted.cpp", '#include "codec/base/result.h"'),
    ("engine/sched/planted.cpp", '#include "engine/model/model.h"'),
    ("engine/sched/planted.cpp", '#include "engine/model/sampling.h"'),
    ("engine/model/planted.cpp", "#include <ATen/ATen.h>"),
    ("engine/model/planted_torch.h", "#include <ATen/ATen.h>"),
    ("engine/model/cuda/planted.h", "#include <cuda_runtime.h>"),
    ("engine/model/cuda/planted.cu", '#include "engine/model/planted_torch.h"'),
    ("fs/planted.h", "#include <fuse3/fuse_lowlevel.h>"),
    ("fs/planted.cpp", '#include "engine/sched/job.h"'),
    ("daemon/planted.cpp", '#include "fs/mount.h"'),
    ("cli/planted.cpp", "#include <sys/socket.h>"),
    ("tests/engine/model/planted.cpp", "#include <torch/torch.h>"),
    ("tests/engine/model/cuda/planted.h", "#include <cuda_runtime.h>"),
    ("tests/fs/planted.cpp", '#include "engine/model/model.h"'),
]


class CheckIncludesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def plant(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def test_forbidden_includes_are_found(self):
        for path, line in FORBIDDEN:
            with self.subTest(path=path, line=line):
                self.plant(path, line)
                self.assertEqual(1, len(check_includes.check_file(self.root, path)))

    def test_allowed_includes_are_not(self):
        for path, line in ALLOWED:
            with self.subTest(path=path, line=line):
                self.plant(path, line)
                self.assertEqual([], check_includes.check_file(self.root, path))

    def test_a_violation_in_a_copy_of_the_tree_fails_the_script(self):
        for top in check_includes.TOPS:
            source = HERE.parents[1] / top
            if source.exists():
                shutil.copytree(source, self.root / top)
        self.plant("cli/planted.cpp", '\n#include "fs/mount.h"\n')
        run = subprocess.run([sys.executable, "-B", HERE / "check_includes.py", self.root],
                             capture_output=True, text=True)
        self.assertEqual(1, run.returncode)
        self.assertIn('cli/planted.cpp:2: cli may not include "fs/mount.h"', run.stdout)


if __name__ == "__main__":
    unittest.main()
