#!/usr/bin/env python3
"""Hostile clients against a Logseal server that this script starts, while a well-behaved shipper and newcomers go on.

    python3 benches/hostile_clients.py target/release/logseal [ATTACK]...

Needs Linux and Python 3.9, nothing else; more than 10,000 open files (`ulimit -n`) for 10,000 connections. Each attack runs for LENGTH seconds (6). Its line says
how the attack ended, the largest resident memory of the server, what it took of one core, and the 50th and 99th percentile of two clients of others: a shipper
that keeps its connection, and newcomers that make one for each request; both before the attack and during it.

Attackers share the cores with the server and with the others, who then wait for cores and not for the server. PIN=1 gives the server the first core alone,
and everybody else the last one, where attackers are nicer than the others. TLS=1 has OTLP and the management API over TLS, with a certificate that
the command `openssl` makes; the vault always is. LISTENERS is a list of `grpc`, `http`, `management` and `vault` for attacks that try all of them.
"""
import http.client, json, multiprocessing, os, resource, signal, socket, ssl, struct, subprocess, sys, tempfile, threading, time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
LENGTH = float(os.environ.get("LENGTH", "6"))
CORES = sorted(os.sched_getaffinity(0))
PIN = bool(os.environ.get("PIN"))
LISTENERS = os.environ.get("LISTENERS", "grpc http management vault").split()
# How listeners that are over TLS are connected to, by address.
CONTEXTS = {}


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def number(value, prefix, first):
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return number(len(value), 7, 0) + value


def literal(name, value):
    return b"\0" + text(name) + text(value)


def head(path, key=None, method="POST", kind="application/grpc"):
    block = literal(":method", method) + literal(":scheme", "http") + literal(":path", path) + literal(":authority", "a")
    block += literal("content-type", kind) + literal("te", "trailers")
    return block + (literal("authorization", "Bearer " + key) if key else b"")


def connect(address, timeout=10):
    sock = socket.create_connection(address, timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    context = CONTEXTS.get(address)
    return context.wrap_socket(sock) if context else sock


def trusts_all(*protocols):
    """Whom hostile clients talk to does not matter to them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


def http2(address, settings=b""):
    sock = connect(address)
    sock.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    return sock


def push(sock, data):
    """Sends all of it, or says that the server ended the connection."""
    try:
        sock.sendall(data)
        return True
    except OSError:
        return False


def ending(sock, wait=10):
    """How the connection ends: GOAWAY's code and text, `closed`, or `open`."""
    found, buffer, until = None, b"", time.time() + wait
    while time.time() < until:
        try:
            sock.settimeout(max(0.01, until - time.time()))
            piece = sock.recv(65536)
        except socket.timeout:
            break
        except OSError:
            return found or "closed"
        if not piece:
            return found or "closed"
        buffer += piece
        while len(buffer) >= 9:
            length = int.from_bytes(buffer[:3], "big")
            if len(buffer) < 9 + length:
                break
            if buffer[3] == GOAWAY:
                found = f"GOAWAY {int.from_bytes(buffer[13:17], 'big')} {buffer[17:9 + length].decode('latin1')}".strip()
            buffer = buffer[9 + length:]
    return found or "open"


def varint(value):
    out = []
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + [value])


def record(body):
    """An export request of one record (opentelemetry-proto)."""
    field = lambda tag, content: bytes([tag]) + varint(len(content)) + content
    one = b"\x09" + struct.pack("<Q", time.time_ns()) + field(0x2a, field(0x0a, body))
    return field(0x0a, field(0x12, field(0x12, one)))


