#include "daemon/http/api.h"

#include <array>

namespace kvfs::daemon::http {

std::span<const Route> api_routes() {
  static constexpr std::array kRoutes{
      Route{"GET", "/healthz", healthz},
      Route{"GET", "/v1/status", get_status},
      Route{"GET", "/v1/events", get_events},
      Route{"POST", "/v1/shutdown", post_shutdown},
      Route{"GET", "/v1/models", get_models},
      Route{"GET", "/v1/states", list_states},
      Route{"POST", "/v1/states", post_state},
      Route{"GET", "/v1/states/{path}", get_state},
      Route{"DELETE", "/v1/states/{path}", delete_state},
      Route{"PATCH", "/v1/states/{path}", patch_state},
      Route{"POST", "/v1/states/{path}/fork", post_fork},
      Route{"GET", "/v1/states/{path}/export", get_export},
      Route{"POST", "/v1/states/{path}/import", post_import, true},
      Route{"POST", "/v1/states/{path}/snap", post_snap},
      Route{"POST", "/v1/states/{path}/rollback", post_rollback},
      Route{"GET", "/v1/states/{path}/log", get_log},
      Route{"POST", "/v1/states/{path}/feed", post_feed},
      Route{"POST", "/v1/states/{path}/ask", post_ask},
      Route{"POST", "/v1/states/{path}/continue", post_continue},
      Route{"POST", "/v1/states/{path}/step", post_step},
      Route{"POST", "/v1/states/{path}/prune", post_prune},
      Route{"POST", "/v1/states/{path}/compare", post_compare},
      Route{"POST", "/v1/states/{path}/compare/{name}", post_compare_turn},
      Route{"POST", "/v1/states/{path}/cancel", post_cancel},
      Route{"GET", "/v1/states/{path}/jobs", get_jobs},
  };
  return kRoutes;
}

}  // namespace kvfs::daemon::http
