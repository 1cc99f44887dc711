# shellcheck shell=bash
# An authority of this folder alone, a certificate for loopback, and a password. They live as long as the folder.

# shellcheck disable=SC2034 # for the parts
SECURE_USER=trunkline
# Longer than any test folder lives.
CERTIFICATE_DAYS=30

# DIR/tls: ca.pem for clients; server.pem with the server's key and chain; password.
make_certificates() {
  [ -f "$DIR/tls/password" ] && return
  rm -rf "$DIR/tls"
  mkdir -m 700 "$DIR/tls"
  (
    cd "$DIR/tls" || exit 1
    umask 077
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$CERTIFICATE_DAYS" -subj "/CN=Trunkline test authority" \
      -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
      -keyout ca.key -out ca.pem || exit 1
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=127.0.0.1" -keyout server.key -out server.csr || exit 1
    printf '%s\n' "subjectAltName=IP:127.0.0.1,IP:127.0.0.2,IP:127.0.0.3,DNS:localhost" "extendedKeyUsage=serverAuth" >extensions
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days "$CERTIFICATE_DAYS" -extfile extensions -out server.crt ||
      exit 1
    cat server.key server.crt ca.pem >server.pem
    openssl rand -hex 16 | tr -d '\n' >password.new
    # Last, because a folder with a password is complete.
    mv password.new password
  ) >"$DIR/tls.log" 2>&1 || { cat "$DIR/tls.log" >&2; fail "openssl could not make the certificates"; }
  rm -f "$DIR/tls.log"
}
