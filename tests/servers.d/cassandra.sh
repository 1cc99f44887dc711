# shellcheck shell=bash
# Apache Cassandra, one node or three on 127.0.0.1 to 127.0.0.3 with the same ports.

CASSANDRA_HEAP_ONE=(-Xms512m -Xmx768m)
CASSANDRA_HEAP_OF_THREE=(-Xms256m -Xmx512m)

cassandra_names() { # nodes
  echo cassandra
  [ "$1" = 1 ] || printf 'cassandra-2\ncassandra-3\n'
}

# With three, each has a third of the ring from the start and is a seed of the others. So nobody has to join: they start at
# the same time, and the first one comes back as fast as the others.
cassandra_ring() { # nodes, host
  local third=6148914691236517205
  [ "$1" = 1 ] && return
  echo "auto_bootstrap: false"
  case "$2" in
    127.0.0.1) echo "initial_token: -9223372036854775807" ;;
    127.0.0.2) echo "initial_token: $((-9223372036854775807 - 1 + third))" ;;
    127.0.0.3) echo "initial_token: $((-9223372036854775807 - 1 + 2 * third))" ;;
  esac
}

cassandra_yaml() { # nodes, host, native port, storage port
  local seeds="$host:$4"
  [ "$1" = 1 ] || seeds+=",127.0.0.2:$4,127.0.0.3:$4"
  cassandra_ring "$1" "$2"
  cat <<END
cluster_name: trunkline-tests
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
authenticator: AllowAllAuthenticator
authorizer: AllowAllAuthorizer
endpoint_snitch: SimpleSnitch
hinted_handoff_enabled: false
data_file_directories: ["$PWD/data"]
commitlog_directory: "$PWD/commitlog"
saved_caches_directory: "$PWD/saved_caches"
hints_directory: "$PWD/hints"
cdc_raw_directory: "$PWD/cdc_raw"
commitlog_sync: periodic
commitlog_sync_period: 10000ms
commitlog_segment_size: 8MiB
commitlog_total_space: 256MiB
memtable_heap_space: 128MiB
memtable_offheap_space: 128MiB
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: "$seeds"
listen_address: $2
storage_port: $4
rpc_address: $2
start_native_transport: true
native_transport_port: $3
auto_snapshot: false
disk_access_mode: standard
END
}

cassandra_logback() {
  cat <<'END'
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%date{ISO8601} %level %logger{0}: %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
END
}

# What Cassandra's own scripts open on Java 17.
cassandra_opens() {
  local package
  for package in java.base/jdk.internal.{misc,ref} java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi \
    java.rmi/sun.rmi.{registry,server} java.sql/java.sql jdk.unsupported/sun.misc jdk.attach/sun.tools.attach \
    jdk.compiler/com.sun.tools.javac.file; do
    echo "--add-exports=$package=ALL-UNNAMED"
  done
  for package in java.base/java.{lang,lang.module,io,nio,net,math,util,util.concurrent,util.concurrent.atomic} \
    java.base/sun.nio.ch java.base/jdk.internal.{loader,ref,reflect,math,module,util.jar} \
    java.rmi/sun.rmi.transport.tcp jdk.management/com.sun.management.internal; do
    echo "--add-opens=$package=ALL-UNNAMED"
  done
}

cassandra_options() { # nodes, JMX port
  local heap=("${CASSANDRA_HEAP_ONE[@]}") ring=1
  # With several, the second finds no seed when the ring's delay is as short as one node may have it.
  [ "$1" = 1 ] || { heap=("${CASSANDRA_HEAP_OF_THREE[@]}") ring=3000; }
  printf '%s\n' "${heap[@]}" -XX:+UseSerialGC -XX:+PerfDisableSharedMem -Djdk.attach.allowAttachSelf=true \
    "-Djava.io.tmpdir=$PWD/tmp" "-Djna.tmpdir=$PWD/tmp" "-Dlogback.configurationFile=$PWD/conf/logback.xml" \
    "-Dcassandra.config=file://$PWD/conf/cassandra.yaml" "-Dcassandra.storagedir=$PWD/storage" \
    "-Dcassandra.jmx.local.port=$2" -Dcassandra.skip_wait_for_gossip_to_settle=0 "-Dcassandra.ring_delay_ms=$ring"
  jit
  [ "$1" = 1 ] || echo "-Dcassandra.consistent.rangemovement=false"
  cassandra_opens
}

cassandra_define() { # name, nodes, host, native port, storage port, JMX port
  local jars="$CACHE/cassandra-$CASSANDRA_VERSION" agent
  agent="$(compgen -G "$jars/jamm-*.jar")"
  mkdir -p "$DIR/$1/conf" "$DIR/$1/tmp"
  (
    cd "$DIR/$1" || exit 1
    cassandra_yaml "$2" "$3" "$4" "$5" >conf/cassandra.yaml
    cassandra_logback >conf/logback.xml
    cassandra_options "$2" "$6" >jvm.opts
    define "$1" cassandra "$3" "$4" java "-javaagent:$agent" @jvm.opts -cp "conf:$jars/*" \
      org.apache.cassandra.service.CassandraDaemon
  )
}

cassandra_create() { # nodes
  local ports index=0 name
  mapfile -t ports < <("$PYTHON" "$PROBE" ports $((2 + $1)))
  for name in $(cassandra_names "$1"); do
    cassandra_define "$name" "$1" "${host%.*}.$((${host##*.} + index))" "${ports[0]}" "${ports[1]}" "${ports[index + 2]}"
    index=$((index + 1))
  done
  echo "$1" >"$DIR/cassandra/nodes"
}

up_cassandra() { # nodes
  local name
  fetch_cassandra
  [ -f "$DIR/cassandra/nodes" ] || cassandra_create "$1"
  [ "$(field cassandra nodes)" = "$1" ] || fail "$DIR has Cassandra with $(field cassandra nodes) node(s), not $1; run down first"
  for name in $(cassandra_names "$1"); do
    pid_of "$name" >/dev/null || launch "$name"
  done
  for name in $(cassandra_names "$1"); do ensure "$name"; done
  await_all cassandra
}
