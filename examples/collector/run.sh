#!/usr/bin/env bash
# Sends runs to a real OpenTelemetry Collector, and checks what it received:
#
#   examples/collector/run.sh            # three runs: gRPC, HTTP, and one that fails
#   examples/collector/run.sh --outage   # and what happens while the collector is down
#
# Needs Go, curl, and for the first run the Go module proxy. In the environment:
#
#   OTELCOL=FILE          a collector that is there already; it needs the otlp
#                         receiver and the file and prometheus exporters
#   OTELCOL_DIR=DIR       where the collector is built, once
#                         (default: $XDG_CACHE_HOME/wattspan-otelcol)
#   OTELCOL_OUT=DIR       a new folder for what is written (default: a temporary
#                         one, removed where all is well)
#   OTELCOL_GRPC_PORT, OTELCOL_HTTP_PORT, OTELCOL_PROMETHEUS_PORT
#                         (default: free ports)
#   WATTSPAN=FILE         a runner that is there already (default: this checkout's)
#
# Exit codes: 0 where all is as it should be, 1 where it is not, 2 where this
# script could not do its work.
set -euo pipefail
shopt -s inherit_errexit

version=0.161.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# In an argument and in the environment of every run: must not be sent anywhere.
secret="s3cr3t-$RANDOM$RANDOM"

say() { printf '\n== %s\n' "$*"; }
die() {
	printf 'run.sh: %s\n' "$*" >&2
	exit 2
}

outage=false
case "${1:-}" in
"") ;;
--outage) outage=true ;;
*) die "unknown argument $1; there is --outage" ;;
esac
for tool in go curl; do
	command -v "$tool" >/dev/null || die "$tool is not installed"
done

# What the caller's environment says to runners and exporters is not for ours.
for variable in $(compgen -e | grep -E '^(OTEL_|WATTSPAN_|TRACEPARENT$|TRACESTATE$|BAGGAGE$)' || true); do
	unset "$variable"
done
# Everything here is on this machine.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1
# go-nvml binds functions that NVIDIA has deprecated; its warnings are not ours.
export CGO_CFLAGS="${CGO_CFLAGS:--O2 -g} -Wno-deprecated-declarations"

# build_collector builds the collector, unless the cache has one of this manifest.
build_collector() {
	local dir=${OTELCOL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/wattspan-otelcol}
	OTELCOL=$dir/otelcol-build/otelcol
	if [[ -x $OTELCOL ]] && cmp -s "$here/builder.yaml" "$dir/builder.yaml"; then
		return
	fi
	say "building the collector $version in $dir (once; about 5 minutes on two cores)"
	mkdir -p "$dir"
	# The manifest is copied last: a build that was cut short is done again.
	rm -f "$dir/builder.yaml"
	GOBIN=$dir go install "go.opentelemetry.io/collector/cmd/builder@v$version"
	(cd "$dir" && CGO_ENABLED=0 GOWORK=off ./builder --config "$here/builder.yaml")
	cp "$here/builder.yaml" "$dir/builder.yaml"
}

