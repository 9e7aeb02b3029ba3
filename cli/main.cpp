// kvfs: the command line of kvfsd.
#include "cli/verb.h"

int main(int argc, char** argv) { return kvfs::cli::run(argc, argv); }
