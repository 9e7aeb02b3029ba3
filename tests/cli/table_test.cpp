#include "cli/table.h"

#include <gtest/gtest.h>

namespace kvfs::cli {
namespace {

TEST(Table, ColumnsLineUpAndTheLastIsNotPadded) {
  Table table;
  table.row({"a", "bb", "c"});
  table.row({"\u00e9\u00e9\u00e9", "b", "cccc"});
  EXPECT_EQ(table.text(), "a    bb  c\n\u00e9\u00e9\u00e9  b   cccc\n");
  EXPECT_EQ(Table().text(), "");
}

TEST(HumanBytes, ChangesUnitBeforeFourDigits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.0 kB");
  EXPECT_EQ(human_bytes(999'949), "999.9 kB");
  EXPECT_EQ(human_bytes(999'950), "1.0 MB");
  EXPECT_EQ(human_bytes(4.2e9), "4.2 GB");
}

}  // namespace
}  // namespace kvfs::cli
