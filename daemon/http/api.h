// The addresses under /v1 and their handlers; PATH is a state's path as one percent-encoded
// segment.
//
//   GET    /healthz                     ok
//   GET    /v1/status                   the daemon's counters; text with Accept: text/plain
//   GET    /v1/events                   what happens, see event_stream.h; ?under=PATH
//   POST   /v1/shutdown                 ends the daemon; on the unix socket only
//   GET    /v1/models                   {"object":"list","data":[{"id","default","loaded",…}]}
//   GET    /v1/states                   {"states":[…]}; ?under=PATH, ?recursive
//   POST   /v1/states                   {"path","params"?} → 201
//   GET    /v1/states/PATH              facts
//   DELETE /v1/states/PATH              ?recursive takes its children along
//   PATCH  /v1/states/PATH              {"rename"?: path, "params"?: {name: value}, "pinned"?}
//   POST   /v1/states/PATH/fork         {"to": path} → 201
//   POST   /v1/states/PATH/snap         {"name"} → 201; STATE@NAME names it, DELETE drops it
//   POST   /v1/states/PATH/rollback     {"to": "512", the number of tokens to keep, or "@NAME"}
//   GET    /v1/states/PATH/export?as=FORM  the state as one file: pt, safetensors, pkl,
//                                       npz, kvfs; with kvfs ?files, ?snapshots too
//   POST   /v1/states/PATH/import       a file of any size: what bundles/ takes; ?model=NAME → 201
//   GET    /v1/states/PATH/log          {"versions":[{"name","tokens","model","advanced",…}…]}:
//   what it
//                                       knows, "", and what its snapshots do, newest first
//   POST   /v1/states/PATH/feed|ask|continue {"prompt","params"?,"name"?,"n"?,"progress"?,"watch"?,
//                                       "wait"?}
//   POST   /v1/states/PATH/ask|continue {"messages":[{"role","content"}…], …}: a whole
//   conversation,
//                                       of which what the state holds is not read again; on an
//                                       empty state what the owner's other states hold of it is
//                                       found
//   POST   /v1/states/PATH/step         {"n"?: tokens, …}
//   POST   /v1/states/PATH/prune        {"policy": "pyramid window=160 bottom=640", …}
//   POST   /v1/states/PATH/compare      {"prompt"?,"chat"?,"methods"?: [words], "when"?: "auto" |
//                                       "before" | "after" the prompt is read, "params"?,
//                                       "progress"?}: a stream, see compare_stream.h
//   POST   /v1/states/PATH/compare/NAME {"prompt"?, "end"?: true}: a chat's next turn; its results
//                                       come on the stream
//   POST   /v1/states/PATH/cancel       {"job"}
//   GET    /v1/states/PATH/jobs         {"jobs":[…]}, newest first
//
// A job answers with a stream of JSON lines, see job_stream.h; with "wait": false with 202 and its
// names. Ask takes "n" replies with n seeds. Errors: errors.h.
#pragma once

#include <span>

#include "daemon/http/router.h"

namespace kvfs::daemon::http {

std::span<const Route> api_routes();

using Answering = boost::asio::awaitable<Result<Answer>>;

Answering healthz(Services& services, Call call);
Answering get_status(Services& services, Call call);
Answering get_events(Services& services, Call call);
Answering post_shutdown(Services& services, Call call);
Answering get_models(Services& services, Call call);

Answering list_states(Services& services, Call call);
Answering post_state(Services& services, Call call);
Answering get_state(Services& services, Call call);
Answering delete_state(Services& services, Call call);
Answering patch_state(Services& services, Call call);
Answering post_fork(Services& services, Call call);

Answering get_export(Services& services, Call call);
Answering post_import(Services& services, Call call);

Answering post_snap(Services& services, Call call);
Answering post_rollback(Services& services, Call call);
Answering get_log(Services& services, Call call);

Answering post_feed(Services& services, Call call);
Answering post_ask(Services& services, Call call);
Answering post_continue(Services& services, Call call);
Answering post_step(Services& services, Call call);
Answering post_prune(Services& services, Call call);
Answering post_compare(Services& services, Call call);
Answering post_compare_turn(Services& services, Call call);
Answering post_cancel(Services& services, Call call);
Answering get_jobs(Services& services, Call call);

}  // namespace kvfs::daemon::http
