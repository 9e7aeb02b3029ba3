// What happens to states, jobs and users' files as a chunked stream of JSON lines
// (application/x-ndjson), each sent when readers see it (store/changes.h):
//
//   {"event":"ready"}                      first: what comes after it is told
//   {"at":"2026-11-22T20:30:05Z","event":"created","state":"a/b"}       also removed, changed
//   {"at",…,"event":"renamed","state":"c","before":"a/b"}
//   {"at",…,"event":"advanced","state":"a/b"}                           it has another version
//   {"at",…,"event":"job","state":"a/b","job":{…}}                      as present.h has it
//   {"at",…,"event":"file-created","state":"a/b","file":"notes.md"}     also file-removed
//   {"at",…,"event":"file-renamed","state":"a","file":"x","before":"a/y"}
//   {"at",…,"event":"refreshed","state":"a/b","job":"c","refresh":{…}}  its KV was pruned, see
//                                                    refresh_json() in present.h; on no disk
//   {"event":"lost","count":12}            the client was too slow: so many are not told
//
// under: of the state of this path alone, what is below it and its snapshots. A snapshot is
// "a/b@v1". Ends with the client or the daemon.
#pragma once

#include "daemon/http/connection.h"

namespace kvfs::daemon::http {

boost::asio::awaitable<void> stream_events(Stream& stream, Front& front, std::string under,
                                           unsigned version);

}  // namespace kvfs::daemon::http
