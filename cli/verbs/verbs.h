// The makers of all verbs, for the table.
#pragma once

#include <memory>

#include "cli/verb.h"

namespace kvfs::cli {

std::unique_ptr<Verb> make_ask();
std::unique_ptr<Verb> make_cancel();
std::unique_ptr<Verb> make_compare();
std::unique_ptr<Verb> make_continue();
std::unique_ptr<Verb> make_events();
std::unique_ptr<Verb> make_export();
std::unique_ptr<Verb> make_feed();
std::unique_ptr<Verb> make_fork();
std::unique_ptr<Verb> make_import();
std::unique_ptr<Verb> make_log();
std::unique_ptr<Verb> make_ls();
std::unique_ptr<Verb> make_models();
std::unique_ptr<Verb> make_mount();
std::unique_ptr<Verb> make_mv();
std::unique_ptr<Verb> make_new();
std::unique_ptr<Verb> make_prune();
std::unique_ptr<Verb> make_rm();
std::unique_ptr<Verb> make_rollback();
std::unique_ptr<Verb> make_set();
std::unique_ptr<Verb> make_show();
std::unique_ptr<Verb> make_snap();
std::unique_ptr<Verb> make_status();
std::unique_ptr<Verb> make_step();
std::unique_ptr<Verb> make_tree();
std::unique_ptr<Verb> make_umount();

}  // namespace kvfs::cli
