#!/usr/bin/env bash
# Makes a stored data directory: `make.sh BINARY FOLDER`. FOLDER gets data/, as BINARY left it when it was killed, and expected.json, what is in it.
# Needs bash, curl and python3, and a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "$1")
folder=$(realpath -m "$2")
[ ! -e "$folder" ] || { echo "$folder is there already; a stored directory is never made anew" >&2; exit 1; }
work=$(mktemp -d)
data=$work/data
pid=
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
export LOGSEAL_DATA_DIR=$data LOGSEAL_VAULT_ROOT_KEY_FILE=$here/root.key

start() {
    exec {ready}< <(exec "$binary" serve --otlp-grpc 127.0.0.1:0 --otlp-http 127.0.0.1:0 --management 127.0.0.1:0 --vault 127.0.0.1:0 \
        --set segment.max_age_ms=600000 2>>"$work/log")
    pid=$!
    local line
    read -r line <&"$ready" || { cat "$work/log" >&2; exit 1; }
    echo "$line"
}

stop() {
    kill -TERM "$pid"
    wait "$pid"
    pid=
}

# field FILE KEY...: a value of a JSON document.
field() {
    python3 -c 'import functools, json, sys; print(functools.reduce(lambda of, key: of[key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@"
}

# ship WORKSPACE TABLE TEXT COUNT: records `TEXT 1` to `TEXT COUNT` in one request.
ship() {
    local key url
    key=$("$binary" workspace keys "$1" --json | field /dev/stdin primarySharedKey)
    url=$(field "$data/credentials.json" endpoints otlpHttp)/v1/logs
    python3 - "$@" >"$work/request.json" <<'PYTHON'
import json, sys
workspace, table, text, count = sys.argv[1:]
records = [{
    "timeUnixNano": str(1_700_000_000_000_000_000 + number),
    "body": {"stringValue": f"{text} {number}"},
    "attributes": [
        {"key": "number", "value": {"intValue": str(number)}},
        {"key": "origin", "value": {"stringValue": text}},
    ],
} for number in range(1, int(count) + 1)]
resource = {"attributes": [{"key": "logseal.table", "value": {"stringValue": table}}]}
print(json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": records}]}]}))
PYTHON
    curl --silent --show-error --fail --output /dev/null --header "authorization: Bearer $key" --header 'content-type: application/json' \
        --data-binary "@$work/request.json" "$url"
    printf '%s\t%s\t%s\t%s\n' "$@" >>"$work/shipped"
}

# Two workspaces under the service-managed key, with a segment each.
start
"$binary" workspace create team >/dev/null
ship default logs "default first" 3
ship team logs "team first" 3
stop

# Retention removes what is older than two years at most. A workspace that `catalog rebuild` made keeps everything until somebody says otherwise.
# The anchor of the audit trail goes too: with it the new catalog's trail would be one that lacks records.
mkdir "$work/before"
mv "$data"/catalog.sqlite* "$data/audit.head" "$work/before"
"$binary" catalog rebuild >/dev/null

# A cluster under a key of its own with a workspace in it; the key is rotated, and the cluster follows.
start
"$binary" vault key create customer --size 2048 >/dev/null
"$binary" cluster create prod --key-name customer >/dev/null
"$binary" workspace link team --cluster prod >/dev/null
ship team logs "team linked" 3
stop
start
first=$("$binary" vault key versions customer --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["version"])')
"$binary" cluster update prod --key-name customer --key-version "$first" >/dev/null
"$binary" vault key rotate customer >/dev/null
second=$("$binary" vault key versions customer --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["version"])')
"$binary" cluster update prod --key-name customer --key-version "$second" >/dev/null
! "$binary" cluster update prod --key-name no-such-key >/dev/null 2>&1
"$binary" workspace regenerate-key team --key primary >/dev/null
token=$("$binary" token create --name reader --role reader --workspace team 2>/dev/null)
ship team logs "team rotated" 3
stop

# What is in the log alone when the program is killed: records of all streams so far, and a new table.
start
ship default logs "default log" 3
ship default audit "audit log" 2
ship team logs "team log" 3
keys=$(for workspace in default team; do
    printf '%s\t%s\n' "$workspace" "$("$binary" workspace keys "$workspace" --json | field /dev/stdin primarySharedKey)"
done)
"$binary" operation list --limit 1000 --json >"$work/operations.json"
"$binary" audit list --limit 1000 --json >"$work/audit.json"
kill -KILL "$pid"
wait "$pid" 2>/dev/null || true
pid=

# The index of the catalog's log is made anew by whoever opens it, and so is the lock.
rm -f "$data/catalog.sqlite-shm" "$data/lock"
sed -i "s#$data#/var/lib/logseal#g" "$data/credentials.json"
mkdir -p "$folder"
KEYS=$keys TOKEN=$token FIRST=$first SECOND=$second python3 - "$work" "$folder" "$data" <<'PYTHON'
import json, os, sys
work, folder, data = sys.argv[1:]
shipped = [line.rstrip("\n").split("\t") for line in open(f"{work}/shipped")]
# `user_version` in the header of the database (sqlite.org/fileformat.html).
header = open(f"{data}/catalog.sqlite", "rb").read(100)
expected = {
    "catalogFormat": int.from_bytes(header[60:64], "big"),
    "records": [
        {"workspace": workspace, "table": table, "text": text, "count": int(count)} for workspace, table, text, count in shipped
    ],
    "workspaceKeys": dict(line.split("\t") for line in os.environ["KEYS"].splitlines()),
    "readerToken": os.environ["TOKEN"],
    "operations": {operation["name"]: operation["status"] for operation in json.load(open(f"{work}/operations.json"))},
    "auditRecords": len(json.load(open(f"{work}/audit.json"))),
    "keyVersions": [os.environ["SECOND"], os.environ["FIRST"]],
}
with open(f"{folder}/expected.json", "w") as file:
    json.dump(expected, file, indent=1)
    file.write("\n")
PYTHON
cp -r "$data" "$folder/data"
du -sh "$folder"
