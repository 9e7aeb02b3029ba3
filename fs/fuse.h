// libfuse, in the one version of its interface that is used here.
#pragma once

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
