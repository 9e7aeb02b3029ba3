// bundles/: every state as one file, and files that become states.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "codec/container/safetensors.h"
#include "engine/sched/verbs.h"
#include "tests/fs/mounted.h"

namespace kvfs::fs::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// An .npz of the fake model's two layers, one head, 4 wide: python, for its zip files.
constexpr char kMakeNpz[] = R"PY(
import struct, sys, zipfile
name, code, count, ids = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
def npy(kind, shape, data):
    head = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (kind, tuple(shape))
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data
with zipfile.ZipFile(name, "w") as out:
    width = {"f4": "f", "f2": "e"}[code]
    for layer in range(2):
        for half in ("key", "value"):
            data = struct.pack("<%d%s" % (count * 4, width), *[0.0] * (count * 4))
            out.writestr("%s_%d.npy" % (half, layer), npy("<" + code, [1, 1, count, 4], data))
    if ids:
        text = ids[0].encode()
        out.writestr("input_ids.npy", npy("<i8", [1, len(text)], struct.pack("<%dq" % len(text), *text)))
)PY";

class Bundles : public Mounted {
 protected:
  void SetUp() override {
    Mounted::SetUp();
    outside_ = fresh_directory("kvfs-bundles");
    write_file(outside_ / "npz.py", kMakeNpz, O_WRONLY | O_CREAT);
    state_ = make_state("s", 6);
    do_job(state_ / "feed/a", std::string(600, 'x') + " and the end");
  }
  void TearDown() override {
    Mounted::TearDown();
    std::filesystem::remove_all(outside_);
  }
  std::filesystem::path bundles() const { return root() / "bundles"; }

  Outcome shell_code(const std::string& script) {
    return run("set -e; O=" + outside_.string() + "; S=" + states().string() + "; " + script,
               bundles());
  }
  void shell(const std::string& script) {
    const auto [code, output] = shell_code(script);
    EXPECT_EQ(code, 0) << script << "\n" << output;
  }
  // It fails, and `where` says why.
  void refused(const std::string& script, const std::string& why,
               const std::filesystem::path& where) {
    SCOPED_TRACE(script);
    EXPECT_NE(shell_code(script).code, 0);
    EXPECT_THAT(read_file(where / "status"), HasSubstr(why));
  }
  std::string root_of(const std::string& name) {
    const auto id = sched::resolve(house_->house().store(), name);
    if (!id || !house_->house().store().state(*id)->version) return "none";
    return house_->house().version(*id).root.hex();
  }
  std::string goes_on(const std::string& name) {
    const auto on = make_state(name + "/on", 6);
    do_job(on / "continue/go", "go on");
    std::string text = read_file(on / "text");
    EXPECT_EQ(::rmdir((states() / name / "on").c_str()), 0);
    return text;
  }
  // The same state, which goes on the same.
  void expect_same(const std::string& name) {
    SCOPED_TRACE(name);
    EXPECT_EQ(run("diff -r s/kv " + name + "/kv && cmp s/state.json " + name +
                      "/state.json && cmp s/text " + name + "/text && cmp s/tokens.npy " + name +
                      "/tokens.npy",
                  states())
                  .output,
              "");
    EXPECT_EQ(goes_on(name), goes_on("s"));
  }

  std::filesystem::path outside_, state_;
};

TEST_F(Bundles, EveryStateIsTwoFilesAndItsChildrenADirectory) {
  shell("mkdir $S/s/child $S/empty && test \"$(ls -m)\" = 'empty, s, s.pt, s.safetensors'");
  shell("test \"$(ls -m s)\" = 'child.pt, child.safetensors' && test -z \"$(ls empty)\"");
  shell(
      "cmp s.pt s/child.pt && mv $S/s/child $S/moved && cmp s.pt moved.pt && ! test -e s/child.pt");
  for (const char* name : {"s.pt", "s.safetensors"}) {
    struct stat st {};
    ASSERT_EQ(::stat((bundles() / name).c_str(), &st), 0);
    EXPECT_EQ(st.st_mode, static_cast<mode_t>(S_IFREG | 0600));
    EXPECT_EQ(st.st_blocks, (st.st_size + 511) / 512);
    const std::string whole = read_file(bundles() / name);
    EXPECT_EQ(whole.size(), static_cast<std::size_t>(st.st_size));
    shell(std::string("dd if=") + name + " bs=1000 skip=7 status=none | cmp - <(tail -c +7001 " +
          name + ")");
  }
  const std::string file = read_file(bundles() / "s.safetensors");
  const auto header = container::parse_safetensors_header(as_bytes(file), file.size());
  ASSERT_TRUE(header) << header.error().message();
  std::vector<std::string> names;
  for (const auto& tensor : header->tensors) names.push_back(tensor.name);
  EXPECT_THAT(names,
              ElementsAre("input_ids", "layers.0.key", "layers.0.value", "layers.0.positions",
                          "layers.1.key", "layers.1.value", "layers.1.positions"));
  EXPECT_EQ(header->metadata.at("root"), root_of("s"));
}

