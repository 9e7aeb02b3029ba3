#!/usr/bin/env python3
"""check_includes.py [ROOT]: fails when a folder of the house includes what it may not.

Prints FILE:LINE: what is wrong; what to do. Looks at direct includes alone: what a header may not
include cannot come through it either.
"""

import re
import sys
from pathlib import Path

# The arrows: what each room may include of the house beside itself. A folder stands for all in it.
CODEC = ["codec/base", "codec/chunk", "codec/container"]
MAY_INCLUDE = {
    "codec/base": [],
    "codec/chunk": ["codec/base"],
    "codec/container": ["codec/base"],
    "engine/store": CODEC,
    "engine/text": CODEC,
    "engine/prune": CODEC,
    "engine/sched": CODEC + ["engine/store", "engine/text", "engine/prune",
                             "engine/model/model.h", "engine/model/pruning.h",
                             "engine/model/sampling.h"],
    "engine/model": CODEC + ["engine/text", "engine/prune"],
    "fs": CODEC + ["engine/store", "engine/text", "engine/prune", "engine/sched"],
    "daemon/http": CODEC + ["engine/store", "engine/text", "engine/prune", "engine/sched",
                            "engine/model/model.h"],
    "daemon": ["codec", "engine", "fs"],
    "cli": CODEC,
}
TOPS = sorted({room.split("/")[0] for room in MAY_INCLUDE} | {"tests"})

TORCH = re.compile(r"(torch|ATen|c10)/|(cuda|cublas|cudnn|cupti|curand|cusolver|cusparse|nccl)\w*\.h$"
                   r"|cuda/|cooperative_groups|cub/|nvtx3/|mma\.h$")
FUSE = re.compile(r"fuse\w*(/\w+)?\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SUFFIXES = {".h", ".hpp", ".inc", ".c", ".cc", ".cpp", ".cu", ".cuh"}


def within(path, folder):
    return path == folder or path.startswith(folder + "/")


def room_of(path):
    """The room that a file lies in; a test stands in the room whose tests it holds."""
    path = path.removeprefix("tests/")
    return next((room for room in MAY_INCLUDE if within(path, room)), None)


def may_see_torch(path):
    """engine/model's sources, its headers that say so in their name, all of its CUDA; so its tests."""
    path = path.removeprefix("tests/")
    if room_of(path) != "engine/model":
        return False
    if within(path, "engine/model/cuda") or path.endswith("_torch.h"):
        return True
    return path.endswith((".c", ".cc", ".cpp", ".cu", ".cuh"))


def wrong_with(path, bracket, include):
    """Why `path` may not include `include`, or None."""
    room = room_of(path)
    house = include.split("/")[0] in TOPS and include.split("/")[0] != include

    if not house:
        if bracket == '"':
            return (f'"{include}" is not written from the repository\'s root; write '
                    '"folder/of/the/header.h", or <...> if it is not of the house')
        if TORCH.match(include) and not may_see_torch(path):
            return (f"<{include}> is seen outside engine/model or in a header of it; keep libtorch "
                    "and CUDA in its sources, its *_torch.h and engine/model/cuda/")
        if FUSE.match(include) and room != "fs":
            return f"<{include}> is seen outside fs; keep libfuse behind it"
        return None

    if bracket == "<":
        return f'<{include}> is of the house; write "{include}"'
    if re.search(r"(^|/)\.\.?/", include):
        return f'"{include}" walks through the tree; write the header\'s path from the root'
    torch_header = include.endswith((".h", ".cuh")) and may_see_torch(include)
    if torch_header and not may_see_torch(path):
        return f'"{include}" brings libtorch or CUDA along; only engine/model\'s sources may see it'
    if within(path, "tests"):
        return None  # a test may put any rooms together
    if include.startswith("tests/"):
        return f'"{include}" is a test\'s; the house does not include tests'
    allowed = [room] + MAY_INCLUDE[room]
    if not any(within(include, folder) for folder in allowed):
        return f'{room} may not include "{include}"; it may include {", ".join(allowed)}'
    return None


def check_file(root, path):
    """What is wrong in root/path, as FILE:LINE: WHY."""
    if room_of(path) is None and not within(path, "tests"):
        return [f"{path}:1: lies in no room; add its folder to MAY_INCLUDE in {__file__}"]
    wrong = []
    text = (root / path).read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        why = match and wrong_with(path, *match.groups())
        if why:
            wrong.append(f"{path}:{number}: {why}")
    return wrong


def check(root):
    """All that is wrong under root."""
    files = [file for top in TOPS for file in sorted((root / top).rglob("*"))
             if file.suffix in SUFFIXES and file.is_file()]
    return [why for file in files for why in check_file(root, file.relative_to(root).as_posix())]


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    wrong = check(root)
    print("\n".join(wrong) if wrong else "all includes follow the arrows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