class Other(multiprocessing.Process):
    """A client that others are: ships one record again and again."""

    def __init__(self, address, key, keeps, found, over):
        super().__init__(daemon=True)
        self.address, self.key, self.keeps, self.found, self.over = address, key, keeps, found, over

    def run(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if PIN:
            os.sched_setaffinity(0, CORES[-1:])
        client, context = None, trusts_all()
        while not self.over.is_set():
            began = time.time()
            try:
                if client is None:
                    if self.address in CONTEXTS:
                        client = http.client.HTTPSConnection(*self.address, timeout=20, context=context)
                    else:
                        client = http.client.HTTPConnection(*self.address, timeout=20)
                    client.connect()
                    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                headers = {"content-type": "application/x-protobuf", "authorization": "Bearer " + self.key}
                client.request("POST", "/v1/logs", record(b"well behaved"), headers)
                answer = client.getresponse()
                answer.read()
                what = answer.status
            except Exception as error:
                what, client = type(error).__name__, None
            self.found.put((began, time.time() - began, what))
            if not self.keeps and client:
                client.close()
                client = None
            time.sleep(0.002 if self.keeps else 0.02)


class Bed:
    def __init__(self, binary, settings=()):
        self.dir = tempfile.TemporaryDirectory()
        data = os.path.join(self.dir.name, "data")
        listen = [f"listen.{name}=127.0.0.1:0" for name in ("otlp_grpc", "otlp_http", "management", "vault")]
        if os.environ.get("TLS"):
            certificate, key = (os.path.join(self.dir.name, name) for name in ("certificate.pem", "key.pem"))
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-addext",
                            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", certificate, "-keyout", key], check=True, stderr=subprocess.DEVNULL)
            listen += [f"tls.certificate={certificate}", f"tls.key={key}"]
        arguments = [part for setting in [*listen, *settings] for part in ("--set", setting)]
        self.log = open(os.path.join(self.dir.name, "log"), "w+")
        # Before it counts its cores.
        pinned = ["taskset", "-c", str(CORES[0])] if PIN else []
        self.server = subprocess.Popen([*pinned, binary, "serve", "--data-dir", data, *arguments], stdout=subprocess.PIPE, stderr=self.log)
        self.server.stdout.readline()
        credentials = json.load(open(os.path.join(data, "credentials.json")))
        at = lambda name: (lambda host, port: (host, int(port)))(*credentials["endpoints"][name].split("//")[1].split(":"))
        self.grpc, self.http, self.management, self.vault = at("otlpGrpc"), at("otlpHttp"), at("management"), at("vault")
        self.key, self.token, self.vault_token = credentials["workspaceKey"], credentials["managementToken"], credentials["vaultToken"]
        CONTEXTS.clear()
        for address in (self.grpc, self.http, self.management, self.vault) if os.environ.get("TLS") else (self.vault,):
            CONTEXTS[address] = trusts_all("h2")
        self.peak, self.samples, self.stop = 0, [], False
        threading.Thread(target=self.watch, daemon=True).start()
        self.shipped, self.came, self.over = multiprocessing.Queue(), multiprocessing.Queue(), multiprocessing.Event()
        self.others = [Other(self.http, self.key, True, self.shipped, self.over), Other(self.http, self.key, False, self.came, self.over)]
        for other in self.others:
            other.start()

    def memory(self):
        for line in open(f"/proc/{self.server.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024
        return 0

    def seconds(self):
        """What the server has taken of cores so far."""
        fields = open(f"/proc/{self.server.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def watch(self):
        while not self.stop:
            try:
                self.peak = max(self.peak, self.memory())
            except OSError:
                return
            time.sleep(0.02)

    def end(self):
        self.stop = True
        for other in self.others:
            other.kill()
        running = self.server.poll() is None
        self.server.terminate()
        code = self.server.wait(40)
        self.log.seek(0)
        log = self.log.read()
        bad = [line for line in log.splitlines() if " ERROR " in line or "panicked" in line]
        return ("up" if running else "DOWN") + f", stopped with {code}" + (f", {len(bad)} errors, such as {bad[0]}" if bad else "")


def repeat(bed, attack, connections=4):
    """`attack` in a loop from some connections at a time; what each ended with."""
    endings, until, lock = {}, time.time() + LENGTH, threading.Lock()
    def loop():
        while time.time() < until:
            try:
                how = attack()
            except OSError as error:
                how = f"not connected: {type(error).__name__}"
            with lock:
                endings[how] = endings.get(how, 0) + 1
    threads = [threading.Thread(target=loop) for _ in range(connections)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return endings


def over_all(bed, one):
    return {name: repeat(bed, lambda: one(getattr(bed, name))) for name in LISTENERS}


def rapid_reset(bed):
    def one(address):
        sock = http2(address)
        block = head(EXPORT)
        for first in range(1, 20_000, 200):
            data = b"".join(frame(HEADERS, 4, stream, block) + frame(RST, 0, stream, struct.pack(">I", 8)) for stream in range(first, first + 200, 2))
            if not push(sock, data):
                break
        return ending(sock)
    return over_all(bed, one)


def continuation_flood(bed):
    def one(address):
        sock = http2(address)
        push(sock, frame(HEADERS, 0, 1, head(EXPORT)))
        for _ in range(1_000):
            if not push(sock, frame(CONTINUATION, 0, 1, literal("a", "b")) * 10):
                break
        return ending(sock)
    return over_all(bed, one)


def begun(bed, address, key):
    """The head of a request that the listener at `address` takes, with what opens it or without."""
    credential = {bed.management: bed.token, bed.vault: bed.vault_token}.get(address, bed.key) if key else None
    path = {bed.grpc: EXPORT, bed.http: "/v1/logs", bed.vault: "/keys/any/create?api-version=7.4"}.get(address, "/v1/workspaces/default/query")
    kind = {bed.grpc: "application/grpc", bed.http: "application/x-protobuf"}.get(address, "application/json")
    return head(path, credential, kind=kind)


def data_flood(size, key):
    def attack(bed):
        def one(address):
            sock = http2(address)
            push(sock, frame(HEADERS, 4, 1, begun(bed, address, key)))
            for _ in range(3_000):
                if not push(sock, frame(DATA, 0, 1, b"x" * size) * 20):
                    break
            return ending(sock, 2)
        return over_all(bed, one)
    return attack


def header_bomb(bed):
    """One value of 3,900 bytes in HPACK's table, then thousands of references of a byte each."""
    def one(address):
        sock = http2(address)
        bomb = head(EXPORT) + b"\x40" + text("bomb") + text("x" * 3_900) + b"\xbe" * 12_000
        push(sock, frame(HEADERS, 4, 1, bomb))
        return ending(sock)
    return over_all(bed, one)


def read_away(sock):
    """Whatever has come so far: who does not read answers is not read for long."""
    sock.settimeout(0)
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass
    sock.settimeout(2)


def control_flood(kind, reads=False):
    def attack(bed):
        one_frame = {PING: frame(PING, 0, 0, b"12345678"), SETTINGS: frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)),
                     WINDOW: frame(WINDOW, 0, 0, struct.pack(">I", 1)), 2: frame(2, 0, 1, struct.pack(">IB", 0, 1))}[kind]
        def one(address):
            sock = http2(address)
            sock.settimeout(2)
            until, sent = time.time() + 2, 0
            while time.time() < until:
                if not push(sock, one_frame * 500):
                    break
                sent += 500
                if reads:
                    read_away(sock)
            return ending(sock, 0.2) if sent < 500 * 2 else "%s after up to %d frames" % (ending(sock, 0.2), 10 ** len(str(sent)))
        return over_all(bed, one)
    return attack


def streams(key):
    """10,000 streams on each of some connections, none of which ends its request."""
    def attack(bed):
        def one(address):
            sock, block = http2(address), begun(bed, address, key)
            for first in range(1, 20_000, 200):
                if not push(sock, b"".join(frame(HEADERS, 4, stream, block) for stream in range(first, first + 200, 2))):
                    break
            return ending(sock, 3)
        return over_all(bed, one)
    return attack


def health_streams(bed):
    """As many health requests as streams allow, each with a body that does not end."""
    held, tried = [], 0
    until = time.time() + LENGTH
    while time.time() < until and tried < 100:
        tried += 1
        try:
            sock = http2(bed.grpc)
        except OSError:
            continue
        block = head("/grpc.health.v1.Health/Check")
        for stream in range(1, 512, 2):
            push(sock, frame(HEADERS, 4, stream, block) + frame(DATA, 0, stream, b"\0\0\0\x10\0" + b"x" * 4_000))
        held.append(sock)
    time.sleep(1)
    memory = bed.memory()
    return f"{tried} connections of 256 streams; memory then {memory} MiB; first: {ending(held[0], 0.2)}"


def deaf(bed):
    """Asks without reading an answer."""
    def one(address):
        sock = http2(address)
        sock.settimeout(2)
        block = head(EXPORT)
        for first in range(1, 200_000, 200):
            if not push(sock, b"".join(frame(HEADERS, 5, stream, block) for stream in range(first, first + 200, 2))):
                break
        return ending(sock, 1)
    return over_all(bed, one)


def connections(count, first, listener="grpc"):
    """`count` connections that send `first`, then nothing; those that are ended are made again."""
    def attack(bed):
        address = getattr(bed, listener)
        sockets, made, refused = [], 0, 0
        until = time.time() + LENGTH
        while time.time() < until:
            if len(sockets) < count:
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind((f"127.0.{made % 4 + 1}.{made // 4 % 250 + 1}" if os.environ.get("MANY") else "127.0.0.1", 0))
                try:
                    sock.connect_ex(address)
                except OSError:
                    refused += 1
                sockets.append([sock, False])
                made += 1
            else:
                time.sleep(0.01)
            if made % 100 == 0 or len(sockets) >= count:
                for entry in sockets:
                    if not entry[1]:
                        try:
                            if first:
                                entry[0].send(first)
                            entry[1] = True
                        except OSError:
                            pass
        open_now = 0
        for sock, _ in sockets:
            try:
                piece = sock.recv(1_000)
                while piece:
                    piece = sock.recv(1_000)
            except BlockingIOError:
                open_now += 1
            except OSError:
                pass
            sock.close()
        return f"{made} connections made; {open_now} still open at the end"
    return attack


def slow_bodies(count, announced, listener):
    """Requests with a good key that announce much and send a byte now and then."""
    def attack(bed):
        address = getattr(bed, listener)
        sockets = []
        for _ in range(count):
            if listener == "grpc":
                sock = http2(address)
                push(sock, frame(HEADERS, 4, 1, head(EXPORT, bed.key)) + frame(DATA, 0, 1, b"\0" + struct.pack(">I", announced)))
            else:
                sock = connect(address)
                push(sock, (f"POST /v1/logs HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\nauthorization: Bearer {bed.key}\r\n"
                            f"content-length: {announced}\r\n\r\n").encode())
            sockets.append(sock)
        until = time.time() + LENGTH
        while time.time() < until:
            for sock in sockets:
                push(sock, frame(DATA, 0, 1, b"x") if listener == "grpc" else b"x")
            time.sleep(0.3)
        return f"first: {ending(sockets[0], 0.2)}"
    return attack


def client_hello():
    """The first flight of a handshake."""
    sent = ssl.MemoryBIO()
    try:
        trusts_all("h2").wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return sent.read()


def handshakes(whole):
    """Handshakes again and again: whole ones, or the same first flight each time, which costs its sender nothing and the server a signature."""
    def attack(bed):
        hello = client_hello()
        def one(address):
            if whole:
                connect(address).close()
                return "connected"
            sock = socket.create_connection(address, 10)
            sock.sendall(hello)
            answered = sock.recv(1)
            sock.close()
            return "answered" if answered else "closed"
        return {name: repeat(bed, lambda: one(getattr(bed, name))) for name in LISTENERS if getattr(bed, name) in CONTEXTS}
    return attack


LINE = b"POST /v1/logs HTTP/1.1\r\nhost: a\r\nx-slow: "
ATTACKS = {
    "none": lambda bed: time.sleep(LENGTH),
    "rapid-reset": rapid_reset,
    "continuation-flood": continuation_flood,
    "empty-data-flood": data_flood(0, True),
    "empty-data-flood-no-key": data_flood(0, False),
    "one-byte-data-flood": data_flood(1, True),
    "header-bomb": header_bomb,
    "ping-flood": control_flood(PING),
    "settings-flood": control_flood(SETTINGS),
    "ping-flood-answers-read": control_flood(PING, True),
    "settings-flood-answers-read": control_flood(SETTINGS, True),
    "window-flood": control_flood(WINDOW),
    "priority-flood": control_flood(2),
    "10000-streams-no-key": streams(False),
    "10000-streams": streams(True),
    "health-streams": health_streams,
    "deaf": deaf,
    "10000-silent-grpc": connections(10_000, b"", "grpc"),
    "10000-silent-http": connections(10_000, b"", "http"),
    "10000-preface": connections(10_000, PREFACE + frame(SETTINGS, 0, 0), "grpc"),
    "10000-slow-heads": connections(10_000, LINE, "http"),
    "10000-slow-heads-management": connections(10_000, LINE.replace(b"/v1/logs", b"/healthz"), "management"),
    "10000-silent-vault": connections(10_000, b"", "vault"),
    "10000-half-hellos-vault": connections(10_000, client_hello()[:100], "vault"),
    "10000-hellos-vault": connections(10_000, client_hello(), "vault"),
    "10000-hellos-http": connections(10_000, client_hello(), "http"),
    "hello-flood": handshakes(False),
    "handshake-flood": handshakes(True),
    "slow-bodies-small-grpc": slow_bodies(100, 1_000, "grpc"),
    "slow-bodies-small-http": slow_bodies(100, 1_000, "http"),
    "slow-bodies-large-grpc": slow_bodies(8, 64 << 20, "grpc"),
    "slow-bodies-large-http": slow_bodies(8, 64 << 20, "http"),
}


def attacker(name, bed, said):
    """Runs in a process of its own, so that it can be nicer than the others."""
    if PIN:
        os.sched_setaffinity(0, CORES[-1:])
        os.nice(5)
    try:
        said.put(ATTACKS[name](bed))
    except Exception as error:
        said.put(f"the attack itself failed: {error!r}")


def main():
    binary, names = sys.argv[1], sys.argv[2:] or list(ATTACKS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for name in names:
        bed = Bed(binary)
        time.sleep(1)
        start = time.time()
        time.sleep(3)
        middle, before, used = time.time(), bed.peak, bed.seconds()
        bed.peak = 0
        said = multiprocessing.Queue()
        hostile = multiprocessing.Process(target=attacker, args=(name, bed, said))
        hostile.start()
        how = said.get()
        end = time.time()
        used = (bed.seconds() - used) / (end - middle)
        hostile.join()
        # The queues end with those who fill them.
        bed.over.set()
        rows = []
        for who, queue in (("shipper", bed.shipped), ("newcomers", bed.came)):
            seen = []
            while True:
                try:
                    seen.append(queue.get(timeout=0.5))
                except Exception:
                    break
            for phase, since, until in (("before", start, middle), ("during", middle, end)):
                rows.append(f"    {who:9} {phase}: {summary([item for item in seen if since <= item[0] < until])}")
        print(f"{name}: {how}\n    memory {before} MiB before, at most {bed.peak} during; {used:.2f} of a core; server {bed.end()}\n" + "\n".join(rows), flush=True)


def summary(seen):
    bad = {}
    for _, _, what in seen:
        if what != 200:
            bad[what] = bad.get(what, 0) + 1
    times = sorted(took for _, took, what in seen if what == 200) or [float("nan")]
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] * 1000
    return f"n {len(seen):5} p50 {at(.5):7.1f} p99 {at(.99):7.1f} max {times[-1] * 1000:7.1f} ms{' failed ' + str(bad) if bad else ''}"


if __name__ == "__main__":
    main()