TEST_F(Bundles, AnOpenOneKeepsItsVersionAndIsFoundAgain) {
  const std::string before = read_file(bundles() / "s.pt");
  const int fd = ::open((bundles() / "s.pt").c_str(), O_RDONLY);
  struct stat old {
  }, now{};
  ASSERT_EQ(::fstat(fd, &old), 0);
  do_job(state_ / "continue/b", "more");
  std::string bytes(before.size() + 100, '\0');
  EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), 0), std::ssize(before));
  EXPECT_EQ(bytes.substr(0, before.size()), before);
  ASSERT_EQ(::stat((bundles() / "s.pt").c_str(), &now), 0);
  EXPECT_NE(now.st_ino, old.st_ino);
  EXPECT_GT(now.st_size, old.st_size);
  ::close(fd);
  remount();
  struct stat again {};
  ASSERT_EQ(::stat((bundles() / "s.pt").c_str(), &again), 0);
  EXPECT_EQ(again.st_ino, now.st_ino);
}

TEST_F(Bundles, OutAndBackInIsTheSameState) {
  for (const std::string suffix : {".pt", ".safetensors"}) {
    const std::string name = "t" + suffix.substr(1, 1);
    shell("cp s" + suffix + " $O/f" + suffix + " && cp $O/f" + suffix + " " + name + suffix);
    expect_same(name);
    shell("cmp $O/f" + suffix + " " + name + suffix);
  }
  shell("cp s.pt other.pt");
  expect_same("other");
  // Over a state that is there, from a temporary name, by a shell that opens it first.
  do_job(states() / "other/feed/b", "something else");
  shell("cp $O/f.pt .other.pt.Xq3 && ls -A | grep -q Xq3 && mv .other.pt.Xq3 other.pt");
  expect_same("other");
  do_job(states() / "other/feed/c", "something else");
  shell("cat $O/f.pt > other.pt && ! ls -A | grep -q Xq3");
  expect_same("other");
  shell("mkdir $S/other/in && cp $O/f.safetensors other/below.safetensors");
  expect_same("other/below");
  EXPECT_THAT(house_->house().store().verify()->problems, ::testing::IsEmpty());
}

TEST_F(Bundles, ATreeOfThemIsCopiedByRsync) {
  shell("mkdir $S/s/child $S/s/child/grandchild && rsync -a s s.pt $O/ && rsync -a s.pt $O/n.pt");
  shell("mv $O/s $O/n && rsync -a $O/n $O/n.pt .");
  expect_same("n");
  expect_same("n/child/grandchild");
  const auto moved = shell_code("rsync -ain $O/n $O/n.pt . | grep '^>f' || true");
  EXPECT_EQ(moved.output, "");
}

TEST_F(Bundles, DamageNeverBecomesAState) {
  for (const std::string suffix : {".pt", ".safetensors"}) {
    const std::string file = "$O/d" + suffix;
    shell("cp s" + suffix + " " + file);
    const auto size = std::filesystem::file_size(outside_ / ("d" + suffix));
    const std::string bad = "cp $O/bad" + suffix + " d" + suffix;
    // A byte of the last layer's tensors.
    shell("cp " + file + " $O/bad" + suffix + " && printf '\\377' | dd of=$O/bad" + suffix +
          " bs=1 conv=notrunc status=none seek=" + std::to_string(size - 4000));
    refused(bad, "the file is damaged", root());
    for (const std::size_t cut : {std::size_t{0}, std::size_t{9}, size / 2, size - 1}) {
      shell("head -c " + std::to_string(cut) + " " + file + " > $O/bad" + suffix);
      if (cut != 0) refused(bad, "bundles/d" + suffix + " error: ", root());
    }
    shell("cp " + file + " $O/bad" + suffix + " && truncate -s 1T $O/bad" + suffix);
    refused("dd if=$O/bad" + suffix + " of=d" + suffix +
                " bs=1M count=1 status=none oflag=seek_bytes "
                "seek=0; truncate -s 1T d" +
                suffix,
            "error", root());
  }
  refused("echo hello > $O/d.pkl && cp $O/d.pkl d.pkl", "bundles/d.pkl error: ", root());
  refused("echo hello > notes.txt", "does not end as one's", root());
  EXPECT_EQ(root_of("d"), "none");
  EXPECT_TRUE(eventually([&] { return shell_code("ls d.*").code != 0; }));
  shell("cp s.pt d.pt");  // and then it is well
  expect_same("d");
  EXPECT_THAT(read_file(root() / "status"), Not(HasSubstr("bundles/d.pt")));
}