# free_port finds a port that nobody listens on, below those that the kernel
# gives to connections.
free_port() {
	local port try
	for ((try = 0; try < 100; try++)); do
		port=$((20000 + RANDOM % 12000))
		if ! listens "$port"; then
			echo "$port"
			return
		fi
	done
	die "no free port found"
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_until repeats a command until it succeeds, for some 30 seconds at most.
wait_until() {
	local what=$1 try
	shift
	for ((try = 0; try < 300; try++)); do
		if "$@"; then
			return
		fi
		if [[ -n $collector ]] && ! kill -0 "$collector" 2>/dev/null; then
			cat "$OTELCOL_OUT/otelcol.log" >&2
			die "the collector ended while waiting until $what"
		fi
		sleep 0.1
	done
	die "waited for 30 s until $what, in vain; see $OTELCOL_OUT"
}

collector=
# start_collector starts the collector with the output folder of its arguments.
start_collector() {
	OTELCOL_OUT=$1
	mkdir -p "$OTELCOL_OUT"
	export OTELCOL_OUT OTELCOL_GRPC_PORT OTELCOL_HTTP_PORT OTELCOL_PROMETHEUS_PORT
	"$OTELCOL" --config "$here/collector.yaml" >>"$OTELCOL_OUT/otelcol.log" 2>&1 &
	collector=$!
	wait_until "the collector is ready" ready
}

ready() {
	listens "$OTELCOL_GRPC_PORT" && listens "$OTELCOL_HTTP_PORT" && listens "$OTELCOL_PROMETHEUS_PORT"
}

# stop_collector ends it as an init system does: what it holds is written first.
stop_collector() {
	local code=0
	kill -TERM "$collector"
	wait "$collector" || code=$?
	collector=
	[[ $code == 0 ]] || fail "the collector ended with exit code $code"
	if grep -E $'\t(warn|error)\t' "$OTELCOL_OUT/otelcol.log"; then
		fail "the collector complained"
	fi
}

failures=0
fail() {
	printf 'FAIL %s\n' "$*"
	failures=$((failures + 1))
}

# run NAME PROTOCOL PORT EXIT SCRIPT [VARIABLE=VALUE...] runs a shell script that
# ends with an exit code. The report is NAME.json, the run's ID has NAME in it.
run() {
	local name=$1 protocol=$2 port=$3 want=$4 script=$5 code=0
	shift 5
	say "$name: a run over $protocol that ends with $want"
	env "$@" "TOKEN=$secret" "WATTSPAN_RUN_ID=example-$name-$stamp" \
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:$port" "OTEL_EXPORTER_OTLP_PROTOCOL=$protocol" \
		"$WATTSPAN" run --country FR --json "$work/$name.json" -- \
		sh -c "$script" sh --token "$secret" 2>"$work/$name.stderr" || code=$?
	cat "$work/$name.stderr"
	[[ $code == "$want" ]] || fail "$name: exit code: want the command's $want, got $code"
	[[ -s $work/$name.json ]] || die "$name: there is no report"
}

# complaints are the runner's lines but for the first of its summary.
complaints() { grep '^wattspan: ' "$work/$1.stderr" | grep -v ' ran for ' || true; }

# page FOLDER NAME... keeps what Prometheus would see, as soon as all of the runs is
# there. Where it does not come, the comparison says what is missing.
page() {
	local folder=$1 try
	shift
	for ((try = 0; try < 100; try++)); do
		curl -sf --max-time 10 "http://127.0.0.1:$OTELCOL_PROMETHEUS_PORT/metrics" >"$folder.prom" ||
			die "the prometheus exporter does not answer"
		if check "$folder" "$@" >/dev/null 2>&1; then
			return
		fi
		sleep 0.1
	done
}

# check FOLDER NAME... runs the program of that name.
check() {
	local folder=$1 name
	local -a reports=()
	shift
	for name in "$@"; do
		reports+=("$work/$name.json")
	done
	"$work/check" -dir "$folder" -page "$folder.prom" -secret "$secret" "${reports[@]}"
}

# compare FOLDER NAME... compares what the collector received with the reports.
compare() {
	local folder=$1
	check "$@" || fail "what the collector received is not what the runs reported"
	if grep -rlF -- "$secret" "$folder"; then
		fail "these files hold the secret"
	fi
}

cleanup() {
	local code=$?
	if [[ -n $collector ]]; then
		kill -TERM "$collector" 2>/dev/null || true
		wait "$collector" 2>/dev/null || true
	fi
	if [[ $code == 0 && $keep == false ]]; then
		rm -rf "$work"
	else
		printf '\nwhat was written is in %s\n' "$work"
	fi
}

keep=true
if [[ -z ${OTELCOL_OUT:-} ]]; then
	keep=false
	work=$(mktemp -d)
else
	[[ ! -e $OTELCOL_OUT ]] || die "$OTELCOL_OUT is there already; name a new folder"
	mkdir -p "$OTELCOL_OUT"
	work=$(cd "$OTELCOL_OUT" && pwd)
fi
trap cleanup EXIT
stamp=$(date -u +%Y%m%dT%H%M%SZ)

if [[ -z ${OTELCOL:-} ]]; then
	build_collector
fi
[[ -x $OTELCOL ]] || die "$OTELCOL is no program"
: "${OTELCOL_GRPC_PORT:=$(free_port)}" "${OTELCOL_HTTP_PORT:=$(free_port)}" "${OTELCOL_PROMETHEUS_PORT:=$(free_port)}"

say "building the runner and the check"
cd "$here/../.."
go build -o "$work/check" ./examples/collector/check
if [[ -z ${WATTSPAN:-} ]]; then
	WATTSPAN=$work/wattspan
	go build -o "$WATTSPAN" ./examples/wattspan
fi

say "the collector: gRPC on 127.0.0.1:$OTELCOL_GRPC_PORT, HTTP on :$OTELCOL_HTTP_PORT, Prometheus on :$OTELCOL_PROMETHEUS_PORT"
"$OTELCOL" --version
start_collector "$work/received"

run grpc grpc "$OTELCOL_GRPC_PORT" 0 "sleep 1"
run http http/protobuf "$OTELCOL_HTTP_PORT" 0 "sleep 1"
run exit7 grpc "$OTELCOL_GRPC_PORT" 7 "sleep 0.5; exit 7"
run metered grpc "$OTELCOL_GRPC_PORT" 0 "sleep 2" "WATTSPAN_NODE_METER=command:echo 300 W"
for name in grpc http exit7 metered; do
	[[ -z $(complaints "$name") ]] || fail "$name: the runner complains: $(complaints "$name")"
done

page "$work/received" grpc http exit7 metered
stop_collector

say "what the collector received, and what the runs reported"
compare "$work/received" grpc http exit7 metered

say "the names in Prometheus"
sed -n 's/^# TYPE //p' "$work/received.prom"

if $outage; then
	# A run that ends while the collector is down: its report is what is left.
	run lost http/protobuf "$OTELCOL_HTTP_PORT" 7 "sleep 0.5; exit 7"
	[[ -n $(complaints lost) ]] || fail "lost: want a word on what was not delivered, got none"

	# A collector that comes back while a run is going on gets all of it: metrics
	# are cumulative, and the span is sent at the end.
	say "late: the collector is down at first, and back before the run ends"
	run late grpc "$OTELCOL_GRPC_PORT" 0 "until test -e '$work/back/ready'; do sleep 0.1; done" \
		OTEL_METRIC_EXPORT_INTERVAL=500 >"$work/late.log" 2>&1 &
	late=$!
	sleep 2 # of failed exports
	start_collector "$work/back"
	touch "$work/back/ready"
	code=0
	wait "$late" || code=$?
	cat "$work/late.log"
	[[ $code == 0 ]] || fail "late: it failed"
	if grep -q '^FAIL' "$work/late.log"; then
		fail "late: see above"
	fi
	[[ -z $(complaints late) ]] || fail "late: the runner complains: $(complaints late)"
	page "$work/back" late
	stop_collector
	compare "$work/back" late
fi

if [[ $failures != 0 ]]; then
	printf '\n%d failures\n' "$failures"
	exit 1
fi
printf '\nall is as it should be\n'
