# shellcheck shell=bash
# Apache Kafka in KRaft mode, one broker or three; each is broker and controller.

KAFKA_HEAP_ONE=(-Xms256m -Xmx512m)
KAFKA_HEAP_OF_THREE=(-Xms128m -Xmx320m)

kafka_names() { # brokers
  echo kafka
  [ "$1" = 1 ] || printf 'kafka-2\nkafka-3\n'
}

# Every line that may differ between one broker and three is here.
kafka_properties() { # node id, brokers, port, controller port, voters, secure port or nothing
  local replicas=1 in_sync=1
  [ "$2" = 1 ] || { replicas=3 in_sync=2; }
  echo "process.roles=broker,controller"
  echo "node.id=$1"
  if [ "$2" = 1 ]; then
    echo "controller.quorum.bootstrap.servers=127.0.0.1:$4"
  else
    echo "controller.quorum.voters=$5"
  fi
  cat <<END
listeners=PLAINTEXT://$host:$3,CONTROLLER://127.0.0.1:$4${6:+,SECURE://$host:$6}
advertised.listeners=PLAINTEXT://$host:$3${6:+,SECURE://$host:$6}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL
log.dirs=$PWD/data
num.partitions=1
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
group.initial.rebalance.delay.ms=0
# A broker that was killed may register again only when its last session is over (usually 9 s).
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
END
  [ -z "$6" ] || kafka_secure_properties
}

# A listener with TLS and a password, by either of two mechanisms.
kafka_secure_properties() {
  local modules=org.apache.kafka.common.security password
  password="$(cat "$DIR/tls/password")"
  cat <<END
ssl.keystore.type=PEM
ssl.keystore.location=$DIR/tls/server.pem
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.secure.scram-sha-512.sasl.jaas.config=$modules.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=$modules.plain.PlainLoginModule required user_$SECURE_USER="$password";
END
}

kafka_log4j() {
  cat <<'END'
status=warn
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %p %c{1}: %m%n
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
END
}

kafka_java() { # arguments of java...
  # Everything that a JVM leaves in /tmp stays in the server's folder, and goes with it.
  mkdir -p tmp
  java -XX:+PerfDisableSharedMem -Djava.io.tmpdir="$PWD/tmp" -Dlog4j2.configurationFile="$PWD/log4j2.properties" \
    -cp "$CACHE/kafka-$KAFKA_VERSION/*" "$@"
}

# Writes the folder of one broker and formats its data.
kafka_define() { # name, node id, brokers, port, controller port, voters, secure port or nothing, cluster id
  # A half-made broker of a call that was broken off must not be formatted twice.
  rm -rf "${DIR:?}/$1"
  mkdir -p "$DIR/$1"
  (
    cd "$DIR/$1" || exit 1
    local format=(format -t "$8" -c server.properties) heap=("${KAFKA_HEAP_ONE[@]}")
    [ "$3" = 1 ] && format+=(--standalone)
    [ -z "$7" ] || format+=(--add-scram "SCRAM-SHA-512=[name=$SECURE_USER,password=$(cat "$DIR/tls/password")]")
    [ "$3" = 1 ] || heap=("${KAFKA_HEAP_OF_THREE[@]}")
    kafka_properties "$2" "$3" "$4" "$5" "$6" "$7" >server.properties
    kafka_log4j >log4j2.properties
    kafka_java -XX:TieredStopAtLevel=1 kafka.tools.StorageTool "${format[@]}" >log 2>&1 || trouble "$1" "could not be formatted"
    [ -z "$7" ] || echo "$7" >secure_port
    # shellcheck disable=SC2046 # no option or one
    define "$1" kafka "$host" "$4" java "${heap[@]}" $(jit) -XX:+UseSerialGC -XX:+PerfDisableSharedMem \
      -Djava.io.tmpdir="$PWD/tmp" -Dlog4j2.configurationFile="$PWD/log4j2.properties" \
      -cp "$CACHE/kafka-$KAFKA_VERSION/*" kafka.Kafka server.properties
  )
}

kafka_create() { # brokers
  local ports voters cluster index=0 name secure_port="" tasks=()
  [ -z "$secure" ] || make_certificates
  mapfile -t ports < <("$PYTHON" "$PROBE" ports $((3 * $1)))
  voters="1@127.0.0.1:${ports[1]}"
  [ "$1" = 1 ] || voters+=",2@127.0.0.1:${ports[4]},3@127.0.0.1:${ports[7]}"
  # A cluster id is 16 random bytes in URL-safe base64.
  cluster="$("$PYTHON" -c 'import base64, os; print(base64.urlsafe_b64encode(b"\1" + os.urandom(15)).decode().rstrip("="))')"
  for name in $(kafka_names "$1"); do
    [ -z "$secure" ] || secure_port="${ports[3 * index + 2]}"
    kafka_define "$name" $((index + 1)) "$1" "${ports[3 * index]}" "${ports[3 * index + 1]}" "$voters" "$secure_port" "$cluster" &
    tasks+=($!)
    index=$((index + 1))
  done
  all "${tasks[@]}"
  echo "$1" >"$DIR/kafka/brokers"
}

up_kafka() { # brokers
  local name
  [ -z "$secure" ] || need openssl openssl
  fetch_kafka
  [ -f "$DIR/kafka/brokers" ] || kafka_create "$1"
  [ "$(field kafka brokers)" = "$1" ] || fail "$DIR has Kafka with $(field kafka brokers) broker(s), not $1; run down first"
  [ -z "$secure" ] || [ -f "$DIR/kafka/secure_port" ] || fail "the Kafka of $DIR has no secure listener; run down first"
  for name in $(kafka_names "$1"); do
    pid_of "$name" >/dev/null || launch "$name"
  done
  for name in $(kafka_names "$1"); do ensure "$name"; done
  await_all kafka
}