TEST_F(Bundles, TensorsThatSomebodyChangedMakeAnEditedState) {
  shell(R"(cp s.pt $O/e.pt && python3 - $O/e.pt $O/f.pt <<'P'
import sys, zipfile
old = zipfile.ZipFile(sys.argv[1])
with zipfile.ZipFile(sys.argv[2], "w") as new:
    for entry in old.infolist():
        entry_data = open(sys.argv[1], "rb")
        entry_data.seek(entry.header_offset + 26)
        name, extra = entry_data.read(2), entry_data.read(2)
        entry_data.seek(entry.header_offset + 30 + int.from_bytes(name, "little") +
                        int.from_bytes(extra, "little"))
        data = bytearray(entry_data.read(entry.file_size))
        if entry.filename.endswith("data/5"): data[-2] ^= 0x40
        new.writestr(entry.filename, bytes(data))
P
cp $O/f.pt e.pt)");
  EXPECT_THAT(read_file(states() / "e/state.json"), HasSubstr("\"kind\":\"edited\""));
  EXPECT_THAT(read_file(states() / "e/state.json"), HasSubstr(root_of("s")));  // its parent
  EXPECT_EQ(read_file(states() / "e/text"), read_file(state_ / "text"));
  EXPECT_NE(root_of("e"), root_of("s"));
  goes_on("e");
}

TEST_F(Bundles, AFileWithoutIdsSaysSoAndGoesOn) {
  shell("python3 $O/npz.py $O/n.npz f2 300 && cp $O/n.npz n.npz");
  EXPECT_THAT(read_file(states() / "n/state.json"), HasSubstr("\"converted_from\":\"F16\""));
  const std::string note = "[tokens imported without ids: their text is not known]";
  EXPECT_EQ(read_file(states() / "n/text"), note);
  const std::string text = goes_on("n");
  EXPECT_TRUE(text.starts_with(note + "go on")) << text;
  EXPECT_EQ(write_file(states() / "n/params/max_tokens", "3"), 0);
  do_job(states() / "n/continue/go", "go on");
  EXPECT_TRUE(read_file(states() / "n/text").starts_with(note + "go on"));
  EXPECT_EQ(write_file(states() / "n/ctl", "rollback 290\n"), 0);
  EXPECT_EQ(read_file(states() / "n/text"), note);
  shell("cp n.pt again.pt && cmp n.pt again.pt");
  EXPECT_EQ(read_file(states() / "again/text"), note);
}

TEST_F(Bundles, TrueTokensWithFalseTensorsNeverAnswerForOthers) {
  const std::string text(520, 'q');
  shell("python3 $O/npz.py $O/z.npz f4 520 " + text + " && cp $O/z.npz z.npz");
  EXPECT_EQ(read_file(states() / "z/text"), text);
  EXPECT_THAT(read_file(states() / "z/state.json"), HasSubstr("\"imported\""));
  const auto fresh = make_state("fresh", 3);
  do_job(fresh / "feed/a", text);
  EXPECT_EQ(house_->house().scheduler().counters().prefix_hit_tokens, 0U);
  EXPECT_NE(root_of("fresh"), root_of("z"));
}

TEST_F(Bundles, WhatIsNotTheModelsIsRefusedInWords) {
  const std::string caches = KVFS_REPO_DIR "/tests/codec/container/caches/";
  refused("cp " + caches + "tuple_fp32.pt w.pt", "model fake has 2 layers of 1 heads, keys 4",
          root());
  EXPECT_THAT(read_file(root() / "status"), HasSubstr("the file has 2 layers of 2 heads"));
  refused("cp " + caches + "evil.pt s.pt", "opcode REDUCE calls posix.system", state_);
  refused("mkdir $S/s/in; cp " + caches + "evil.pt s/in.pt", "posix.system", state_ / "in");
  refused("python3 $O/npz.py $O/l.npz f4 20 tooshort && cp $O/l.npz w.npz", "8 ids", root());
  EXPECT_EQ(root_of("w"), "none");
}

TEST_F(Bundles, AStateThatIsBusyStaysWhatItIs) {
  controls_.step_delay_us = 20'000;
  EXPECT_EQ(write_file(state_ / "params/max_tokens", "100"), 0);
  ASSERT_EQ(write_file(state_ / "continue/long", "go"), 0);
  refused("cp s.pt $O/s.pt && cp $O/s.pt s.pt", "jobs are changing it", state_);
  EXPECT_EQ(write_file(state_ / "ctl", "cancel long\n"), 0);
  controls_.step_delay_us = 0;
}

TEST_F(Bundles, NothingHereRemovesAState) {
  shell("rm s.pt && ! test -e s.pt && test -e $S/s/text && ! mv s.safetensors t.safetensors");
  shell("! dd if=/dev/zero of=s.safetensors bs=10 count=1 conv=notrunc status=none 2>/dev/null");
  shell("touch never.pt && cp s.safetensors .tmp.pt && rm .tmp.pt && rm -r $S/s && ! test -e s.pt");
  EXPECT_TRUE(eventually([&] { return shell_code("ls never.pt").code != 0; }));
  EXPECT_EQ(shell_code("ls -A").output, "");
}

}  // namespace
}  // namespace kvfs::fs::test
