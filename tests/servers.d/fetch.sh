# shellcheck shell=bash
# Where the servers' programs come from. Everything is kept by version outside the work tree, so that a second start
# fetches nothing and `cargo clean` throws nothing away.

KAFKA_VERSION=4.1.0
# The version of log4j that this Kafka brings; its jars have slf4j without a binding.
KAFKA_LOG4J_VERSION=2.24.3
CASSANDRA_VERSION=5.0.5
REDIS_VERSION=7
CACHE="$(realpath -m "${TRUNKLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trunkline}")"
# A fetch from a slow mirror; also how long a second script waits for the one that fetches.
FETCH_SECONDS=600

# Makes sure that a command exists: installs the Debian package if we may, or says how.
need() { # command, Debian package
  command -v "$1" >/dev/null 2>&1 && return
  [ "$(id -u)" = 0 ] || fail "$1 is missing; install the Debian package $2, or run as root so that this script may"
  command -v apt-get >/dev/null 2>&1 || fail "$1 is missing and there is no apt-get; install what Debian calls $2"
  say "install $2"
  apt-get update -q >/dev/null 2>&1 || true
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null || fail "apt-get cannot install $2"
}

need_java() {
  need java openjdk-17-jre-headless
  local major
  major="$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -1)"
  [ "${major:-0}" -ge 17 ] || fail "java is version ${major:-unknown}; Kafka and Cassandra want 17: install openjdk-17-jre-headless"
}

# Fills one folder of the cache, once. A second script waits for the first; a fetch that fails leaves nothing, because
# the folder gets its name when it is complete.
cached() { # name, command that fills the folder given as its last argument...
  local name="$1" target="$CACHE/$1"
  shift
  [ -d "$target" ] && return
  mkdir -p "$CACHE"
  (
    exec 8>"$CACHE/$name.lock"
    flock -w "$FETCH_SECONDS" 8 || fail "another script holds $CACHE/$name.lock"
    [ -d "$target" ] && exit 0
    say "fetch $name"
    rm -rf "$target.part"
    mkdir -p "$target.part" || exit 1
    # Within `||` a failure does not end the shell by itself.
    "$@" "$target.part" || exit 1
    mv "$target.part" "$target"
  ) || fail "$name could not be fetched"
}

# Jars of Maven coordinates with all they need at run time.
fetch_jars() { # group:artefact:version... folder
  local folder="${*: -1}" work coordinates group artefact version
  need mvn maven
  work="$(mktemp -d)"
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>t</groupId><artifactId>t</artifactId><version>1</version><dependencies>'
    for coordinates in "${@:1:$#-1}"; do
      IFS=: read -r group artefact version <<<"$coordinates"
      echo "<dependency><groupId>$group</groupId><artifactId>$artefact</artifactId><version>$version</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$work/pom.xml"
  if ! timeout "$FETCH_SECONDS" mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$folder" \
    -DincludeScope=runtime >"$work/log" 2>&1 </dev/null; then
    tail -n 20 "$work/log" >&2
    rm -rf "$work"
    fail "Maven could not fetch ${*:1:$#-1}"
  fi
  rm -rf "$work"
}

fetch_kafka() {
  need_java
  cached "kafka-$KAFKA_VERSION" fetch_jars "org.apache.kafka:kafka_2.13:$KAFKA_VERSION" \
    "org.apache.logging.log4j:log4j-slf4j-impl:$KAFKA_LOG4J_VERSION"
}

fetch_cassandra() {
  need_java
  cached "cassandra-$CASSANDRA_VERSION" fetch_jars "org.apache.cassandra:cassandra-all:$CASSANDRA_VERSION"
}

# Only the programs of Debian's packages are taken: the package itself would start a service on 6379.
fetch_debian_redis() { # folder
  command -v apt-get >/dev/null 2>&1 || fail "redis-server is missing; install it (version $REDIS_VERSION)"
  (
    cd "$1" || exit 1
    [ "$(apt-cache pkgnames redis-server)" ] || { [ "$(id -u)" = 0 ] && apt-get update -q >/dev/null 2>&1; } || true
    # The program itself is in redis-tools; the rest are libraries that a bare system may lack.
    local packages
    mapfile -t packages < <(apt-cache depends -i redis-server redis-tools 2>/dev/null |
      sed -n 's/^ *Depends: \([a-z0-9.+-]*\)$/\1/p' | grep -E '^(lib|lua|redis-tools)' | grep -vxE 'libc6|libsystemd0|libgcc.*' | sort -u)
    if ! apt-get download -q redis-server "${packages[@]}" >log 2>&1; then
      [ "$(id -u)" = 0 ] && apt-get update -q >/dev/null 2>&1
      apt-get download -q redis-server "${packages[@]}" >log 2>&1 || { cat log >&2; fail "apt-get cannot download redis-server; install it"; }
    fi
    for package in *.deb; do dpkg -x "$package" . || fail "$package cannot be unpacked"; done
    rm -f ./*.deb log
  )
}

fetch_redis() {
  command -v redis-server >/dev/null 2>&1 && return
  cached "redis-$REDIS_VERSION" fetch_debian_redis
}
