// A job's reply as a chunked stream of JSON lines (application/x-ndjson), sent as it grows:
//
//   {"job":"q1"}                                   first, one a job
//   {"progress":{"read":512,"of":2048,"known":256,"queued":false}}   with "progress": true
//   {"refresh":{…}}                                with "watch": true, when it was pruned while it
//                                                  read or generated: refresh_json() in present.h
//   {"text":"…"}                                   what was added; bytes that are not UTF-8 are
//   U+FFFD. With the parameter logprobs also "logprobs":{"content":[…]} (present.h) of the tokens
//   shown since the last line, the end token's too; text may then be "". A token in a stop string
//   is not among them.
//   {"done":{…}} or {"error":{code, what, why, way_out}}   last; with the job's record under "job"
//
// Where several jobs are followed every line has an "index" too. A client that goes away cancels
// its asks; other jobs change a state and run on. The connection ends with the stream.
#pragma once

#include "daemon/http/connection.h"

namespace kvfs::daemon::http {

boost::asio::awaitable<void> stream_jobs(Stream& stream, Front& front, Follow follow,
                                         unsigned version);

}  // namespace kvfs::daemon::http
