# shellcheck shell=bash
# One server is one folder DIR/NAME:
#   run        the script that becomes the server (it notes its pid, then `exec`s)
#   kind, host, port   what the probe asks, and where
#   pid        "PID STARTED": the kernel's start time tells our process from a later one that got the same number
#   log        everything it said
# Data, configuration and temporary files lie beside them, so that removing the folder removes all of it.

# From the start until it answers. Generous, because a machine with two cores may compile beside it.
START_SECONDS=180
# What a JVM compiles with. Tests are over before the second compiler has paid for itself: without it a start costs a
# third less processor time, of which the tests have none to spare.
jit() { [ -n "$bench" ] || echo "-XX:TieredStopAtLevel=1"; }

# From SIGTERM until we use SIGKILL.
STOP_SECONDS=60
LOG_LINES=30

field() { cat "$DIR/$1/$2"; } # name, field

names() { # every server of this folder, in the order of starting
  local name
  for name in redis kafka kafka-2 kafka-3 cassandra cassandra-2 cassandra-3; do
    [ -f "$DIR/$name/run" ] && echo "$name"
  done
  return 0
}

known() { [ -f "$DIR/$1/run" ] || fail "no server $1 in $DIR (known: $(names | tr '\n' ' '))"; }

# The pid, if this very process still runs.
pid_of() { # name
  local pid started now state
  [ -f "$DIR/$1/pid" ] || return 1
  read -r pid started <"$DIR/$1/pid" || return 1
  read -r state now < <(stat_of "$pid") || return 1
  [ "$now" = "$started" ] && [ "$state" != Z ] && echo "$pid"
}

# "STATE STARTED" of a pid. The name in parentheses may hold blanks, so fields are counted after it.
stat_of() { # pid
  local line fields
  line="$(cat "/proc/$1/stat" 2>/dev/null)" || return 1
  read -r -a fields <<<"${line##*) }"
  echo "${fields[0]} ${fields[19]}"
}

paused() { # pid
  local state rest
  read -r state rest < <(stat_of "$1") && [ "$state" = T ]
}

# Writes DIR/NAME/run. The command is quoted, so that no path is read by the shell again.
define() { # name, kind, host, port, command...
  local name="$1" folder="$DIR/$1"
  mkdir -p "$folder"
  echo "$2" >"$folder/kind"
  echo "$3" >"$folder/host"
  echo "$4" >"$folder/port"
  shift 4
  # shellcheck disable=SC2016 # what is in single quotes is for the other shell
  {
    echo '#!/usr/bin/env bash'
    echo 'line="$(cat "/proc/$$/stat")"'
    echo 'read -r -a fields <<<"${line##*) }"'
    printf 'echo "$$ ${fields[19]}" >%q\n' "$folder/pid.new"
    printf 'mv %q %q\n' "$folder/pid.new" "$folder/pid"
    printf 'exec'
    printf ' %q' "$@"
    echo
  } >"$folder/run.new"
  chmod +x "$folder/run.new"
  # Last, so that a folder with `run` is complete.
  mv "$folder/run.new" "$folder/run"
}

# Starts the process, detached from our session and our files.
launch() { # name
  local folder="$DIR/$1" tries=0
  rm -f "$folder/pid"
  # `exec`, because a shell that waited for it would keep our lock and the caller's output.
  (cd "$folder" && exec setsid ./run </dev/null >>"$folder/log" 2>&1 9>&-) &
  until [ -s "$folder/pid" ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || trouble "$1" "was not started"
    sleep 0.05
  done
}

# How many servers of a kind run: those that must see each other.
running() { # kind
  local name pid count=0
  for name in $(names); do
    if [ "$(field "$name" kind)" = "$1" ] && pid="$(pid_of "$name")" && ! paused "$pid"; then count=$((count + 1)); fi
  done
  echo "$count"
}

await() { # name
  local pid why kind status=0
  kind="$(field "$1" kind)"
  pid="$(pid_of "$1")" || trouble "$1" "ended at once"
  why="$("$PYTHON" "$PROBE" await "$kind" "$(field "$1" host)" "$(field "$1" port)" "$(running "$kind")" "$pid" \
    "$START_SECONDS")" || status=$?
  case "$status" in
    0) ;;
    3) trouble "$1" "ended before it answered" ;;
    *) trouble "$1" "did not answer within $START_SECONDS s: $why" ;;
  esac
}

# Waits until all that run of a kind answer and see each other.
await_all() { # kind
  local name pid
  for name in $(names); do
    if [ "$(field "$name" kind)" = "$1" ] && pid="$(pid_of "$name")" && ! paused "$pid"; then await "$name"; fi
  done
}

# Whether it answers now; says why not.
answers() { # name
  local kind
  kind="$(field "$1" kind)"
  "$PYTHON" "$PROBE" once "$kind" "$(field "$1" host)" "$(field "$1" port)" "$(running "$kind")"
}

trouble() { # name, what
  echo "tests/servers: $1 $2; the end of $DIR/$1/log:" >&2
  tail -n "$LOG_LINES" "$DIR/$1/log" >&2 2>/dev/null || true
  exit 1
}

ensure() { # name
  local pid
  if pid="$(pid_of "$1")"; then
    if paused "$pid"; then kill -CONT "$pid"; fi
  else
    launch "$1"
  fi
  await "$1"
}

# Sends a signal only to the process that we started.
signal() { # name, signal
  local pid
  pid="$(pid_of "$1")" || return 1
  kill "-$2" "$pid" 2>/dev/null
}

until_gone() { # name, seconds
  local tries=$(($2 * 20))
  while pid_of "$1" >/dev/null; do
    [ "$tries" -gt 0 ] || return 1
    tries=$((tries - 1))
    sleep 0.05
  done
}

stop() { # name
  signal "$1" TERM || return 0
  # A paused process does not hear SIGTERM.
  signal "$1" CONT || true
  until_gone "$1" "$STOP_SECONDS" || slay "$1"
}

slay() { # name
  signal "$1" KILL || return 0
  until_gone "$1" 10 || fail "$1 does not end, even by SIGKILL"
}
