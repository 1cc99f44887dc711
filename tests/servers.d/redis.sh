# shellcheck shell=bash
# Redis, in memory only.

up_redis() {
  local port program libraries
  fetch_redis
  if [ ! -f "$DIR/redis/run" ]; then
    port="$("$PYTHON" "$PROBE" ports 1)"
    program="$(command -v redis-server || true)"
    libraries=""
    if [ -z "$program" ]; then
      program="$(compgen -G "$CACHE/redis-$REDIS_VERSION/usr/bin/redis-server")" || fail "the redis packages have no redis-server"
      libraries="$(compgen -G "$CACHE/redis-$REDIS_VERSION/usr/lib/*-linux-gnu*" | tr '\n' ':')"
    fi
    mkdir -p "$DIR/redis"
    # For tests that start servers of their own.
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s${LD_LIBRARY_PATH:-}" exec "%s" "$@"\n' "$libraries" "$program" >"$DIR/redis/redis-server"
    chmod +x "$DIR/redis/redis-server"
    # Protected mode refuses whoever is not on loopback: the namespaces of a test's own network.
    define redis redis "$host" "$port" env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:-}" \
      "$program" --port "$port" --bind "$host" --protected-mode no --save "" --appendonly no --dir "$DIR/redis"
  fi
  ensure redis
}
